"""The days that daily assets share: which they are, how a run works through many, and which others a table reads."""

from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from functools import cache

import dagster as dg

from clickstream_assets.catalogue import EVENTS, Table
from clickstream_assets.defs.dagster_private import ListedDays
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.reach import FUNNEL_DAYS_AFTER, REPORT_COMPARISON_DAYS, SESSION_DAYS
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake

# What a day's tables need in memory grows with its events; a run over many days takes them in chunks.
ROWS_PER_CHUNK = 5_000_000


@cache
def daily() -> dg.DailyPartitionsDefinition:
    """UTC days by event time. Today is one of them: what is incomplete now is replaced when more arrives."""
    return ListedDays(start_date=load_settings().events_start_date.isoformat(), timezone="UTC", end_offset=1)


def _around(asset: str, before: int, after: int = 0) -> dg.AssetDep:
    """Depend on an asset's partitions from some days before a day to some days after it."""
    mapping = dg.TimeWindowPartitionMapping(start_offset=-before, end_offset=after)
    return dg.AssetDep(asset, partition_mapping=mapping)


SESSIONS_BEFORE = _around("sessions", SESSION_DAYS)
"""The sessions that a day's events can be in, without which a bot's would not be left out."""
SESSIONS_AROUND = _around("sessions", SESSION_DAYS, FUNNEL_DAYS_AFTER)
"""Those, and the sessions that a day's funnel goes on in."""
SUMMARIES_BEFORE = _around("daily_summary", REPORT_COMPARISON_DAYS)
"""The days that a day's report compares it with."""


def days_of(context: dg.AssetExecutionContext) -> tuple[date, date]:
    """Return the first and last day of the run's partition, or range of partitions."""
    window = context.partition_time_window
    return window.start.date(), window.end.date() - timedelta(days=1)


def chunks(lake: Lake, first: date, last: date, table: Table = EVENTS) -> Iterator[tuple[date, date]]:
    """Split days into chunks of at most ROWS_PER_CHUNK rows of a table, or single days, in order."""
    rows = lake.snapshot(table).rows_by(str(table.day))
    start, held = first, 0
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        count = rows.get(day, 0)
        if day > start and held + count > ROWS_PER_CHUNK:
            yield start, day - timedelta(days=1)
            start, held = day, 0
        held += count
    yield start, last


def replace_days(
    context: dg.AssetExecutionContext,
    lake: Lake,
    table: Table,
    compute: Callable[[date, date], DataFrame],
    more: Iterable[date] = (),
) -> None:
    """Replace the rows of the run's days, and of `more`, in order, by those that `compute` returns.

    Each chunk of days is one commit.
    """
    ranges = [days_of(context)]
    for day in more:
        first, last = ranges[-1]
        if len(ranges) > 1 and day - last == timedelta(days=1):
            ranges[-1] = (first, day)
        elif not ranges[0][0] <= day <= ranges[0][1]:
            ranges.append((day, day))
    for first, last in ranges:
        for start, end in chunks(lake, first, last):
            lake.replace(table, compute(start, end), days=(start, end))
