"""Faults that a rehearsal injects into a run of its own, and how it tells whether the run survives; no other run imports this."""
