"""Sessions: a user's events until they are inactive for longer than the gap.

A session belongs to the day on which it starts and is whole across midnight. What never ends is cut, at the
first midnight that is a day or more after its start and at each one after, so that a day's sessions can be
computed from the days around it, in any order, and never from all of history.

Two further cuts can be asked for. At midnight: no session goes on into the next day. At a campaign: an event
that carries a campaign other than the last one seen in the visit starts a new session, also where the visit had
none so far; events without a campaign never cut. That is how Google's Universal Analytics cut sessions, at the end
of the day and at each new campaign (Analytics Help, "How a web session is defined in Universal Analytics").
"""

from __future__ import annotations

from datetime import date, timedelta
from types import ModuleType
from typing import Any

from clickstream_assets.analytics.measures import amount, count, event_counts, flag, revenue, rows_of, total
from clickstream_assets.catalogue import EVENT_COUNTS, SESSIONS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import DAY, MICROSECOND, MINUTE, SECOND
from clickstream_assets.engine import DataFrame, as_view, functions_of

SESSION_DAYS = 2
"""A session's last event lies at most this many days after the day on which it began; and the events of so many days
before a day decide whether a session that goes on at its midnight is cut there.
"""


def events_around(
    events: DataFrame, first: date, last: date, gap: timedelta, clock: ShopClock = UTC_CLOCK
) -> DataFrame:
    """Return the events that can belong to, or decide about, a session that starts from `first` to `last`.

    Those are the events of these days, and of the days around them those of users who were active at the
    midnight in between.
    """
    F, _ = functions_of(events)
    start, end = clock.begin(first), clock.begin(last + timedelta(days=1))
    day, moment = F.col("event_date"), F.col("event_time")
    # So many days before show whether a session that goes on at midnight has already lasted a day.
    earliest = first - timedelta(days=SESSION_DAYS)
    around = events.where((day >= F.lit(earliest)) & (day <= F.lit(last + timedelta(days=1))))
    up_before = (moment >= F.lit(start - gap)) & (moment < F.lit(start))
    up_after = (moment >= F.lit(end - gap)) & (moment < F.lit(end))
    up_at_midnight = as_view(
        around.where(up_before | up_after)
        .withColumn("up_id", F.col("user_id"))
        .groupBy("up_id")
        .agg(
            F.max(flag(F, up_before)).alias("up_before"),
            F.max(flag(F, up_after)).alias("up_after"),
        )
    )
    joined = around.join(up_at_midnight, on=F.col("user_id") == F.col("up_id"), how="left")
    return as_view(joined).where(
        ((day >= F.lit(first)) & (day <= F.lit(last)))
        | ((day < F.lit(first)) & (F.col("up_before") == 1))
        | ((day > F.lit(last)) & (F.col("up_after") == 1))
    )


def _cut(
    visits: DataFrame, columns: list[str], visit: list[str], midnight: bool, campaign: bool
) -> DataFrame:
    """Number the parts of each visit (`part`), and say how long the whole visit lasts (`visit_us`)."""
    F, Window = functions_of(visits)
    if not (midnight or campaign):
        return visits.select(*columns, F.lit(0).alias("part"), F.lit(0).alias("visit_us"))
    of_visit = Window.partitionBy(*visit)
    in_order = of_visit.orderBy("event_us", "event_id")
    lasts = F.max("event_us").over(of_visit) - F.min("event_us").over(of_visit)
    # What was seen last is the greatest of what was seen: neither engine's `last` leaves nulls out on both.
    seen = F.when(F.col("campaign").isNotNull(), F.struct("event_us", "event_id", "campaign"))
    before = F.max(seen).over(in_order.rowsBetween(Window.unboundedPreceding, -1))
    marked = as_view(
        visits.select(
            *columns,
            lasts.alias("visit_us"),
            F.lag("midnight_us").over(in_order).alias("midnight_before"),
            before.alias("seen_before"),
        )
    )
    cuts = F.lit(False)
    if midnight:
        cuts = cuts | (F.col("midnight_before") < F.col("midnight_us"))
    if campaign:
        last_campaign = F.col("seen_before").getField("campaign")
        changes = last_campaign.isNull() | (last_campaign != F.col("campaign"))
        cuts = cuts | (F.col("midnight_before").isNotNull() & F.col("campaign").isNotNull() & changes)
    cut = as_view(marked.select(*columns, "visit_us", flag(F, cuts).alias("cuts")))
    return cut.select(*columns, "visit_us", F.sum("cuts").over(in_order).alias("part"))


