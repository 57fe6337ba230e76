"""The reach of an event: the days whose tables it can change, and so the days that a table has to read.

Partition mappings, dirty days and checks derive from here. An event reaches

- the sessions of its day, and where its user was active around a midnight those of the day before or of the
  SESSION_DAYS after;
- the funnel of its day and of the FUNNEL_DAYS_AFTER before;
- if it has a campaign, the attribution of its user's orders of the next ATTRIBUTION_DAYS;
- the reports of REPORT_COMPARISON_DAYS after a day that is computed anew;
- carts and customer segments of every later day: there fingerprints of the input, `customers.segment_days` and
  `made_from` of a report, say what is out of date.
"""

from datetime import date, timedelta

from clickstream_assets.analytics.attribution import attributed_days
from clickstream_assets.analytics.funnel import FUNNEL_DAYS_AFTER
from clickstream_assets.analytics.sessions import SESSION_DAYS, days_reached
from clickstream_assets.catalogue import EVENTS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import functions_of
from clickstream_assets.reports.document import COMPARISONS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

__all__ = ["FUNNEL_DAYS_AFTER", "REPORT_COMPARISON_DAYS", "SESSION_DAYS", "dirty_days"]

REPORT_COMPARISON_DAYS = max(COMPARISONS.values()).days
"""A day's report compares it with days up to this many before it."""


def dirty_days(lake: Lake, after_batch: int, settings: Settings) -> list[date]:
    """Return the days that the events of the batches after `after_batch` make dirty, in order.

    Args:
        lake: has the events.
        after_batch: the last batch whose days were reported.
        settings: say how long sessions and funnels go on after midnight, and how far attribution looks back.
    """
    gap = timedelta(minutes=max(settings.session_gap_minutes, settings.funnel_window_minutes))
    lookback = timedelta(days=settings.attribution_days)
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
    first, last = min(new_days), max(new_days)
    clock = ShopClock(settings.shop_time_zone)
    nearby = events.where(F.col("event_date").isin(around))
    reached_per_day = engine.to_arrow(days_reached(new, nearby, gap, first, last, clock))
    engine.release(new)
    days: set[date] = set()
    for row in reached_per_day.to_pylist():
        before = -1 if row["day_before"] else 0
        after = SESSION_DAYS if row["days_after"] else 0
        days.update(row["event_date"] + timedelta(days=offset) for offset in range(before, after + 1))
    reached = events.where(F.col("event_date").between(first, last + lookback + timedelta(days=1)))
    later = attributed_days(added, reached, lookback, first, last, clock)
    days.update(engine.to_arrow(later)["event_date"].to_pylist())
    return sorted(days)
