"""Events without those of bots: the input of the tables of a day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from functools import reduce
from operator import or_

from clickstream_assets.analytics.sessions import SESSION_DAYS, without_bots
from clickstream_assets.engine import DataFrame, as_view, functions_of

EVENT_COLUMNS = (
    "event_date",
    "event_time",
    "user_id",
    "event_type",
    "product_id",
    "product_category",
    "price",
    "quantity",
    "order_id",
    "is_bot",
)
"""Columns of EVENTS that the tables of a day are made from; fewer are faster to read."""
SESSION_COLUMNS = ("session_date", "user_id", "start_time", "end_time", "total_events", "purchases", "is_bot")
"""Columns of SESSIONS that they are made from."""


def between(rows: DataFrame, column: str, first: date, last: date) -> DataFrame:
    """Return the rows whose date in `column` is from `first` to `last`, both included."""
    F, _ = functions_of(rows)
    return rows.where((F.col(column) >= F.lit(first)) & (F.col(column) <= F.lit(last)))


def within(rows: DataFrame, column: str, ranges: Iterable[tuple[date, date]]) -> DataFrame:
    """Return the rows whose date in `column` is in one of the ranges, each from a first to a last day, included."""
    F, _ = functions_of(rows)
    conditions = [(F.col(column) >= F.lit(first)) & (F.col(column) <= F.lit(last)) for first, last in ranges]
    return rows.where(reduce(or_, conditions, F.lit(False)))


def persons_events(events: DataFrame, sessions: DataFrame, first: date, last: date) -> DataFrame:
    """Return the events of the days from `first` to `last` without those of bots.

    Args:
        events: EVENTS rows, of at least these days.
        sessions: SESSIONS rows, of at least these days and the SESSION_DAYS before.
        first: first day.
        last: last day.
    """
    # A bot's session can have begun on an earlier day than its events.
    around = between(sessions, "session_date", first - timedelta(days=SESSION_DAYS), last)
    return as_view(without_bots(between(events, "event_date", first, last), around))
