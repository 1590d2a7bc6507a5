"""What went wrong, whose doing it was, and what is done about it."""
