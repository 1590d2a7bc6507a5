"""Whoever is told what happens to task sets: one file per kind of listener."""
