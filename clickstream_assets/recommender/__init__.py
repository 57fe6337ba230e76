"""Who met what, what to recommend from it, and whether that beats popularity: no Dagster, no I/O."""
