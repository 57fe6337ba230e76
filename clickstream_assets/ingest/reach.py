"""How far an event reaches: which days' tables it can change, and so which days a table has to look at."""

from __future__ import annotations

from datetime import date, timedelta

from clickstream_assets.analytics.attribution import attributed_days
from clickstream_assets.analytics.sessions import days_reached
from clickstream_assets.catalogue import EVENTS
from clickstream_assets.engine import functions_of
from clickstream_assets.stores.lake import Lake

SESSION_DAYS = 2
"""A session's last event lies at most this many days after the day on which it began."""
FUNNEL_DAYS_AFTER = 1
"""A day's funnel goes on into this many days after it: the last steps can lie after midnight."""
REPORT_COMPARISON_DAYS = 7
"""A day's report compares it with days up to this many before it."""


def dirty_days(lake: Lake, after_batch: int, gap: timedelta, lookback: timedelta) -> list[date]:
    """Return the days that the events of the batches after `after_batch` make dirty, in order.

    Args:
        lake: has the events.
        after_batch: the last batch whose days were reported.
        gap: inactivity that ends a session.
        lookback: how long before an order a campaign has a part in it.
    """
    engine = lake.engine
    events = lake.read(EVENTS)
    F, _ = functions_of(events)
    added = lake.read(EVENTS, batches=(after_batch + 1, lake.snapshot(EVENTS).batch))
    new = engine.persist(added.select("user_id", "event_date").distinct())
    new_days = engine.to_arrow(new.select("event_date").distinct())["event_date"].to_pylist()
    if not new_days:
        return []
    # Naming the days lets the engine skip the files of all others.
    around = sorted({day + timedelta(days=offset) for day in new_days for offset in (-1, 1)})
    around_midnight = engine.to_arrow(days_reached(new, events.where(F.col("event_date").isin(around)), gap))
    engine.release(new)
    days: set[date] = set()
    for row in around_midnight.to_pylist():
        offsets = [0, *([-1] if row["day_before"] else []), *([1, 2] if row["days_after"] else [])]
        days.update(row["event_date"] + timedelta(days=offset) for offset in offsets)
    reached = events.where(F.col("event_date").between(min(new_days), max(new_days) + lookback))
    later = attributed_days(added, reached, lookback)
    days.update(engine.to_arrow(later)["event_date"].to_pylist())
    return sorted(days)
