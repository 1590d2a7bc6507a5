"""The run folder: its names, its lock, what lies in it before and after a run."""
