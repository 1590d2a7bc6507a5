"""Files that are whole or absent, and the user's alone."""
