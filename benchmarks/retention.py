"""Retention: what each store grows by, and what is left of it once all is past its retention.

    python -m benchmarks.retention --events 400000 --days 4 --refreshes 10

The simulated shop sends events of some days to Kafka; they are ingested, all tables made, and models trained, by
the jobs that the sensors start, a process each. Then come 1,000 new events of the newest day as often as `--refreshes`
says, each time ingested and refreshed. At last everything is past its retention. There are the bytes of each store
after each of the three; PostgreSQL's after a VACUUM FULL, which shows what is in it and not what it keeps for later.

`per_million` are the bytes that a million events add, `per_refresh` those of an ingest and a refresh, `left` the share
of these that stays.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.day.events import DAY
from benchmarks.growth import NEW_EVENTS, job, new_events, open_lake, servers_of_days, update
from benchmarks.measure import run_python, say
from clickstream_assets.catalogue import SERVED_TABLES, TABLES
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.producer import KafkaSink
from clickstream_assets.stores.postgres.connection import connect

_RAW = ("raw_events", "raw_products", "raw_exposures")
_MODELS = ("als_user_factors", "als_item_factors", "next_product_models", "next_product_parts")
_ALL_DAY = range(24)
_PERSONS = {table.served_name for table in SERVED_TABLES if table.day and "user_id" in table.by_name}


def bytes_of(folder: Path, pattern: str = "*") -> int:
    """Return the bytes of the files of a folder and below."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def in_database(name: str, *, packed: bool) -> dict[str, int]:
    """Return the bytes of each table of a database, with its indexes; after a VACUUM FULL, if they are to be packed."""
    settings = load_settings()
    own = Settings(**{**settings.model_dump(), "postgres_db": name})
    with connect(own, autocommit=True) as connection:
        if packed:
            connection.execute("VACUUM FULL")
        return dict(_sizes(connection))


def _sizes(connection: psycopg.Connection) -> list[tuple[str, int]]:
    query = sql.SQL(
        "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    return connection.execute(query).fetchall()


def stored(home: Path, *, packed: bool = True) -> dict[str, int]:
    """Return the bytes of each store."""
    settings = load_settings()
    lake = Path(settings.lake)
    names = (settings.postgres_db, settings.dagster_postgres_db)
    served, dagster = (in_database(name, packed=packed) for name in names)
    tables = [lake / name for name in TABLES if (lake / name).exists()]
    logs = sum(bytes_of(table / "_delta_log") for table in tables)
    raw = sum(bytes_of(lake / name, "*.parquet") for name in _RAW if (lake / name).exists())
    models = sum(bytes_of(table) for table in tables if table.name in _MODELS)
    persons = sum(size for name, size in served.items() if name in _PERSONS)
    events, checks = (dagster.get(name, 0) for name in ("event_logs", "asset_check_executions"))
    return {
        "Kafka": bytes_of(home / "kafka"),
        "lake: records": raw,
        "lake: tables": sum(bytes_of(table) for table in tables) - raw - logs - models,
        "lake: models": models,
        "lake: commits": logs,
        "PostgreSQL: persons' days": persons,
        "PostgreSQL: others": sum(served.values()) - persons,
        "Dagster: events": events,
        "Dagster: checks": checks,
        "Dagster: others": sum(dagster.values()) - events - checks,
        "Dagster: output of runs": bytes_of(Path(os.environ["DAGSTER_HOME"]) / "storage"),
        "logs": bytes_of(home / "logs"),
    }


def expire() -> dict[str, Any]:
    """Delete what upkeep deletes, as if all of it were past its retention."""
    import dagster as dg

    from clickstream_assets.defs.dagster_private import delete_checks
    from clickstream_assets.defs.maintenance.history import delete_old_runs

    start = datetime.now(UTC)
    with dg.DagsterInstance.get() as instance:
        runs, checks = delete_old_runs(instance, start, start), delete_checks(instance, start)
    seconds = (datetime.now(UTC) - start).total_seconds()
    lake = open_lake()
    for table in filter(lake.exists, TABLES.values()):
        # None, and a day would be the least that upkeep takes.
        lake.maintain(table, timedelta(seconds=1))
    return {"runs": runs, "checks": checks, "seconds_of_runs": round(seconds, 1)}


def less(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each store has grown."""
    return {name: after[name] - before[name] for name in after}


def main() -> None:
    """Fill all stores, bring them up to date some times, and let everything expire; print a JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--refreshes", type=int, default=10)
    parser.add_argument("--expire", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.expire:
        print(json.dumps(expire()))
        return
    with servers_of_days() as home:
        # By a VACUUM of an empty table PostgreSQL takes it for empty afterwards, and plans accordingly.
        empty = stored(home, packed=False)
        of_a_day = arguments.events // arguments.days
        with KafkaSink(load_settings()) as topic:
            for number in range(arguments.days):
                for record in new_events(DAY + timedelta(days=number), of_a_day, number, _ALL_DAY):
                    topic.send(None, json.dumps(record).encode())
        say(f"{arguments.events:,} events are in Kafka")
        job("refresh", job("ingest")["dirty_days"])
        job("train")
        filled = stored(home)
        say(f"filled: {filled}")
        newest = DAY + timedelta(days=arguments.days - 1)
        for number in range(arguments.refreshes):
            update(new_events(newest, NEW_EVENTS, 100 + number))
        refreshed = stored(home)
        say(f"refreshed: {refreshed}")
        expired = json.loads(run_python(["-W", "ignore", "-m", "benchmarks.retention", "--expire"]))
        left = stored(home)
    grown, by_refreshes = less(filled, empty), less(refreshed, filled)
    print(
        json.dumps(
            {
                "per_million": {
                    name: round(size * 1_000_000 / arguments.events) for name, size in grown.items()
                },
                "per_refresh": {
                    name: round(size / arguments.refreshes) for name, size in by_refreshes.items()
                },
                "left": {
                    name: round(max(0, size - empty[name]) / max(1, refreshed[name] - empty[name]), 2)
                    for name, size in left.items()
                },
                "expired": expired,
            }
        )
    )


if __name__ == "__main__":
    main()
