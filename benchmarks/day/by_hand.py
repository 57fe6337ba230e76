"""The same tables as SQL by hand, in plain DuckDB on the lake's files: what the pipeline is measured against.

    LAKE_PATH=… python -m benchmarks.day.by_hand FOLDER sessions carts …

The statements in `sql/` are written for one day and the default settings, as one would write them once and without
the pipeline's code: sessions are cut neither at midnight nor at a campaign. A table goes to a Parquet file of its
name, with the compression that delta-rs takes. There are as many threads as the pipeline has, and no memory limit but
DuckDB's own.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from string import Template

import duckdb
from deltalake import DeltaTable

from benchmarks.day.events import DAY
from benchmarks.day.usage import used_by
from clickstream_assets.catalogue import CUSTOMER_SEGMENTS, EVENTS, SESSIONS, USER_SEGMENTS, Table
from clickstream_assets.settings import load_settings

SQL = Path(__file__).parent / "sql"
READ_BY_OTHERS = ("carts",)
"""Where a table's statements leave behind what those of another read."""
ORDER = (
    "sessions",
    "carts",
    "user_segments",
    "customer_segments",
    "cohort_retention",
    "product_performance",
    "category_conversion",
    "funnel",
    "campaign_attribution",
    "daily_summary",
)


def source(lake: str, table: Table) -> str:
    """The SQL that reads a table's files."""
    files = DeltaTable(f"{lake}/{table.name}").file_uris()
    days = "".join(
        f", hive_partitioning = true, hive_types = {{'{column}': DATE}}" for column in table.partition_by
    )
    return f"read_parquet({files}{days})"


def write(connection: duckdb.DuckDBPyConnection, name: str, folder: Path) -> None:
    """Compute a table into a file: of the statements in its script, the last one's rows."""
    script = Template((SQL / f"{name}.sql").read_text())
    text = script.substitute(day=DAY.isoformat(), day_us=86_400_000_000, folder=folder)
    *before, last = (statement.query for statement in connection.extract_statements(text))
    for statement in before:
        connection.execute(statement)
    file = folder / f"{name}.parquet"
    connection.execute(f"COPY ({last.rstrip().rstrip(';')}) TO '{file}' (FORMAT parquet, COMPRESSION snappy)")


def main() -> None:
    """Write the tables that are asked for, and, without measuring, those that they read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tables", nargs="+", choices=ORDER)
    arguments = parser.parse_args()
    settings = load_settings()
    connection = duckdb.connect(
        config={
            "threads": settings.duckdb_threads or 2,
            "temp_directory": str(arguments.folder / "spill"),
            "preserve_insertion_order": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    for table in (EVENTS, SESSIONS, USER_SEGMENTS, CUSTOMER_SEGMENTS):
        connection.execute(f"CREATE VIEW {table.name} AS FROM {source(settings.lake, table)}")
    connection.execute((SQL / "setup.sql").read_text())
    figures = {}
    for name in ORDER:
        work = partial(write, connection, name, arguments.folder)
        if name in arguments.tables:
            figures[name] = used_by(work)
        elif name in READ_BY_OTHERS and "customer_segments" in arguments.tables:
            work()
    print(json.dumps({"tables": figures}))


if __name__ == "__main__":
    main()
