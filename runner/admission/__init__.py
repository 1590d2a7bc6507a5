"""Whether this computer can bear the run, and with how many machines."""
