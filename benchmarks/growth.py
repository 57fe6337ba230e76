"""Growth: what it costs to stay up to date, by how many events are in the lake already.

    python -m benchmarks.growth --sizes 1000000,4000000,16000000,64000000

The lake gets days of a million events, by copies of a simulated one, and all tables of them are made once. Then, on the
newest day, come 1,000 new events of its working hours; 1,000 more; 1,000 from midnight on, which may go on from visits
of the day before; one late event of ten days before; and the first tie of a visitor: each is ingested and refreshed by
the jobs that the sensors start, a process each. `train` is run once. Per size there are seconds and peak memory of each
job, the seconds of each asset, and the megabytes on disk of the lake's tables and of PostgreSQL.

`ingest_growth`, `refresh_growth` and `late_growth` are the seconds at the largest size over those at the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.day.events import DAY, EVENTS_PER_USER, PRODUCTS, simulated
from benchmarks.measure import run_measured, say, servers
from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.stores.lake import Lake

OF_A_DAY = 1_000_000
BATCH_EVENTS = 250_000
"""Events in one commit, as the ingest brings them in."""
NEW_EVENTS = 1_000
LATE_DAYS = 10
WORKING_HOURS, FROM_MIDNIGHT = range(8, 16), range(20)

OF_ANOTHER_DAY = """
    SELECT * REPLACE (
        event_id || '-' || $day AS event_id,
        session_id || '-' || $day AS session_id,
        order_id || '-' || $day AS order_id,
        event_time + to_days($day) AS event_time,
        kafka_time + to_days($day) AS kafka_time,
        event_date + CAST($day AS INTEGER) AS event_date,
        $batch AS batch,
        "offset" + $first AS "offset"
    ) FROM events
"""


def fill(lake_of: Any, days: int, of_a_day: int) -> None:
    """Write days of events, and their records without bytes, into a lake that is empty."""
    from clickstream_assets.ingest.money import update_money
    from clickstream_assets.settings import load_settings

    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    parts = list(simulated(of_a_day, BATCH_EVENTS))
    of_each = sum(part.num_rows for part in parts)
    batch = 0
    for day in range(days):
        for part in parts:
            batch += 1
            connection.register("events", part)
            values = {"day": day, "batch": batch, "first": day * of_each}
            rows = connection.sql(OF_ANOTHER_DAY, params=values).to_arrow_table()
            events = lake_of.engine.from_arrow(rows.select(EVENTS.column_names))
            records = connection.sql(
                "SELECT *, NULL::BIGINT AS kafka_timestamp, NULL::BLOB AS key, NULL::BLOB AS value FROM rows"
            ).to_arrow_table()
            raw = lake_of.engine.from_arrow(records.select(RAW_EVENTS.column_names))
            lake_of.append_batch(RAW_EVENTS, raw, batch)
            lake_of.append_batch(EVENTS, events, batch)
            for df in (events, raw):
                lake_of.engine.release(df)
    update_money(lake_of, 0, load_settings())


def open_lake() -> Lake:
    """Open the lake of the settings, as the assets do."""
    from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource

    settings = SettingsResource()
    return LakeResource(settings=settings, compute=ComputeResource(settings=settings)).get()


@contextmanager
def servers_of_days() -> Iterator[Path]:
    """Run servers for days from DAY on, with DuckDB on two processors; gives their home."""
    with servers() as home:
        os.environ.update(
            COMPUTE_ENGINE="duckdb",
            DUCKDB_THREADS="2",
            EVENTS_START_DATE=DAY.isoformat(),
            CLICKSTREAM_HOME=str(home),
        )
        yield home


def run_job(name: str, first: str, last: str) -> None:
    """Run a job of the definitions in this process; print the seconds of it and of each of its assets."""
    import time

    import dagster as dg

    from clickstream_assets.definitions import defs
    from clickstream_assets.defs.dagster_private import FIRST_PARTITION_TAG, LAST_PARTITION_TAG
    from clickstream_assets.defs.partitions import REQUEST_TAG

    # As the sensor asks for it.
    tags = {FIRST_PARTITION_TAG: first, LAST_PARTITION_TAG: last, REQUEST_TAG: "growth"} if first else {}
    job = defs().resolve_job_def(name)
    with dg.DagsterInstance.get() as instance:
        start = time.perf_counter()
        result = job.execute_in_process(instance=instance, tags=tags)
        seconds = time.perf_counter() - start
        by_asset = {
            str(event.step_key): round(event.step_success_data.duration_ms / 1000, 2)
            for event in result.all_events
            if event.is_step_success
        }
        dirty = [
            event.materialization.metadata["dirty_days"].value
            for event in result.get_asset_materialization_events()
            if "dirty_days" in event.materialization.metadata
        ]
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "steps": {name: its for name, its in by_asset.items() if its >= 0.1},
                "dirty_days": dirty[0] if dirty else [],
            }
        )
    )


def job(name: str, days: Iterable[str] = ()) -> dict[str, Any]:
    """Run a job in a process of its own; its seconds, its peak of memory, and those of its steps."""
    ordered = sorted(days)
    bounds = [ordered[0], ordered[-1]] if ordered else ["", ""]
    found = run_measured(["-W", "ignore", "-m", "benchmarks.growth", "--run", name, *bounds])
    say(f"  {name}: {found['seconds']} s, {found['peak_mb']} MB, {found['steps']}")
    return found


def update(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Send records, bring them in, and bring up to date what they make dirty."""
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.kafka.producer import KafkaSink

    with KafkaSink(load_settings()) as topic:
        for record in records:
            topic.send(None, json.dumps(record).encode())
    ingested = job("ingest")
    return {"ingest": ingested, "refresh": job("refresh", ingested["dirty_days"])}


