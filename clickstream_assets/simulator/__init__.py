"""A generated shop: its events and their faults, made without I/O by all modules but `run`, which sends them."""
