"""A day's tables as the pipeline makes them, and as SQL by hand makes them; see `__main__`."""
