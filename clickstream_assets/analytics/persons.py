"""Shoppers' events: those of persons, without bots'. All tables of business are made from them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from functools import reduce
from operator import or_

from clickstream_assets.analytics.money import SENT, as_sent
from clickstream_assets.analytics.sessions import SESSION_DAYS, without_bots
from clickstream_assets.catalogue import SHOPPER_EVENTS
from clickstream_assets.engine import DataFrame, as_view, functions_of


def between(rows: DataFrame, column: str, first: date, last: date) -> DataFrame:
    """Return the rows whose date in `column` is from `first` to `last`, both included."""
    F, _ = functions_of(rows)
    return rows.where((F.col(column) >= F.lit(first)) & (F.col(column) <= F.lit(last)))


def within(rows: DataFrame, column: str, ranges: Iterable[tuple[date, date]]) -> DataFrame:
    """Return the rows whose date in `column` is in one of the ranges, each from a first to a last day, included."""
    F, _ = functions_of(rows)
    conditions = [(F.col(column) >= F.lit(first)) & (F.col(column) <= F.lit(last)) for first, last in ranges]
    return rows.where(reduce(or_, conditions, F.lit(False)))


def shopper_events(events: DataFrame, sessions: DataFrame, first: date, last: date) -> DataFrame:
    """Return the events of the days from `first` to `last` without those of bots.

    Args:
        events: EVENTS rows with persons, of at least these days, and in the shop's money if it is not that of all.
        sessions: SESSIONS rows, of at least these days and the SESSION_DAYS before.
        first: first day.
        last: last day.

    Returns:
        SHOPPER_EVENTS rows.
    """
    # A bot's session can have begun on an earlier day than its events.
    around = between(sessions, "session_date", first - timedelta(days=SESSION_DAYS), last)
    priced = events if set(SENT) <= set(events.columns) else as_sent(events)
    of_persons = without_bots(between(priced, "event_date", first, last), around)
    return as_view(of_persons.select(*SHOPPER_EVENTS.column_names))
