"""The life of a machine: where it works, what it measures, how it comes back."""
