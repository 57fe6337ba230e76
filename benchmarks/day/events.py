"""The day that is measured: events of simulated shoppers in a lake, and one that comes late.

python -m benchmarks.day.events LAKE 1000000 [--logins]
python -m benchmarks.day.events LAKE late
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.money import update_money
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.settings import load_settings
from clickstream_assets.simulator.habits import USUAL, Habits
from clickstream_assets.simulator.stream import RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets.stores.lake import Lake

DAY = date(2024, 5, 1)
BATCH_RECORDS = 250_000
"""Events in one commit, as the ingest brings them in."""
SIMULATED = 1_000_000
"""More events than these are copies of them: simulating goes through every single one in Python."""
EVENTS_PER_USER = 10
PRODUCTS = 5_000
LOGINS = Habits(
    anonymous=USUAL.anonymous,
    late_login=USUAL.late_login,
    never_login=USUAL.never_login,
    second_device=USUAL.second_device,
    shared_device=USUAL.shared_device,
    guest_checkout=USUAL.guest_checkout,
    identify=USUAL.identify,
)
"""Those of a usual shop's that are about who is who."""

COPIES = """
    SELECT * REPLACE (
        user_id || '-' || copy AS user_id,
        anonymous_id || '-' || copy AS anonymous_id,
        event_id || '-' || copy AS event_id,
        session_id || '-' || copy AS session_id,
        order_id || '-' || copy AS order_id,
        "offset" * $copies + copy AS "offset"
    )
    FROM events CROSS JOIN (SELECT unnest(range($copies)) AS copy)
"""
LATE = """
    SELECT * EXCLUDE (batch) REPLACE (
        event_id || '-late' AS event_id,
        order_id || '-late' AS order_id,
        event_time + INTERVAL 1 SECOND AS event_time
    ), batch + 1 AS batch
    FROM events WHERE event_type = 'purchase' AND campaign IS NOT NULL
    ORDER BY batch DESC, event_id LIMIT 1
"""


def write_day(lake: Lake, count: int, habits: Habits) -> None:
    """Write about `count` events of the day, in order of time, into the lake's empty `events`.

    The events of visits that go on after midnight are left out. Of more than SIMULATED events there are several
    copies, as if so many shops of the same goods had each had their own shoppers.
    """
    connection = _connection()
    copies = max(1, round(count / SIMULATED))
    parts = simulated(count // copies, BATCH_RECORDS // copies, habits)
    for batch, events in enumerate(parts, start=1):
        connection.register("events", numbered(events, batch))
        rows = connection.sql(COPIES, params={"copies": copies}).to_arrow_table()
        part = lake.engine.from_arrow(rows.select(EVENTS.column_names))
        lake.append_batch(EVENTS, part, batch)
        lake.engine.release(part)
    update_money(lake, 0, load_settings())


def add_late_event(lake: Lake) -> None:
    """Append a purchase of a shopper who is known, with a campaign, so that it concerns every table."""
    connection = _connection()
    files = DeltaTable(lake.path(EVENTS)).file_uris()
    connection.read_parquet(files, hive_partitioning=True).create_view("events")
    row = connection.sql(LATE).to_arrow_table().select(EVENTS.column_names)
    lake.append_batch(EVENTS, lake.engine.from_arrow(row), row["batch"][0].as_py())


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def numbered(events: pa.Table, batch: int) -> pa.Table:
    """Return EVENTS rows as those of a batch."""
    numbers = pa.repeat(pa.scalar(batch, pa.int64()), events.num_rows)
    return events.set_column(events.column_names.index("batch"), "batch", numbers)


def simulated(count: int, at_once: int, habits: Habits | None = None) -> Iterator[pa.Table]:
    """Yield EVENTS rows of DAY, at most so many at once; by default of users alone."""
    traffic = Traffic(
        users=max(1, count // EVENTS_PER_USER),
        products=PRODUCTS,
        seed=1,
        start=datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC),
        events=count,
        habits=habits or Habits(),
    )
    values = (record.value for record in RecordStream(traffic) if record.day == DAY)
    first = 0
    while part := list(islice(values, at_once)):
        yield parsed(part, first)
        first += len(part)


def parsed(values: list[bytes], first: int = 0, after: date = DAY) -> pa.Table:
    """Read records that arrived when a day was over, with offsets from `first` on, as EVENTS rows."""
    size = len(values)
    midnight = datetime(after.year, after.month, after.day, tzinfo=UTC) + timedelta(days=1)
    arrived = pa.scalar(midnight, RAW_EVENTS.arrow.field("kafka_time").type)
    raw = pa.table(
        {
            "topic": pa.repeat("events", size),
            "partition": pa.repeat(pa.scalar(0, pa.int32()), size),
            "offset": pa.array(range(first, first + size), pa.int64()),
            "batch": pa.repeat(pa.scalar(1, pa.int64()), size),
            "kafka_time": pa.repeat(arrived, size),
            "kafka_timestamp": pa.nulls(size, pa.int64()),
            "key": pa.nulls(size, pa.binary()),
            "value": pa.array(values, pa.binary()),
        }
    )
    batches = parse_batches(iter(raw.to_batches(max_chunksize=16_384)), ValidationRules.of(load_settings()))
    return pa.Table.from_batches(batches, PARSED).select(EVENTS.column_names)


def main() -> None:
    """Write the day, or the late event, into a lake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lake")
    parser.add_argument("what", help="how many events, or `late`")
    parser.add_argument("--logins", action="store_true", help="of visitors who log in, too")
    arguments = parser.parse_args()
    lake = Lake(arguments.lake, DuckDBEngine(load_settings()))
    if arguments.what == "late":
        add_late_event(lake)
    else:
        write_day(lake, int(arguments.what), LOGINS if arguments.logins else Habits())


if __name__ == "__main__":
    main()
