"""Counts and sums by day, and the comparison of those of two tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import dagster as dg

from clickstream_assets.analytics.measures import MONEY_SUM
from clickstream_assets.analytics.sessions import spilled
from clickstream_assets.catalogue import SESSIONS, Table
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.checks import SAMPLES
from clickstream_assets.defs.partitions import Days
from clickstream_assets.defs.scope import rows_of
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.reach import SESSION_DAYS
from clickstream_assets.stores.lake import Lake

Sums: TypeAlias = dict[Any, dict[str, Any]]
"""Figures by their names, by day."""
SESSION_REACH = timedelta(days=SESSION_DAYS)


def counts_by(lake: Lake, rows: DataFrame, column: str) -> dict[Any, int]:
    """Return how many rows have each value of a column, in the values' order."""
    F, _ = functions_of(rows)
    counted = rows.groupBy(column).agg(F.count(F.lit(1)).cast("long").alias("rows")).orderBy(column)
    return {row[column]: row["rows"] for row in lake.engine.to_arrow(counted).to_pylist()}


def counts_by_day(lake: Lake, table: Table, days: Days, column: str, where: str | None = None) -> Sums:
    """Return how many rows have each value of a column, per day; `where` is an SQL condition."""
    day = str(table.day)
    rows = rows_of(lake, table, days)
    F, _ = functions_of(rows)
    if where:
        rows = rows.where(F.expr(where))
    counted = rows.groupBy(day, column).agg(F.count(F.lit(1)).cast("long").alias("rows")).orderBy(day, column)
    found: Sums = {}
    for row in lake.engine.to_arrow(counted).to_pylist():
        found.setdefault(row[day], {})[row[column]] = row["rows"]
    return found


def sums(
    lake: Lake, table: Table, columns: Mapping[str, str], days: Days | None, where: str | None = None
) -> Sums:
    """Return sums of columns per day, by the names that they are to have; `where` is an SQL condition."""
    day = str(table.day)
    rows = rows_of(lake, table, days)
    F, _ = functions_of(rows)
    if where:
        rows = rows.where(F.expr(where))
    types = {c.name: MONEY_SUM if str(c.type).startswith("decimal") else "long" for c in table.columns}
    summed = rows.groupBy(day).agg(
        *(F.sum(column).cast(types[column]).alias(f"sum_{name}") for name, column in columns.items())
    )
    return {
        row[day]: {name: row[f"sum_{name}"] for name in columns}
        for row in lake.engine.to_arrow(summed).to_pylist()
    }


def sums_of_sessions(
    lake: Lake, events: DataFrame, days: Days | None, clock: ShopClock, where: str | None = None
) -> Sums:
    """Return `events` and `revenue` per day, as the sessions have them.

    What a session has after the midnight of its day is known from the events that lie within it.

    Args:
        lake: where the sessions are.
        events: EVENTS rows, at least of the days and the two after.
        days: the days; None for all that sessions reach.
        clock: says when days begin.
        where: an SQL condition on sessions.
    """
    there = lake.snapshot(SESSIONS).rows_by("session_date")
    if not there:
        return {}
    days = days or Days(((min(there), max(there) + SESSION_REACH),))
    begun = Days.of(day - timedelta(days=before) for day in days for before in range(SESSION_DAYS + 1))
    columns = {"events": "total_events", "revenue": "revenue"}
    found = sums(lake, SESSIONS, columns, begun, where)
    sessions = rows_of(lake, SESSIONS, begun)
    F, _ = functions_of(sessions)
    moved = spilled(
        events, sessions.where(F.expr(where)) if where else sessions, begun.first, begun.last, clock
    )
    for row in lake.engine.to_arrow(moved).to_pylist():
        into = found.setdefault(row["event_date"], {"events": 0, "revenue": Decimal(0)})
        for name in columns:
            found[row["session_date"]][name] -= row[name]
            into[name] += row[name]
    return {day: figures for day, figures in found.items() if day in days}


def compared(expected: Sums, actual: Sums, **more: Any) -> dg.AssetCheckResult:
    """Compare figures by day; a day that one of the two has not counts as zeros there."""
    names = sorted({name for figures in (*expected.values(), *actual.values()) for name in figures})

    def total(sums: Sums, day: Any, name: str) -> Any:
        return sums.get(day, {}).get(name, 0)

    wrong = [
        f"{day} {name}: {total(expected, day, name)} expected, {total(actual, day, name)} found"
        for day in sorted({*expected, *actual})
        for name in names
        if total(expected, day, name) != total(actual, day, name)
    ]
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={
            "expected": {name: float(sum(total(expected, day, name) for day in expected)) for name in names},
            "actual": {name: float(sum(total(actual, day, name) for day in actual)) for name in names},
            "sample_days": wrong[:SAMPLES],
        },
        **more,
    )
