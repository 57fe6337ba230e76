"""The group of raw records, events and rejected records."""
