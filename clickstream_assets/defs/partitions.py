"""The days that daily assets share: which they are, how a run works through many, and which others a table reads."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Self, TypeAlias

import dagster as dg

from clickstream_assets.catalogue import EVENTS, Table
from clickstream_assets.defs.dagster_private import (
    FIRST_PARTITION_TAG,
    LAST_PARTITION_TAG,
    PARTITION_TAG,
    ListedDays,
)
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.reach import FUNNEL_DAYS_AFTER, REPORT_COMPARISON_DAYS, SESSION_DAYS
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.start_date import start_date

MORE_DAYS_TAG = "clickstream/more_days"
"""Tag of a run's days beside its partitions, which Dagster lets be no more than one range: days and `first/last`,
separated by commas.
"""
REQUEST_TAG = "clickstream/refresh_request"
"""Tag of a run that the sensor `dirty_days` asked for, because events or settings have changed: which request it is."""
# What a day's tables need in memory grows with its events; a run over many days takes them in chunks.
ROWS_PER_CHUNK = 5_000_000
# To compute so many rows again takes less time than another chunk.
ROWS_PER_GAP = 100_000

Range: TypeAlias = tuple[date, date]
"""A first and a last day, both included."""


@cache
def daily() -> dg.DailyPartitionsDefinition:
    """The shop's days by event time. Today is one of them: what is incomplete now is replaced when more arrives."""
    settings = load_settings()
    first = start_date(settings)
    return ListedDays(start_date=first.isoformat(), timezone=settings.shop_time_zone, end_offset=1)


def _around(asset: str, before: int, after: int = 0) -> dg.AssetDep:
    """Depend on an asset's partitions from some days before a day to some days after it."""
    mapping = dg.TimeWindowPartitionMapping(start_offset=-before, end_offset=after)
    return dg.AssetDep(asset, partition_mapping=mapping)


SESSIONS_BEFORE = _around("sessions", SESSION_DAYS)
"""The sessions that a day's events can be in, without which a bot's would not be left out."""
SHOPPERS_AFTER = _around("shopper_events", 0, FUNNEL_DAYS_AFTER)
"""The events that a day's funnel goes on in."""
TOUCHES_BEFORE = _around("campaign_touches", load_settings().attribution_days)
"""The touches of campaigns that a day's orders can be owed to."""
SUMMARIES_BEFORE = _around("daily_summary", REPORT_COMPARISON_DAYS)
"""The days that a day's report compares it with."""


@dataclass(frozen=True)
class Days:
    """Days as ranges: in order, and none that touches the next."""

    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, days: Iterable[date]) -> Self:
        """Put days together to ranges."""
        ranges: list[Range] = []
        for day in sorted(set(days)):
            if ranges and day - ranges[-1][1] == timedelta(days=1):
                ranges[-1] = (ranges[-1][0], day)
            else:
                ranges.append((day, day))
        return cls(tuple(ranges))

    @classmethod
    def of_run(cls, tags: Mapping[str, str]) -> Self:
        """Read the days of a run from its tags: those of its partitions, and of MORE_DAYS_TAG; none without any."""
        day = tags.get(PARTITION_TAG)
        first, last = tags.get(FIRST_PARTITION_TAG, day), tags.get(LAST_PARTITION_TAG, day)
        texts = [f"{first}/{last}"] if first else []
        texts += filter(None, tags.get(MORE_DAYS_TAG, "").split(","))
        bounds = [[date.fromisoformat(bound) for bound in text.split("/")] for text in texts]
        return cls.of(day for first_day, *last_day in bounds for day in _each(first_day, *last_day))

    @property
    def first(self) -> date:
        """The first of all."""
        return self.ranges[0][0]

    @property
    def last(self) -> date:
        """The last of all."""
        return self.ranges[-1][1]

    def __iter__(self) -> Iterator[date]:
        """Each day, in order."""
        for first, last in self.ranges:
            yield from _each(first, last)

    def __contains__(self, day: date) -> bool:
        """Return whether a day is one of them."""
        return any(first <= day <= last for first, last in self.ranges)

    def __str__(self) -> str:
        """Write them as MORE_DAYS_TAG has them."""
        return ",".join(str(first) if first == last else f"{first}/{last}" for first, last in self.ranges)


def _each(first: date, last: date | None = None) -> Iterator[date]:
    last = last or first
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))


def days_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Days:
    """Return the days of the run: of its partition, or range of partitions, and of MORE_DAYS_TAG."""
    return Days.of_run(context.run.tags)


def chunks(lake: Lake, days: Days, table: Table = EVENTS, most: int | None = None) -> Iterator[Range]:
    """Split days into chunks of at most so many rows of a table (default: ROWS_PER_CHUNK), or single days, in order.

    A chunk goes on over other days where these have at most ROWS_PER_GAP rows.
    """
    most = ROWS_PER_CHUNK if most is None else most
    rows = lake.snapshot(table).rows_by(str(table.day))
    there = sorted(rows)
    chunk: Range | None = None
    held = 0
    for day in days:
        count = rows.get(day, 0)
        if chunk:
            first, last = chunk
            skipped = sum(rows[d] for d in there[bisect_right(there, last) : bisect_left(there, day)])
            if skipped <= ROWS_PER_GAP and held + skipped + count <= most:
                chunk, held = (first, day), held + skipped + count
                continue
            yield chunk
        chunk, held = (day, day), count
    if chunk:
        yield chunk


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
    for start, end in chunks(lake, Days.of([*days_of(context), *more])):
        lake.replace(table, compute(start, end), days=(start, end))
