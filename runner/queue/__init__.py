"""Which task set runs next, and what has become of it."""
