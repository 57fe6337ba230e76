"""The days of a run, and how it works through many of them."""

from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import CUSTOMER_SEGMENTS, EVENTS
from clickstream_assets.defs import partitions
from clickstream_assets.defs.partitions import (
    SESSIONS_BEFORE,
    SHOPPERS_AFTER,
    SUMMARIES_BEFORE,
    TOUCHES_BEFORE,
    Days,
    chunks,
    daily,
    days_of,
)
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.reports.document import COMPARISONS
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at, event_table
from clickstream_assets_tests.dagster_private import freeze_time

MAY = date(2024, 5, 1)


def lake_with(folder: Path, engine: DuckDBEngine, events_per_day: list[int]) -> Lake:
    """A lake with so many events on the days from 1 May 2024."""
    lake = Lake(str(folder), engine)
    events = [
        {"user_id": "u1", "event_time": at("2024-05-01 10:00") + timedelta(days=day, seconds=number)}
        for day, count in enumerate(events_per_day)
        for number in range(count)
    ]
    lake.append_batch(EVENTS, engine.from_arrow(event_table(events)), 1)
    return lake


@pytest.mark.parametrize(
    ("events_per_day", "expected"),
    [
        ([1, 1, 1], [(0, 2)]),
        ([3, 2, 1], [(0, 1), (2, 2)]),
        ([5, 5, 5], [(0, 0), (1, 1), (2, 2)]),
        # A single day is never split, however large.
        ([9, 1, 4], [(0, 0), (1, 2)]),
        ([1, 9, 1], [(0, 0), (1, 1), (2, 2)]),
        # Days without events cost nothing, and are worked through nevertheless: they may have had some.
        ([0, 0, 0], [(0, 2)]),
        ([5, 0, 0, 1], [(0, 2), (3, 3)]),
        ([7], [(0, 0)]),
    ],
)
def test_chunks_are_as_large_as_memory_allows(
    tmp_path: Path,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    events_per_day: list[int],
    expected: list[tuple[int, int]],
):
    monkeypatch.setattr(partitions, "ROWS_PER_CHUNK", 5)
    lake = lake_with(tmp_path, duckdb_engine, events_per_day)
    last = MAY + timedelta(days=len(events_per_day) - 1)
    assert list(chunks(lake, Days(((MAY, last),)))) == [
        (MAY + timedelta(days=start), MAY + timedelta(days=end)) for start, end in expected
    ]


