"""The days that daily assets share, and how a run works through many of them."""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache

import dagster as dg

from clickstream_assets.catalogue import EVENTS, Table
from clickstream_assets.defs.dagster_private import ListedDays
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake

# What a day's tables need in memory grows with its events; a run over many days takes them in portions.
ROWS_PER_PORTION = 5_000_000


@cache
def daily() -> dg.DailyPartitionsDefinition:
    """UTC days by event time. Today is one of them: what is incomplete now is replaced when more arrives."""
    return ListedDays(start_date=load_settings().events_start_date.isoformat(), timezone="UTC", end_offset=1)


def days_of(context: dg.AssetExecutionContext) -> tuple[date, date]:
    """Return the first and last day of the run's partition, or range of partitions."""
    window = context.partition_time_window
    return window.start.date(), window.end.date() - timedelta(days=1)


def row_counts(lake: Lake, table: Table, first: date, last: date) -> dict[str, int]:
    """Return metadata: a table's rows of some days, and all of them."""
    snapshot = lake.snapshot(table)
    (column,) = table.partition_by
    per_day = snapshot.rows_by(column)
    return {
        "dagster/partition_row_count": sum(n for day, n in per_day.items() if first <= day <= last),
        "dagster/row_count": snapshot.rows,
    }


def portions(lake: Lake, first: date, last: date, table: Table = EVENTS) -> Iterator[tuple[date, date]]:
    """Split days into portions of at most ROWS_PER_PORTION rows of a table, or single days, in order."""
    (column,) = table.partition_by
    rows = lake.snapshot(table).rows_by(column)
    start, held = first, 0
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        count = rows.get(day, 0)
        if day > start and held + count > ROWS_PER_PORTION:
            yield start, day - timedelta(days=1)
            start, held = day, 0
        held += count
    yield start, last
