"""PostgreSQL: its tables and their migrations, connections, and the publication of rows.

Plain Python: the Dagster resource is in `defs/resources.py`, the API's queries are in `api/`.
"""
