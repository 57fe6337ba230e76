"""The served tables in PostgreSQL: their migrations and how rows are published into them.

Plain Python: what Dagster adds is in `resources/postgres.py`, what the API reads is in `api/queries.py`.
"""
