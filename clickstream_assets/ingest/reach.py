"""The reach of an event: the days whose tables it can change, and so the days that a table has to read.

Partition mappings, dirty days and checks derive from here. An event reaches

- the sessions of its day, and where its person was active from it to a midnight and beyond, without a longer break
  than a session survives, those of the day before or of the SESSION_DAYS after;
- the funnel of its day and of the FUNNEL_DAYS_AFTER before;
- if its person came by a campaign on these days, the attribution of their orders of the next ATTRIBUTION_DAYS;
- the reports of REPORT_COMPARISON_DAYS after a day that is computed anew;
- carts and customer segments of every later day: there fingerprints of the input, `customers.segment_days` and
  `made_from` of a report, say what is out of date.

An event with both ids can change the person of others: those reach what a new event of either person would.

Other `settings_of_days` change every day.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from clickstream_assets.analytics.attribution import attributed_days
from clickstream_assets.analytics.funnel import FUNNEL_DAYS_AFTER
from clickstream_assets.analytics.identity import WITHOUT_END, IdentityRules, owners, person, with_persons
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.sessions import SESSION_DAYS, days_reached
from clickstream_assets.catalogue import EVENTS, IDENTITY_CHANGES, IDENTITY_TIES
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.reports.document import COMPARISONS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

__all__ = [
    "FUNNEL_DAYS_AFTER",
    "REPORT_COMPARISON_DAYS",
    "SESSION_DAYS",
    "days_of_other_settings",
    "dirty_days",
    "moved_events",
    "settings_of_days",
]

REPORT_COMPARISON_DAYS = max(COMPARISONS.values()).days
"""A day's report compares it with days up to this many before it."""
DAY = timedelta(days=1)
_ALWAYS = {"first_us": -(2**62), "last_us": 2**62}
_COLUMNS = ("event_date", "event_time", "event_type", "user_id", "anonymous_id", "session_id", "campaign")

_SETTINGS = (
    *("identity_lookback_days", "identity_max_users"),
    *("session_gap_minutes", "session_cut_at_midnight", "session_cut_at_campaign", "bot_views_per_minute"),
    *("funnel_window_minutes", "attribution_days"),
)


def settings_of_days(settings: Settings) -> dict[str, Any]:
    """Return the settings that tables of days are computed by, by their names."""
    return {name.upper(): getattr(settings, name) for name in _SETTINGS}


def days_of_other_settings(lake: Lake, before: Mapping[str, Any], settings: Settings) -> list[date]:
    """Return all days with events, in order, if a setting that they are computed by is another than before."""
    now = settings_of_days(settings)
    is_changed = any(before.get(name, value) != value for name, value in now.items())
    return sorted(lake.snapshot(EVENTS).rows_by("event_date")) if is_changed else []


