"""From a command line to the frozen plan of a run, and what is stored and compared of it."""