def sessions(
    events: DataFrame,
    first: date,
    last: date,
    gap: timedelta,
    bot_views_per_minute: int,
    *,
    cut_at_midnight: bool = False,
    cut_at_campaign: bool = False,
    clock: ShopClock = UTC_CLOCK,
) -> DataFrame:
    """Compute the sessions that start from day `first` to day `last`, both included.

    Args:
        events: EVENTS rows with persons, of at least SESSION_DAYS before and one day after.
        first: first day.
        last: last day.
        gap: inactivity that a session survives; at most 12 hours.
        bot_views_per_minute: more views than this within 60 seconds are no person's.
        cut_at_midnight: end sessions at midnight.
        clock: says when days begin.
        cut_at_campaign: begin a new session where the campaign changes.

    Returns:
        SESSIONS rows.
    """
    F, Window = functions_of(events)
    columns = [
        "user_id",
        "event_id",
        "event_type",
        "event_date",
        "event_time",
        "event_us",
        "product_id",
        "amount",
        "is_bot",
        "campaign",
        "client_id",
    ]
    rows = as_view(
        events_around(events, first, last, gap, clock)
        .withColumn("event_us", F.unix_micros("event_time"))
        .withColumn("amount", amount(F))
        .withColumn("client_id", F.col("session_id"))
        .select(*columns)
    )

    by_user = Window.partitionBy("user_id").orderBy("event_us", "event_id")
    goes_on = F.col("event_us") - F.lag("event_us").over(by_user) <= gap // MICROSECOND
    marked = as_view(
        rows.select(
            *columns,
            F.row_number().over(by_user).alias("number"),
            F.when(goes_on, F.lit(None)).otherwise(F.col("event_us")).alias("starts_us"),
        )
    )

    # Sorting is what costs, so a chain is known by its start: that is the latest start so far.
    midnight = clock.begin_column(
        F, F.col("event_date"), first - timedelta(days=SESSION_DAYS), last + timedelta(days=1)
    )
    columns += ["number", "chain_us", "midnight_us"]
    chains = as_view(
        marked.select(
            *columns[:-2],
            F.max("starts_us").over(by_user).alias("chain_us"),
            midnight.alias("midnight_us"),
        )
    )
    lasts_a_day = F.col("midnight_us") - F.col("chain_us") >= DAY
    pieces = as_view(
        chains.select(
            *columns,
            F.when(lasts_a_day, F.col("midnight_us")).otherwise(F.lit(0)).cast("long").alias("piece"),
        )
    )

    columns.append("piece")
    visit = ["user_id", "chain_us", "piece"]
    parts = as_view(_cut(pieces, columns, visit, cut_at_midnight, cut_at_campaign))

    columns += ["part", "visit_us"]
    key = [*visit, "part"]
    by_type = Window.partitionBy(*key, "event_type").orderBy("number")
    within = F.col("event_us") - F.lag("event_us", bot_views_per_minute).over(by_type)
    too_fast = (F.col("event_type") == "view") & (within < MINUTE)
    numbered = as_view(parts.select(*columns, flag(F, too_fast).alias("too_fast")))

    # A null is given no number: the engines differ in whether min_by passes over it.
    of_product = F.when(F.col("product_id").isNotNull(), F.col("number"))
    of_campaign = F.when(F.col("campaign").isNotNull(), F.col("number"))
    paid = F.when(F.col("event_type") == "purchase", F.col("amount"))
    grouped = as_view(
        numbered.groupBy(*key).agg(
            F.min("event_date").alias("session_date"),
            F.min("event_time").alias("start_time"),
            F.max("event_time").alias("end_time"),
            F.min("event_us").alias("start_us"),
            F.max("event_us").alias("end_us"),
            count(F).alias("total_events"),
            *event_counts(F, *EVENT_COUNTS),
            F.countDistinct("product_id").cast("long").alias("distinct_products"),
            F.min_by("product_id", of_product).alias("entry_product_id"),
            F.max_by("product_id", of_product).alias("exit_product_id"),
            total(F, paid).alias("revenue"),
            F.max(flag(F, F.col("is_bot"))).alias("robot"),
            F.max("too_fast").alias("too_fast"),
            F.max("visit_us").alias("visit_us"),
            F.min_by("event_id", "number").alias("opening"),
            F.min_by("campaign", of_campaign).alias("campaign"),
            F.count("client_id").alias("client_events"),
            F.collect_set("client_id").alias("client_ids"),
        )
    )

    # If a visit lasts a day, every part of it is labelled a bot, however it is cut.
    is_endless = (F.col("piece") > 0) | (F.greatest("visit_us", F.col("end_us") - F.col("start_us")) >= DAY)
    bot_reason = (
        F.when(F.col("robot") == 1, F.lit("user_agent"))
        .when(F.col("too_fast") == 1, F.lit("view_rate"))
        .when(is_endless, F.lit("endless_session"))
    )
    starts_in_range = (F.col("session_date") >= F.lit(first)) & (F.col("session_date") <= F.lit(last))
    identity = [F.col("user_id"), F.col("start_us").cast("string")]
    if cut_at_campaign:
        # Only then can two sessions of a user start at the same moment.
        identity.append(F.col("opening"))
    step = (
        F.when(F.col("purchases") > 0, F.lit("purchase"))
        .when(F.col("add_to_carts") > 0, F.lit("add_to_cart"))
        .when(F.col("views") + F.col("clicks") > 0, F.lit("view"))
        .otherwise(F.lit("none"))
    )
    computed = {
        "session_id": F.substring(F.sha2(F.concat_ws("|", *identity), 256), 1, 32),
        "duration_seconds": F.floor((F.col("end_us") - F.col("start_us")) / F.lit(SECOND)).cast("long"),
        "is_bot": bot_reason.isNotNull(),
        "bot_reason": bot_reason,
        "furthest_step": step,
        "client_session_ids": F.when(F.col("client_events") > 0, F.sort_array(F.array_compact("client_ids"))),
    }
    return rows_of(SESSIONS, grouped.where(starts_in_range), computed)


