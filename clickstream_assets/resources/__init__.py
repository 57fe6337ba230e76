"""Dagster resources: the pipeline's settings and everything that does I/O, opened only when an asset asks."""
