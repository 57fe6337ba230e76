"""Interactions, what to recommend from them, and whether that beats popularity: no Dagster, no I/O."""
