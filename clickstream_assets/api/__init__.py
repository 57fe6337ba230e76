"""The REST API over the tables that are published to PostgreSQL.

Thin and quick to start: it reads, and knows nothing of Dagster, Spark or the lake.
"""
