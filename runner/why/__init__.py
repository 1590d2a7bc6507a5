"""What happened to a run, a task set or a machine, and why: read from the ledger and the logs, put into words."""
