"""The daily tables by plain SQL, to be run one after another: a script of `sql/` for each.

The proofs compare their rows with the pipeline's; `benchmarks.day` compares their time and memory too, so this imports
no more than they need. They share no code with `clickstream_assets.analytics`.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from clickstream_assets.catalogue import TABLES

SQL = Path(__file__).parent / "sql"
SCRIPTS = (
    "sessions",
    "carts",
    "cart_days",
    "user_segments",
    "cohort_retention",
    "customer_segment_days",
    "customer_segments",
    "product_performance",
    "category_conversion",
    "funnel",
    "campaign_attribution",
    "daily_summary",
    "hourly_summary",
    "daily_report",
)
"""Names of the tables, each after those that its script reads."""


def database(zone: str = "UTC", **config: str | int | bool) -> duckdb.DuckDBPyConnection:
    """Return an empty DuckDB with two threads unless given, in which days are those of a time zone."""
    connection = duckdb.connect(config={"threads": 2, **config})
    connection.execute(f"SET TimeZone = '{zone}'")
    return connection


def create_expected(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the schema `expected` with the daily tables, empty, and the view `events` on the relation `accepted`.

    `accepted` has the columns of `raw` (see `recomputation.py`) and `is_robot`.
    """
    connection.execute("CREATE SCHEMA expected")
    for name in SCRIPTS:
        connection.register("empty", TABLES[name].arrow.empty_table())
        connection.execute(f"CREATE TABLE expected.{name} AS FROM empty")
    run_script(connection, "events")


def run_script(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Run the script of that name; a table's fills `expected.NAME`."""
    connection.execute((SQL / f"{name}.sql").read_text())
