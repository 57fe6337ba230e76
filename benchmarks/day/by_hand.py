"""The same tables as SQL by hand, in plain DuckDB on the lake's events: what the pipeline is measured against.

    LAKE_PATH=… python -m benchmarks.day.by_hand FOLDER sessions carts …

The scripts are those that the proofs hold the pipeline's tables against, for the default settings. They run one after
another, each with what those before it left in the connection. A table goes to a Parquet file of its name, with the
compression that delta-rs takes. There are as many threads as the pipeline has, and no memory limit but DuckDB's own.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from benchmarks.day.usage import used_by
from clickstream_assets.catalogue import EVENTS, Table
from clickstream_assets.settings import load_settings
from clickstream_assets_tests.proofs.scripts import create_expected, database, run_script

ORDER = (
    "sessions",
    "shopper_events",
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
SCRIPTS_OF = {"customer_segments": ("customer_segment_days", "customer_segments")}
"""Tables that an asset makes, where it is not the one of its name alone."""


PERSONS = """
    WITH logins AS (
        SELECT DISTINCT anonymous_id, user_id, event_time FROM sent
        WHERE anonymous_id IS NOT NULL AND user_id IS NOT NULL
    ),
    first_logins AS (
        SELECT anonymous_id, arg_min(user_id, event_time) AS first_user, min(event_time) AS first_at FROM logins
        GROUP BY anonymous_id HAVING count(DISTINCT user_id) <= 10
    )
    SELECT sent.* REPLACE (
        coalesce(
            sent.user_id,
            CASE WHEN first_at <= sent.event_time THEN logins.user_id END,
            CASE WHEN first_at - INTERVAL 720 HOURS <= sent.event_time THEN first_user END,
            'anonymous:' || sent.anonymous_id
        ) AS user_id
    )
    FROM sent
    LEFT JOIN first_logins USING (anonymous_id)
    ASOF LEFT JOIN logins ON sent.anonymous_id = logins.anonymous_id AND sent.event_time >= logins.event_time
"""
"""Events with their persons: the user, the visitor's latest by then or first, or the visitor."""


def source(lake: str, table: Table) -> str:
    """Return the SQL that reads a table's files."""
    files = DeltaTable(f"{lake}/{table.name}").file_uris()
    days = "".join(
        f", hive_partitioning = true, hive_types = {{'{column}': DATE}}" for column in table.partition_by
    )
    return f"read_parquet({files}{days})"


def write(connection: duckdb.DuckDBPyConnection, asset: str, folder: Path) -> None:
    """Compute an asset's tables into files."""
    for name in SCRIPTS_OF.get(asset, (asset,)):
        run_script(connection, name)
        connection.execute(
            f"COPY expected.{name} TO '{folder / name}.parquet' (FORMAT parquet, COMPRESSION snappy)"
        )


def main() -> None:
    """Write all tables, as each may read those before it; print what those that are asked for took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tables", nargs="+", choices=ORDER)
    arguments = parser.parse_args()
    settings = load_settings()
    connection = database(
        threads=settings.duckdb_threads or 2,
        temp_directory=str(arguments.folder / "spill"),
        preserve_insertion_order=False,
    )
    connection.execute(
        "CREATE VIEW sent AS "
        'SELECT * EXCLUDE (event_date), "offset" AS line, session_id AS client_session_id, is_bot AS is_robot '
        f"FROM {source(settings.lake, EVENTS)}"
    )
    ((has_visitors,),) = connection.sql("SELECT count(anonymous_id) > 0 FROM sent").fetchall()
    connection.execute(f"CREATE VIEW accepted AS {PERSONS if has_visitors else 'FROM sent'}")
    create_expected(connection)
    used = {name: used_by(partial(write, connection, name, arguments.folder)) for name in ORDER}
    print(json.dumps({"tables": {name: used[name] for name in arguments.tables}}))


if __name__ == "__main__":
    main()
