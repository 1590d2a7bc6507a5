"""A run from Python: started, looked at and steered from a notebook, a shell or a script."""
