"""Connections to hosts: one file per way to start a task set there and to receive what happens to it."""
