"""What is known of each day of shoppers' events, and the data's own clock, by which carts are abandoned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from clickstream_assets.catalogue import (
    EVENTS,
    SHOPPER_DAYS,
    SHOPPER_EVENTS,
    SHOPPER_ORDERS,
    SHOPPER_REFUNDS,
    Table,
)
from clickstream_assets.catalogue.units import MICROSECOND
from clickstream_assets.defs.shopper_days import newest_time, update_shopper_days
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import RULES, at, day, event, event_table, rows_of

LATE = "2024-05-01 23:30"


def write(lake: Lake, *events: dict[str, Any]) -> None:
    """Replace the days of events by these."""
    table = event_table(events)
    columns = dict.fromkeys(SHOPPER_EVENTS.column_names)
    for name in columns:
        columns[name] = table[name] if name in table.column_names else table[name.removeprefix("sent_")]
    days = [row["event_time"].date() for row in events]
    rows = lake.engine.from_arrow(pa.table(columns))
    lake.replace(SHOPPER_EVENTS, rows, days=(min(days), max(days)))


def bought(time: str, event_id: str, price: str, **more: Any) -> dict[str, Any]:
    return event("purchase", time, price=Decimal(price), event_id=event_id, **more)


def hashed(*texts: str) -> str:
    """Return the fingerprint of events, each as `event id|person|price|currency`."""
    return f"{len(texts)}:{sum(int(md5(text.encode()).hexdigest()[:15], 16) for text in texts)}"


@pytest.mark.long_on_spark
def test_a_day_is_known_by_its_events_persons_and_prices(
    engine: Engine, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    # Only what is tried runs on the engine: Spark takes a second for each write.
    lake, tried = Lake(str(tmp_path), duckdb_engine), Lake(str(tmp_path), engine)
    first = [bought("2024-05-01 10:00", "a", "2.5", order_id="o", currency="EUR")]
    second = [
        bought("2024-05-02 10:00", "b", "1", quantity=3, order_id="o"),
        bought("2024-05-02 10:01", "c", "7"),
        event("refund", "2024-05-02 11:00", "v", event_id="d"),
        event("view", "2024-05-02 11:00"),
    ]
    write(lake, *first)
    write(lake, *second)
    write(lake, event("view", "2024-05-03 11:00"))
    found = {row["report_date"].day: (row["events"], row["fingerprint"]) for row in days_of(lake, tried)}
    assert found == {
        1: (1, hashed("a|u|2.5000|EUR")),
        2: (3, hashed("c|u|7.0000|", "b|u|1.0000|", "d|v||")),
        3: (0, ""),
    }
    minute = int(at("2024-05-02 10:01").timestamp()) // 60
    assert [tuple(row.values()) for row in table(lake, SHOPPER_ORDERS)] == [
        (day("2024-05-01"), "u", "order|o", Decimal("2.5")),
        (day("2024-05-02"), "u", f"minute|{minute}", Decimal(7)),
        (day("2024-05-02"), "u", "order|o", Decimal(3)),
    ]
    assert [tuple(row.values()) for row in table(lake, SHOPPER_REFUNDS)] == [(day("2024-05-02"), "v", 0)]

    # Another person's, in another order, and one later.
    write(lake, bought("2024-05-02 10:01", "c", "7", user="w"), *second[:1])
    assert [row["fingerprint"] for row in days_of(lake, tried)] == [
        found[1][1],
        hashed("b|u|1.0000|", "c|w|7.0000|"),
        "",
    ]
    assert {row["user_id"] for row in table(lake, SHOPPER_ORDERS)} == {"u", "w"}
    assert table(lake, SHOPPER_REFUNDS) == []


@pytest.mark.slow
def test_a_day_is_read_once_and_again_when_it_was_written(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    write(lake, bought("2024-05-01 10:00", "a", "1"))
    write(lake, bought("2024-05-02 10:00", "b", "1"))
    before = days_of(lake)
    versions = lake.version(SHOPPER_DAYS), lake.version(SHOPPER_ORDERS)
    assert days_of(lake) == before
    assert (lake.version(SHOPPER_DAYS), lake.version(SHOPPER_ORDERS)) == versions
    # The same once more: nothing that others go by has changed.
    write(lake, bought("2024-05-02 10:00", "b", "1"))
    again = days_of(lake)
    assert [row["files"] == other["files"] for row, other in zip(before, again, strict=True)] == [True, False]
    assert [row["fingerprint"] for row in again] == [row["fingerprint"] for row in before]
    # A run that was killed has replaced the day and said nothing of it.
    DeltaTable(lake.path(SHOPPER_EVENTS)).delete("event_date = '2024-05-01'")
    assert [row["report_date"] for row in days_of(lake)] == [day("2024-05-02")]
    assert [row["order_date"] for row in table(lake, SHOPPER_ORDERS)] == [day("2024-05-02")]
    # A table that is lost alone.
    shutil.rmtree(lake.path(SHOPPER_ORDERS))
    days_of(lake)
    assert [row["order_date"] for row in table(lake, SHOPPER_ORDERS)] == [day("2024-05-02")]


def days_of(lake: Lake, tried: Lake | None = None) -> list[dict[str, Any]]:
    """Update the days, by another engine where one is given; SHOPPER_DAYS rows."""
    rows = update_shopper_days(tried or lake).to_pylist()
    assert table(lake, SHOPPER_DAYS) == rows
    return rows


def table(lake: Lake, one: Table) -> list[dict[str, Any]]:
    return rows_of(lake.engine, lake.read(one), list(one.key))


@pytest.mark.parametrize(
    ("ahead", "newest"),
    [
        (timedelta(0), "2024-05-01 23:30"),
        # What a stream's watermark would go by too.
        (timedelta(seconds=30), "2024-05-01 23:30:30"),
        (timedelta(minutes=40), "2024-05-01 23:30"),
        (timedelta(days=3), "2024-05-01 23:30"),
    ],
)
def test_a_fast_clock_of_one_shopper_is_not_the_time(
    duckdb_engine: DuckDBEngine, tmp_path: Path, ahead: timedelta, newest: str
):
    lake = Lake(str(tmp_path), duckdb_engine)
    others = [event("view", f"2024-05-01 {hour:02}:00") | {"kafka_time": at(LATE)} for hour in range(20)]
    fast = event("view", LATE, "fast") | {"event_time": at(LATE) + ahead, "kafka_time": at(LATE)}
    lake.append_batch(EVENTS, duckdb_engine.from_arrow(event_table([*others, fast])), 1)
    rules = replace(RULES, max_clock_skew=timedelta(days=4) // MICROSECOND)
    assert newest_time(lake, lake.snapshot(EVENTS), rules) == at(newest)


def test_without_events_it_is_long_ago(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    assert newest_time(lake, lake.snapshot(EVENTS), RULES) == at("1970-01-01 00:00")
