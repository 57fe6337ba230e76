"""Keeps the lake's reports right: makes those of asked days, and those that compare with these days, anew."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import CART_DAYS, CUSTOMER_SEGMENT_DAYS, DAILY_REPORT, EVENTS, Table
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.engine import DataFrame
from clickstream_assets.reports.build import input_hashes, make_reports
from clickstream_assets.reports.document import COMPARISONS, Report, without_time
from clickstream_assets.stores.lake import Lake

# A late purchase concerns the reports of all days after it; users and products of so many days are read at once.
DAYS_AT_ONCE = 31


def update_reports(
    lake: Lake, days: Iterable[date], now: datetime, clock: ShopClock = UTC_CLOCK
) -> list[date]:
    """Make the reports of days, and again those of other days that have become wrong.

    These are the later days that compare with them, and those whose carts or customers are no longer what the report
    was made from: a late purchase changes the customer segments of every day after it. A report whose content stays
    the same stays as it is, with the time at which it was made. A day without events gets a report too, which says
    so; a day before the first event of all gets none.

    Args:
        lake: where the tables are; `daily_report` is replaced in one commit.
        days: the days.
        now: the current time, in UTC.
        clock: says when a day is over.

    Returns:
        The days whose reports are new or changed, in order.
    """
    kept = _kept(lake)
    with_events = lake.snapshot(EVENTS).rows_by("event_date").keys()
    asked = {day for day in days if day >= min(with_events, default=date.max)}
    compared = {day + longer for day in asked for longer in COMPARISONS.values()} & set(kept)
    is_eventless = _eventless_test(with_events)
    hashes = _hashes(lake, asked | set(kept), is_eventless)
    remade = sorted(asked | compared | {day for day, its in kept.items() if its != hashes[day]})
    if not remade:
        return []
    before = {
        row["report_date"]: row for row in _rows(lake, _read(lake, DAILY_REPORT, remade[0], remade[-1]))
    }
    after = dict(before)
    changed = []
    for chunk in _chunks(remade, with_events):
        reports = make_reports(lake.engine, partial(_read, lake), chunk, is_eventless, now, clock)
        for day, report in reports.items():
            there = before.get(day)
            if there and without_time(json.loads(there["report"])) == without_time(report):
                after[day] = {**there, "made_from": hashes[day]}
                continue
            after[day] = {
                "report_date": day,
                "generated_at": now,
                "made_from": hashes[day],
                "report": json.dumps(report, ensure_ascii=False),
            }
            changed.append(day)
    if after != before:
        table = pa.Table.from_pylist([after[day] for day in sorted(after)], schema=DAILY_REPORT.arrow)
        rows = lake.engine.from_arrow(table)
        lake.replace(DAILY_REPORT, rows, days=(remade[0], remade[-1]))
        lake.engine.release(rows)
    return changed


def days_of_outdated_reports(lake: Lake) -> list[date]:
    """Return the days, in order, whose reports are made from carts or customers that have changed since."""
    kept = _kept(lake)
    with_events = lake.snapshot(EVENTS).rows_by("event_date").keys()
    hashes = _hashes(lake, kept.keys(), _eventless_test(with_events))
    return sorted(day for day, its in kept.items() if its != hashes[day])


def report_rows(lake: Lake, first: date, last: date) -> dict[date, Report]:
    """Read the reports of the days from `first` to `last`, where there are any."""
    rows = _rows(lake, _read(lake, DAILY_REPORT, first, last))
    return {row["report_date"]: json.loads(row["report"]) for row in rows}


def _read(lake: Lake, table: Table, first: date, last: date) -> DataFrame:
    return between(lake.read(table), "report_date", first, last)


def _rows(lake: Lake, rows: DataFrame) -> list[dict[str, Any]]:
    return lake.engine.to_arrow(rows).to_pylist()


def _kept(lake: Lake) -> dict[date, str | None]:
    """Return the hash of what each existing report was made from, by day."""
    rows = _rows(lake, lake.read(DAILY_REPORT, columns=("report_date", "made_from")))
    return {row["report_date"]: row["made_from"] for row in rows}


def _chunks(days: Sequence[date], with_events: Collection[date]) -> Iterator[Sequence[date]]:
    """Split days, which are in order, into chunks that lie within DAYS_AT_ONCE days with events."""
    there = sorted(with_events)
    start = 0
    for number, day in enumerate(days):
        if bisect_right(there, day) - bisect_left(there, days[start]) > DAYS_AT_ONCE:
            yield days[start:number]
            start = number
    yield days[start:]


def _eventless_test(with_events: Collection[date]) -> Callable[[date], bool]:
    """Return a function that says whether a day, which is not before the first event of all, has no events."""
    first = min(with_events, default=date.max)
    return lambda day: day > first and day not in with_events


def _hashes(lake: Lake, days: Collection[date], is_eventless: Callable[[date], bool]) -> dict[date, str]:
    customers, carts = (_rows(lake, lake.read(table)) for table in (CUSTOMER_SEGMENT_DAYS, CART_DAYS))
    return input_hashes(days, customers, carts, is_eventless)
