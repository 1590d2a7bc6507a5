"""Crashes on demand: a process that dies at any chosen write, rename or fsync, and what is found afterwards."""
