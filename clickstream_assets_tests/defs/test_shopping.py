"""The data's own clock, by which carts are abandoned and customers described."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.catalogue.units import MICROSECOND
from clickstream_assets.defs.shopping import newest_time
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import RULES, at, event, event_table

LATE = "2024-05-01 23:30"


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