def days_reached(
    new_events: DataFrame,
    events: DataFrame,
    gap: timedelta,
    first: date,
    last: date,
    clock: ShopClock = UTC_CLOCK,
) -> DataFrame:
    """Return the days whose sessions new events can change.

    These are the day of each new event; the day before, where the user was active just before that midnight and, with
    no longer break than the gap, up to a new event; and the SESSION_DAYS after, where they were active from a new event
    until just after it (not one, because what goes on may now be cut).

    Args:
        new_events: `user_id` (person), `event_date`, and `first_us` and `last_us`, the times of the first and of the
            last new event of theirs on that day, in microseconds since 1970.
        events: EVENTS rows with persons, the new ones among them, at least of the days of the new events, and of those
            before and after them.
        gap: inactivity that a session survives.
        first: first day of the new events.
        last: last one.
        clock: says when days begin.

    Returns:
        One row per day of new events: `event_date`, `day_before` and `days_after` (1 where those can change).
    """
    F, Window = functions_of(new_events)
    gap_us = gap // MICROSECOND
    us, day = F.unix_micros("event_time"), F.col("event_date")
    begin, end = (
        clock.begin_column(F, its, first - timedelta(days=1), last + timedelta(days=2))
        for its in (day, F.date_add(day, 1))
    )
    active = as_view(
        events.select(
            F.col("user_id").alias("active_id"),
            day.alias("active_date"),
            (us - begin <= gap_us).alias("is_early"),
            (end - us <= gap_us).alias("is_late"),
        ).where(F.col("is_early") | F.col("is_late"))
    )
    distance = F.datediff("active_date", "event_date")
    near = (F.col("user_id") == F.col("active_id")) & ((distance == -1) | (distance == 1))
    up = as_view(
        new_events.join(active, on=near, how="inner")
        .groupBy("user_id", "event_date", "first_us", "last_us")
        .agg(
            F.max(flag(F, (distance == -1) & F.col("is_late"))).alias("up_before"),
            F.max(flag(F, (distance == 1) & F.col("is_early"))).alias("up_after"),
        )
    )
    of_day = events.where((day >= F.lit(first)) & (day <= F.lit(last)))
    own = as_view(
        of_day.select(
            F.col("user_id").alias("own_id"),
            day.alias("own_date"),
            us.alias("us"),
            begin.alias("begin_us"),
            end.alias("end_us"),
        )
    )
    is_own = (F.col("own_id") == F.col("user_id")) & (F.col("own_date") == F.col("event_date"))
    own = as_view(own.join(up.select("user_id", "event_date").distinct(), on=is_own, how="left_semi"))
    by_time = Window.partitionBy("own_id", "own_date").orderBy("us")
    since = F.col("us") - F.coalesce(F.lag("us").over(by_time), F.col("begin_us"))
    until = F.coalesce(F.lead("us").over(by_time), F.col("end_us")) - F.col("us")
    breaks = as_view(own.select("own_id", "own_date", "us", since.alias("since"), until.alias("until")))
    # Of what goes on from the midnight before, and up to the one after, these are the first and the last that do not.
    runs = as_view(
        breaks.groupBy("own_id", "own_date").agg(
            F.min(F.when(F.col("since") > gap_us, F.col("us"))).alias("first_apart"),
            F.max(F.when(F.col("until") > gap_us, F.col("us"))).alias("last_apart"),
        )
    )
    goes_on = F.col("first_apart").isNull() | (F.col("first_us") < F.col("first_apart"))
    goes_on_after = F.col("last_apart").isNull() | (F.col("last_us") > F.col("last_apart"))
    reached = as_view(
        up.join(runs, on=is_own, how="left")
        .groupBy(F.col("event_date").alias("reached_from"))
        .agg(
            F.max(flag(F, (F.col("up_before") == 1) & goes_on)).alias("before"),
            F.max(flag(F, (F.col("up_after") == 1) & goes_on_after)).alias("after"),
        )
    )
    days = as_view(new_events.select("event_date").distinct())
    return days.join(reached, on=day == F.col("reached_from"), how="left").select(
        "event_date",
        F.coalesce(F.col("before"), F.lit(0)).cast("int").alias("day_before"),
        F.coalesce(F.col("after"), F.lit(0)).cast("int").alias("days_after"),
    )