def new_events(day: date, count: int, seed: int, hours: range = WORKING_HOURS) -> Iterator[dict[str, Any]]:
    """Yield events of the shop's shoppers on a day, in some of its hours."""
    from clickstream_assets.simulator.stream import RecordStream
    from clickstream_assets.simulator.traffic import Traffic

    start = datetime(day.year, day.month, day.day, hours.start, tzinfo=UTC)
    traffic = Traffic(
        users=OF_A_DAY // EVENTS_PER_USER,
        products=PRODUCTS,
        seed=seed,
        start=start,
        events=count,
        seconds=len(hours) * 3600,
    )
    for number, record in enumerate(RecordStream(traffic)):
        yield json.loads(record.value) | {"event_id": f"new-{seed}-{number}"}


def stored() -> dict[str, float]:
    """Return the megabytes of the lake's tables that have one or more, and of the served tables' database."""
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.postgres.connection import connect

    settings = load_settings()
    megabytes = {
        table.name: sum(file.stat().st_size for file in table.rglob("*") if file.is_file()) / 1e6
        for table in Path(settings.lake).iterdir()
    }
    with connect(settings) as connection:
        ((size,),) = connection.execute("SELECT pg_database_size(current_database())").fetchall()
    megabytes["PostgreSQL"] = size / 1e6
    return {name: round(its, 1) for name, its in sorted(megabytes.items()) if its >= 1}


def of_size(size: int, of_a_day: int) -> dict[str, Any]:
    """Fill a lake, and measure what comes then."""
    days = max(1, size // of_a_day)
    newest = DAY + timedelta(days=days - 1)
    with servers_of_days():
        filled = run_measured(["-m", "benchmarks.growth", "--fill", str(days), str(of_a_day)])
        say(f"{size:,} events in {days} days are written: {filled}")
        job("ingest")
        every = [(DAY + timedelta(days=n)).isoformat() for n in range(days)]
        whole = job("refresh", every)
        result: dict[str, Any] = {"whole": whole, "train": job("train")}
        result["new"] = update(new_events(newest, NEW_EVENTS, 2))
        # Once more: what the first has made anew, of its own, is there now.
        result["again"] = update(new_events(newest, NEW_EVENTS, 3))
        result["midnight"] = update(new_events(newest, NEW_EVENTS, 6, FROM_MIDNIGHT))
        late = newest - timedelta(days=min(LATE_DAYS, days - 1))
        result["late"] = update(new_events(late, 1, 4))
        (event,) = new_events(newest, 1, 5)
        result["tie"] = update([event | {"anonymous_id": "a-visitor"}])
        result["megabytes"] = stored()
    return result


def main() -> None:
    """Measure each size; print a JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="1000000,4000000,16000000,64000000", help="Events in the lake.")
    parser.add_argument("--of-a-day", type=int, default=OF_A_DAY, help="Events of a day.")
    parser.add_argument("--run", nargs=3, metavar=("JOB", "FIRST", "LAST"), help=argparse.SUPPRESS)
    parser.add_argument("--fill", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_job(*arguments.run)
        return
    if arguments.fill:
        fill(open_lake(), *arguments.fill)
        print("{}")
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    found = {size: of_size(size, arguments.of_a_day) for size in sizes}
    smallest, largest = found[sizes[0]], found[sizes[-1]]

    def growth(what: str, name: str) -> float:
        return round(largest[what][name]["seconds"] / smallest[what][name]["seconds"], 2)

    print(
        json.dumps(
            {
                "sizes": found,
                "ingest_growth": growth("again", "ingest"),
                "refresh_growth": growth("again", "refresh"),
                "late_growth": growth("late", "refresh"),
            }
        )
    )


if __name__ == "__main__":
    main()
