"""The task loader's own protocol: what is said, and in which order."""