def without_bots(events: DataFrame, sessions_of_the_days: DataFrame) -> DataFrame:
    """Leave out the events of bots: by their user agent, or because they lie within a bot's session."""
    F, _ = functions_of(events)
    bots = sessions_of_the_days.where(F.col("is_bot")).select(*_span(F))
    return events.where(~F.col("is_bot")).join(bots, on=_is_within(F), how="left_anti")


def _span(F: ModuleType) -> list[Any]:
    """Columns of SESSIONS rows: whose a session is, and from when to when."""
    names = {"user_id": "visitor", "start_time": "since", "end_time": "until"}
    return [F.col(name).alias(alias) for name, alias in names.items()]


def _is_within(F: ModuleType) -> Any:
    """Column of EVENTS rows joined with `_span`: whether the event lies within the session."""
    return (F.col("user_id") == F.col("visitor")) & F.col("event_time").between(
        F.col("since"), F.col("until")
    )


def spilled(
    events: DataFrame, sessions: DataFrame, first: date, last: date, clock: ShopClock = UTC_CLOCK
) -> DataFrame:
    """Sum up the events of sessions that lie on days after the one on which the session began.

    Args:
        events: rows with persons, at least of the days and of the SESSION_DAYS after.
        sessions: SESSIONS rows.
        first: first day on which the sessions started.
        last: last such day.
        clock: says when days begin.

    Returns:
        session_date, event_date, events and revenue; one row per such pair of days.
    """
    F, _ = functions_of(events)
    day = F.col("session_date")
    next_day = clock.begin_column(F, F.date_add(day, 1), first, last + timedelta(days=1))
    going_on = (day >= F.lit(first)) & (day <= F.lit(last)) & (F.unix_micros("end_time") >= next_day)
    long = as_view(sessions.where(going_on).select("session_date", *_span(F)))
    latest = last + timedelta(days=SESSION_DAYS)
    on_later_days = (F.col("event_date") > F.lit(first)) & (F.col("event_date") <= F.lit(latest))
    later = as_view(
        events.where(on_later_days).select(
            "event_date", "event_time", "user_id", "event_type", "price", "quantity"
        )
    )
    return (
        later.join(long, on=_is_within(F) & (F.col("event_date") > F.col("session_date")), how="inner")
        .groupBy("session_date", "event_date")
        .agg(count(F).alias("events"), revenue(F).alias("revenue"))
    )
