"""The same functions on both engines, and sessions as SQL by hand in DuckDB: seconds and rows.

    python -m benchmarks.engines --events 2700000

Every function runs three times per engine; the first and the median are printed. Spark is local, warm after its
first run; the SQL by hand is written for the purpose, on the same files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from benchmarks.measure import say, temporary_home
from clickstream_assets.analytics.carts import CartRules, abandonments
from clickstream_assets.analytics.customers import customer_segments, orders, refunds
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.sessions import sessions
from clickstream_assets.catalogue import CART_STEPS, EVENTS, RAW_EVENTS
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine, SparkEngine, spark_session
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.recommender.interactions import interaction_days, interactions
from clickstream_assets.recommender.popularity import rank_products
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.simulator.run import SimulationOptions, plan_traffic
from clickstream_assets.simulator.stream import RecordStream
from clickstream_assets.stores.lake import Lake

RUNS = 3
GAP = timedelta(minutes=30)

SESSIONS_BY_HAND = """
    WITH marked AS (
        SELECT user_id, event_time, event_type, product_id,
            CASE WHEN event_time - lag(event_time) OVER w > INTERVAL 30 MINUTE THEN 1 ELSE 0 END AS starts
        FROM events WINDOW w AS (PARTITION BY user_id ORDER BY event_time, event_id)
    ), numbered AS (
        SELECT *, sum(starts) OVER (PARTITION BY user_id ORDER BY event_time ROWS UNBOUNDED PRECEDING) AS session
        FROM marked
    )
    SELECT user_id, session, min(event_time), max(event_time), count(*), count(DISTINCT product_id),
        count(*) FILTER (event_type = 'view'), count(*) FILTER (event_type = 'purchase')
    FROM numbered GROUP BY user_id, session
"""


def write_events(lake: Lake, settings: Settings, count: int) -> tuple[date, date]:
    """Simulate events into the lake; return the first and last day."""
    traffic = plan_traffic(
        settings, SimulationOptions(events=count, seed=1, users=100_000, products=5_000, days=30)
    )
    values = [record.value for record in RecordStream(traffic)]
    now = pa.scalar(int(time.time() * 1e6), RAW_EVENTS.arrow.field("kafka_time").type)
    raw = pa.table(
        {
            "topic": pa.repeat("events", len(values)),
            "partition": pa.repeat(pa.scalar(0, pa.int32()), len(values)),
            "offset": pa.array(range(len(values)), pa.int64()),
            "batch": pa.repeat(pa.scalar(1, pa.int64()), len(values)),
            "kafka_time": pa.repeat(now, len(values)),
            "kafka_timestamp": pa.nulls(len(values), pa.int64()),
            "key": pa.nulls(len(values), pa.binary()),
            "value": pa.array(values, pa.binary()),
        }
    )
    batches = parse_batches(iter(raw.to_batches(max_chunksize=16_384)), ValidationRules.of(settings))
    events = pa.Table.from_batches(batches, PARSED).select(EVENTS.column_names)
    lake.append_batch(EVENTS, lake.engine.from_arrow(events), 1)
    days = sorted(set(events["event_date"].to_pylist()))
    return days[0], days[-1]


def timed(function: Callable[[], int]) -> dict[str, Any]:
    """Run a function a few times."""
    seconds = []
    rows = 0
    for _ in range(RUNS):
        start = time.perf_counter()
        rows = function()
        seconds.append(time.perf_counter() - start)
    return {"rows": rows, "first": round(seconds[0], 2), "median": round(statistics.median(seconds), 2)}


def on_engine(engine: Engine, lake: Lake, first: date, last: date) -> dict[str, Any]:
    """Time the project's own functions; a result is counted where it was computed, and not collected."""

    def rows(df: DataFrame) -> int:
        kept = engine.persist(df)
        count = kept.count()
        engine.release(kept)
        return count

    def events() -> DataFrame:
        return lake.read(EVENTS)

    rules = CartRules.of(load_settings(), datetime.now(UTC))
    no_carts = abandonments(engine.from_arrow(CART_STEPS.arrow.empty_table()), rules)
    last_day = engine.from_arrow(pa.table({"report_date": [last]}))

    return {
        "sessions": timed(lambda: rows(sessions(events(), first, last, GAP, 60))),
        "user_segments": timed(lambda: rows(user_segments(events()))),
        "rfm": timed(
            lambda: rows(customer_segments(orders(events()), refunds(events()), no_carts, last_day, 365))
        ),
        "interactions": timed(lambda: rows(interactions(interaction_days(events())))),
        "product_totals": timed(lambda: rows(rank_products(interactions(interaction_days(events())), 30))),
    }


def main() -> None:
    """Measure DuckDB, SQL by hand and Spark in one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_700_000)
    arguments = parser.parse_args()
    settings = Settings(
        **load_settings().model_dump()
        | {"duckdb_memory_limit": "4GB", "spark_driver_memory": "4g", "duckdb_threads": 2}
    )
    with temporary_home() as folder:
        duckdb_engine = DuckDBEngine(settings)
        lake = Lake(str(folder), duckdb_engine)
        first, last = write_events(lake, settings, arguments.events)
        say("events are written")
        result: dict[str, Any] = {"events": arguments.events}
        result["duckdb"] = on_engine(duckdb_engine, lake, first, last)
        say("duckdb is done")
        files = [str(path) for path in (folder / EVENTS.name).rglob("*.parquet")]
        connection = duckdb.connect(config={"threads": 2})
        connection.execute("SET TimeZone = 'UTC'")
        connection.read_parquet(files, hive_partitioning=True).create_view("events")
        result["by_hand"] = {
            "sessions": timed(lambda: connection.sql(SESSIONS_BY_HAND).to_arrow_table().num_rows)
        }
        spark = SparkEngine(lambda: spark_session(settings))
        result["spark"] = on_engine(spark, Lake(str(folder), spark), first, last)
        spark.session.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
