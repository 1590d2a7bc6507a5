"""What the operator sees of a run, and what he says to it."""
