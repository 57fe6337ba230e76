"""More than one process can hold: days of a million events through a refresh and a training on a Spark cluster.

    python -m benchmarks.cluster --events 50000000

The lake gets days by copies of a simulated one, as for `benchmarks.growth`, from DuckDB. A standalone cluster of two
workers on this machine then makes all tables of all days, and publishes them: the same jobs that DuckDB runs, with
COMPUTE_ENGINE=spark. Each day's orders and revenue have to be those that plain SQL counts in its events, and the
sessions have to hold all events, or the run ends with what differs. `peak_mb` is that of the driver: what the workers
have is theirs, and what comes to the driver has to be bounded (docs/sizing.md).
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.day.events import DAY
from benchmarks.growth import OF_A_DAY, job, servers_of_days
from benchmarks.measure import run_measured, say
from clickstream_assets.catalogue import DAILY_SUMMARY, EVENTS, SESSIONS
from clickstream_assets.local.spark import standalone_cluster
from clickstream_assets.settings import load_settings

COUNTED = """
    SELECT
        event_date,
        count(DISTINCT (user_id, order_id)) FILTER (event_type = 'purchase'),
        sum(price * coalesce(quantity, 1)) FILTER (event_type = 'purchase')
    FROM events
    WHERE NOT is_bot
    GROUP BY event_date
"""
Figures = dict[date | str, tuple[Any, ...]]
EVERYTHING = "events of all sessions"


def expected(lake: str) -> Figures:
    """Count each day's orders and revenue, and all events, by plain SQL."""
    connection = duckdb.connect(config={"threads": 2})
    files = DeltaTable(f"{lake}/{EVENTS.name}").file_uris()
    columns = "event_type, user_id, order_id, price, quantity, is_bot, event_date"
    connection.execute(
        f"CREATE VIEW events AS SELECT {columns} FROM read_parquet($files, hive_partitioning = true)".replace(
            "$files", repr(files)
        )
    )
    counted: Figures = {row[0]: row[1:] for row in connection.sql(COUNTED).fetchall()}
    return counted | {EVERYTHING: connection.sql("SELECT count(*) FROM events").fetchall()[0]}


def made(lake: str) -> Figures:
    """Return what the daily summaries and the sessions say of the same."""
    columns = ["report_date", "orders", "revenue"]
    rows = DeltaTable(f"{lake}/{DAILY_SUMMARY.name}").to_pyarrow_table(columns=columns).to_pylist()
    found: Figures = {row["report_date"]: (row["orders"], row["revenue"]) for row in rows}
    sessions = DeltaTable(f"{lake}/{SESSIONS.name}").to_pyarrow_table(columns=["total_events"])
    return found | {EVERYTHING: (pc.sum(sessions["total_events"]).as_py(),)}


def main() -> None:
    """Fill a lake, run the jobs on a cluster, and compare; print a JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000_000, help="Events in the lake.")
    parser.add_argument("--of-a-day", type=int, default=OF_A_DAY, help="Events of a day.")
    arguments = parser.parse_args()
    days = max(1, arguments.events // arguments.of_a_day)
    every = [(DAY + timedelta(days=number)).isoformat() for number in range(days)]
    with servers_of_days() as home:
        filled = run_measured(["-m", "benchmarks.growth", "--fill", str(days), str(arguments.of_a_day)])
        say(f"{arguments.events:,} events in {days} days are written: {filled}")
        settings = load_settings()
        with standalone_cluster(settings, home / "cluster", workers=2, cores=1) as cluster:
            os.environ.update(COMPUTE_ENGINE="spark", SPARK_MASTER=cluster.master)
            found = {
                "ingest": job("ingest"),
                "refresh": job("refresh", every),
                "train": job("train"),
            }
            cluster.check()
        should, have = expected(settings.lake), made(settings.lake)
    for what in sorted(should.keys() | have.keys(), key=str):
        if should.get(what) != have.get(what):
            raise SystemExit(f"{what}: {should.get(what)} by SQL, {have.get(what)} in the tables")
    print(json.dumps({"events": arguments.events, "days": days, "equal_days": len(should) - 1, **found}))


if __name__ == "__main__":
    main()
