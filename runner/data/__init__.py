"""The data set of a run: its ledger, its tables, and what can be read from them."""