def test_a_table_of_its_own_size_has_chunks_of_its_own(
    tmp_path: Path, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(partitions, "ROWS_PER_CHUNK", 5)
    lake = lake_with(tmp_path, duckdb_engine, [1, 1])
    # Few events, and many customers as of each day.
    customers = [
        {
            **dict.fromkeys(CUSTOMER_SEGMENTS.column_names),
            "report_date": MAY + timedelta(days=number // 4),
            "user_id": f"u{number}",
            "frequency": 0,
            "monetary": 0,
            "refunds": 0,
            "net_monetary": 0,
            "abandoned_carts": 1,
            "abandoned_value": 0,
        }
        for number in range(8)
    ]
    rows = pa.Table.from_pylist(customers, schema=CUSTOMER_SEGMENTS.arrow)
    lake.replace(CUSTOMER_SEGMENTS, duckdb_engine.from_arrow(rows))
    second = MAY + timedelta(days=1)
    both = Days.of([MAY, second])
    assert list(chunks(lake, both)) == [(MAY, second)]
    assert list(chunks(lake, both, CUSTOMER_SEGMENTS)) == [(MAY, MAY), (second, second)]


def test_chunks_of_a_lake_without_events_are_all_days_at_once(tmp_path: Path, duckdb_engine: DuckDBEngine):
    lake = Lake(str(tmp_path), duckdb_engine)
    year = Days(((MAY, MAY + timedelta(days=364)),))
    assert list(chunks(lake, year)) == list(year.ranges)


def test_a_partition_is_one_day(instance: dg.DagsterInstance):
    seen = []

    @dg.asset(partitions_def=daily())
    def days(context: dg.AssetExecutionContext) -> None:
        seen.append(days_of(context))

    dg.materialize([days], instance=instance, partition_key="2024-05-01")
    assert [each.ranges for each in seen] == [((MAY, MAY),)]


@pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")
def test_a_range_of_partitions_is_its_first_and_last_day(instance: dg.DagsterInstance):
    seen = []

    @dg.asset(partitions_def=daily(), backfill_policy=dg.BackfillPolicy.single_run())
    def days(context: dg.AssetExecutionContext) -> None:
        seen.append(days_of(context))

    dg.materialize(
        [days],
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": "2024-05-01",
            "dagster/asset_partition_range_end": "2024-05-04",
        },
    )
    assert [each.ranges for each in seen] == [((MAY, date(2024, 5, 4)),)]


def test_a_run_can_be_of_more_days_than_its_partitions():
    tags = {
        "dagster/asset_partition_range_start": "2024-05-03",
        "dagster/asset_partition_range_end": "2024-05-04",
    }
    days = Days.of_run({**tags, "clickstream/more_days": "2024-03-30/2024-04-01,2024-05-05,2024-06-01"})
    assert str(days) == "2024-03-30/2024-04-01,2024-05-03/2024-05-05,2024-06-01"
    assert [day.day for day in days] == [30, 31, 1, 3, 4, 5, 1]
    assert (days.first, days.last) == (date(2024, 3, 30), date(2024, 6, 1))
    assert [date(2024, 4, 1) in days, date(2024, 4, 2) in days] == [True, False]
    assert Days.of_run({}).ranges == ()


@pytest.mark.parametrize(
    ("events_per_day", "days", "expected"),
    [
        # Nothing lies between them.
        ([1, 0, 0, 1], [0, 3], [(0, 3)]),
        # Little does: computing it again is cheaper than another chunk.
        ([1, 2, 0, 1], [0, 3], [(0, 3)]),
        ([1, 3, 0, 1], [0, 3], [(0, 0), (3, 3)]),
        # What is between counts too.
        ([2, 2, 2, 0], [0, 2, 3], [(0, 0), (2, 3)]),
        ([0, 9, 0, 0], [0, 2, 3], [(0, 0), (2, 3)]),
    ],
)
def test_a_chunk_goes_on_over_days_between_where_these_have_few_events(
    tmp_path: Path,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    events_per_day: list[int],
    days: list[int],
    expected: list[tuple[int, int]],
):
    monkeypatch.setattr(partitions, "ROWS_PER_CHUNK", 5)
    monkeypatch.setattr(partitions, "ROWS_PER_GAP", 2)
    lake = lake_with(tmp_path, duckdb_engine, events_per_day)
    assert list(chunks(lake, Days.of(MAY + timedelta(days=day) for day in days))) == [
        (MAY + timedelta(days=start), MAY + timedelta(days=end)) for start, end in expected
    ]


def test_today_can_be_materialized_and_tomorrow_cannot():
    with freeze_time(datetime.fromisoformat("2024-05-01T23:59:59+00:00")):
        assert daily().get_last_partition_key() == "2024-05-01"
        assert not daily().has_partition_key("2024-05-02")
    with freeze_time(datetime.fromisoformat("2024-05-02T00:00:00+00:00")):
        assert daily().get_last_partition_key() == "2024-05-02"


def test_a_table_reads_as_many_days_around_as_an_event_reaches():
    offsets = []
    for dep in (SESSIONS_BEFORE, SHOPPERS_AFTER, TOUCHES_BEFORE, SUMMARIES_BEFORE):
        mapping = dep.partition_mapping
        assert isinstance(mapping, dg.TimeWindowPartitionMapping)
        offsets.append((mapping.start_offset, mapping.end_offset))
    assert offsets == [(-2, 0), (0, 1), (-30, 0), (-max(COMPARISONS.values()).days, 0)]
