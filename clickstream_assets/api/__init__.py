"""The REST API over the tables that are published to PostgreSQL, and the collector of events before them.

Thin and quick to start: it knows nothing of Dagster, Spark or the lake.
"""