def dirty_days(lake: Lake, after_batch: int, settings: Settings) -> list[date]:
    """Return the days that the events of the batches after `after_batch` make dirty, in order.

    Args:
        lake: has the events, their ties, and what new ties have changed.
        after_batch: the last batch whose days were reported.
        settings: say how long sessions and funnels go on after midnight, how far attribution looks back, and how ties
            are read.
    """
    gap = timedelta(minutes=max(settings.session_gap_minutes, settings.funnel_window_minutes))
    lookback = timedelta(days=settings.attribution_days)
    rules = IdentityRules.of(settings)
    engine = lake.engine
    events = lake.read(EVENTS, columns=_COLUMNS)
    F, _ = functions_of(events)
    newest = lake.snapshot(EVENTS)
    added = lake.read(EVENTS, columns=(*_COLUMNS, "batch"), batches=(after_batch + 1, newest.batch))
    moved = moved_events(lake, after_batch)
    dates = added.select("event_date")
    if moved is not None:
        dates = as_view(dates.unionByName(moved.select("event_date")))
    new_days = engine.to_arrow(dates.distinct())["event_date"].to_pylist()
    if not new_days:
        return []
    whose = None
    if lake.snapshot(IDENTITY_TIES).rows:
        nearby = between(
            events, "event_date", min(new_days) - DAY, max(new_days) + lookback + SESSION_DAYS * DAY
        )
        whose = engine.persist(owners(nearby, lake.read(IDENTITY_TIES), rules))
    us = F.unix_micros("event_time")
    new = as_view(
        with_persons(added, whose)
        .groupBy("user_id", "event_date")
        .agg(F.min(us).alias("first_us"), F.max(us).alias("last_us"))
    )
    if moved is not None:
        # What a person no longer has can have gone on over midnight at any time of the day.
        whole_day = (F.lit(value).cast("long").alias(name) for name, value in _ALWAYS.items())
        new = as_view(new.unionByName(moved.select("user_id", "event_date", *whole_day).distinct()))
    new = engine.persist(new)
    # Naming the days lets the engine skip the files of all others.
    around = sorted({day + timedelta(days=offset) for day in new_days for offset in (-1, 0, 1)})
    first, last = min(new_days), max(new_days)
    clock = ShopClock(settings.shop_time_zone)
    near = with_persons(events.where(F.col("event_date").isin(around)), whose)
    days: set[date] = set()
    for row in engine.to_arrow(days_reached(new, near, gap, first, last, clock)).to_pylist():
        before = -1 if row["day_before"] else 0
        after = SESSION_DAYS if row["days_after"] else 0
        days.update(row["event_date"] + timedelta(days=offset) for offset in range(before, after + 1))
    # What labels a session a bot's takes its campaigns away from orders, too.
    of_campaigns = events.where(F.col("event_date").isin(sorted(days)) & F.col("campaign").isNotNull())
    touched = ("user_id", "event_date", "campaign")
    who_is_new = new.select("user_id").distinct()
    touches = with_persons(of_campaigns, whose).join(who_is_new, on="user_id", how="left_semi")
    touches = as_view(touches.select(*touched))
    if moved is not None:
        touches = as_view(touches.unionByName(moved.select(*touched)))
    first, last = min(days), max(days)
    purchases = events.where(
        F.col("event_date").between(first, last + lookback + DAY) & (F.col("event_type") == "purchase")
    )
    later = attributed_days(touches, with_persons(purchases, whose), lookback, first, last, clock)
    days.update(engine.to_arrow(later)["event_date"].to_pylist())
    engine.release(new)
    if whose is not None:
        engine.release(whose)
    return sorted(days)


def moved_events(
    lake: Lake, after_batch: int, days: tuple[date, date] = (date.min, date.max)
) -> DataFrame | None:
    """Return the events that have another person since a batch, once for each of both: None where there are none.

    Args:
        lake: has the events, and what new ties have changed.
        after_batch: the last ingest batch whose ties are known.
        days: the first and the last day whose events are looked at (default: all).

    Returns:
        `user_id` (person), `event_date` and `campaign`.
    """
    newest = lake.snapshot(IDENTITY_CHANGES).batch
    if newest <= after_batch:
        return None
    changes = lake.read(IDENTITY_CHANGES, batches=(after_batch + 1, newest))
    F, _ = functions_of(changes)
    first = lake.engine.to_arrow(changes.agg(F.min("since").alias("first")))["first"][0].as_py()
    if first is None:
        return None
    events = lake.read(EVENTS, columns=_COLUMNS)
    spans = changes.select(
        F.col("anonymous_id").alias("changed_id"),
        "since",
        F.coalesce(F.col("until"), F.lit(WITHOUT_END)).alias("until"),
        F.array("user_before", "user_after").alias("users"),
    )
    # A day more: days are the shop's.
    of_days = between(events, "event_date", max(days[0], first.date() - DAY), days[1]).where(
        F.col("user_id").isNull()
    )
    at = F.col("event_time")
    is_changed = (
        (F.col("anonymous_id") == F.col("changed_id")) & (at >= F.col("since")) & (at < F.col("until"))
    )
    changed = as_view(of_days.join(spans, on=is_changed, how="inner"))
    each = F.explode("users").alias("user")
    of_both = as_view(changed.select("event_date", "campaign", "anonymous_id", each))
    whose = person(F, F.col("user")).alias("user_id")
    return as_view(of_both.select(whose, "event_date", "campaign").distinct())
