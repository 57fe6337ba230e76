"""The asset graph, a folder per group: what Dagster sees. How a table is computed is in `analytics`."""
