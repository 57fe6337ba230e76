"""Attribution: shares of a day's orders for the campaigns that led to them, by three models.

A campaign touches a user when an event of theirs carries it. Touches in a row of the same campaign, with no pause
between them that would end a session, are one: a visit that names its campaign at every click is touched once.
Only events with a campaign decide about that, so a late event without one changes nothing.

- last_touch: the last touch before an order is credited with the whole of it;
- first_touch: the first one of the lookback is;
- linear: each touch is credited with an equal part, in 1/10,000; the last one also gets the remainder, so that the
  parts add up to the order.

An order that no campaign touched is credited to `(direct)`. The models are those of Google Analytics' "About
attribution models" (support.google.com/analytics/answer/1662518).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from clickstream_assets.analytics.customers import orders as orders_of
from clickstream_assets.analytics.measures import UNITS_SUM, in_money
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import CAMPAIGN_ATTRIBUTION, CAMPAIGN_TOUCHES
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import MICROSECOND, MONEY_UNITS
from clickstream_assets.engine import DataFrame, as_view, functions_of

DIRECT = "(direct)"


def campaign_touches(shoppers: DataFrame, gap: timedelta) -> DataFrame:
    """Put each person's touches of a day together.

    A touch that goes on past midnight has a row on each day; `campaign_attribution` takes them for one.

    Args:
        shoppers: SHOPPER_EVENTS rows of whole days.
        gap: inactivity that ends a session.

    Returns:
        CAMPAIGN_TOUCHES rows.
    """
    F, Window = functions_of(shoppers)
    day = ("event_date", "user_id")
    rows = as_view(
        shoppers.where(F.col("campaign").isNotNull()).select(
            *day,
            "event_id",
            "campaign",
            F.col("event_time").alias("first_time"),
            F.col("event_time").alias("last_time"),
        )
    )
    in_order = Window.partitionBy(*day).orderBy("first_time", "event_id")
    return (
        _numbered(rows, in_order, gap)
        .groupBy(*day, F.col("touch").cast("long").alias("position"))
        .agg(
            F.min("campaign").alias("campaign"),
            F.min("first_time").alias("first_time"),
            F.max("last_time").alias("last_time"),
        )
        .select(*CAMPAIGN_TOUCHES.column_names)
    )


def campaign_attribution(
    shoppers: DataFrame, touches: DataFrame, first: date, last: date, lookback: timedelta, gap: timedelta
) -> DataFrame:
    """Share out the orders from day `first` to day `last`, both included.

    An order is a user's purchases of one day with the same order_id, or without one of the same minute; the touches
    up to its last line count.

    Args:
        shoppers: SHOPPER_EVENTS rows, at least of the days.
        touches: CAMPAIGN_TOUCHES rows, at least of the days and of the lookback before them.
        first: first day.
        last: last day.
        lookback: time before an order in which touches count; at least the gap.
        gap: inactivity that ends a session.

    Returns:
        CAMPAIGN_ATTRIBUTION rows.
    """
    F, Window = functions_of(shoppers)
    orders = as_view(
        orders_of(between(shoppers, "event_date", first, last)).select(
            "user_id",
            "order_key",
            F.col("order_date").alias("report_date"),
            F.unix_micros("last_line_at").alias("order_us"),
            (F.col("amount") * F.lit(MONEY_UNITS)).cast(UNITS_SUM).alias("units"),
        )
    )
    # Most persons of the lookback order nothing on the days.
    buyers = orders.select(F.col("user_id").alias("buyer_id")).distinct()
    of_lookback = between(touches, "event_date", first - lookback - timedelta(days=1), last)
    of_buyers = as_view(
        of_lookback.join(buyers, on=F.col("user_id") == F.col("buyer_id"), how="inner").select(
            F.col("user_id").alias("touched_id"),
            "event_date",
            "position",
            "campaign",
            "first_time",
            "last_time",
        )
    )
    in_order = Window.partitionBy("touched_id").orderBy("event_date", "position")
    touched = as_view(
        _numbered(of_buyers, in_order, gap).select(
            "touched_id",
            "touch",
            "campaign",
            F.unix_micros("first_time").alias("first_us"),
            F.unix_micros("last_time").alias("last_us"),
        )
    )
    # An event of it is within the lookback, also if it began before that or goes on after the order.
    is_of = F.col("user_id") == F.col("touched_id")
    is_before = F.col("first_us") <= F.col("order_us")
    is_in_time = F.col("order_us") - F.col("last_us") <= F.lit(lookback // MICROSECOND)
    reached = as_view(
        orders.join(touched, on=is_of & is_before & is_in_time, how="inner")
        .select("user_id", "order_key", "report_date", "touch", "campaign")
        .distinct()
    )
    return _shares(orders, reached)


def _numbered(rows: DataFrame, in_order: Any, gap: timedelta) -> DataFrame:
    """Number the touches that rows, each of a `first_time` and a `last_time`, are parts of: `touch`, from 1."""
    F, _ = functions_of(rows)
    paused = (
        F.unix_micros("first_time") - F.unix_micros(F.lag("last_time").over(in_order)) > gap // MICROSECOND
    )
    goes_on = (F.lag("campaign").over(in_order) == F.col("campaign")) & ~paused
    begins = F.when(goes_on, F.lit(0)).otherwise(F.lit(1))
    marked = as_view(rows.select(*rows.columns, begins.alias("begins")))
    return as_view(marked.select(*rows.columns, F.sum("begins").over(in_order).alias("touch")))


def _shares(orders: DataFrame, reached: DataFrame) -> DataFrame:
    F, Window = functions_of(orders)
    order = ("user_id", "order_key", "report_date")
    of_order = Window.partitionBy(*order)
    ranked = as_view(
        reached.select(
            *(F.col(name).alias(f"touched_{name}") for name in order),
            "campaign",
            F.row_number().over(of_order.orderBy("touch")).alias("from_first"),
            F.row_number().over(of_order.orderBy(F.col("touch").desc())).alias("from_last"),
        )
    )
    on = None
    for name in order:
        same = F.col(name) == F.col(f"touched_{name}")
        on = same if on is None else on & same
    # An order without a touch has one row too, without a campaign: the first and the last of one.
    joined = as_view(
        orders.join(ranked, on=on, how="left").select(
            "report_date",
            "units",
            F.coalesce(F.col("campaign"), F.lit(DIRECT)).alias("campaign"),
            F.coalesce(F.col("from_first"), F.lit(1)).alias("from_first"),
            F.coalesce(F.col("from_last"), F.lit(1)).alias("from_last"),
        )
    )
    touches = F.col("from_first") + F.col("from_last") - F.lit(1)

    def part(of: Any, name: str) -> Any:
        share = F.floor(of / touches).cast(UNITS_SUM)
        rest = of - (touches - F.lit(1)) * share
        return F.when(F.col("from_last") == 1, rest).otherwise(share).cast(UNITS_SUM).alias(name)

    def of_model(model: str, rows: DataFrame, *parts: Any) -> DataFrame:
        return rows.select("report_date", F.lit(model).alias("model"), "campaign", *parts)

    whole = (F.lit(MONEY_UNITS).cast(UNITS_SUM).alias("part"), "units")
    last = of_model("last_touch", joined.where(F.col("from_last") == 1), *whole)
    first = of_model("first_touch", joined.where(F.col("from_first") == 1), *whole)
    linear = of_model("linear", joined, part(F.lit(MONEY_UNITS), "part"), part(F.col("units"), "units"))
    shares = as_view(last.unionByName(first).unionByName(linear))
    return (
        shares.groupBy("report_date", "model", "campaign")
        .agg(F.sum("part").alias("order_units"), F.sum("units").alias("revenue_units"))
        .withColumn("orders", in_money(F, F.col("order_units")))
        .withColumn("revenue", in_money(F, F.col("revenue_units")))
        .select(*CAMPAIGN_ATTRIBUTION.column_names)
    )


def attributed_days(
    new_events: DataFrame,
    events: DataFrame,
    lookback: timedelta,
    first: date,
    last: date,
    clock: ShopClock = UTC_CLOCK,
) -> DataFrame:
    """Return the days with orders that new events can have a part in.

    Args:
        new_events: `user_id`, `event_date` and `campaign` of the new events.
        events: rows with persons, at least of the purchases of the days that the new events reach.
        lookback: time before an order in which touches count; whole days.
        first: first day of the new events.
        last: last one.
        clock: says when days begin.

    Returns:
        `event_date`, one row per day on which a user purchased soon enough after a campaign's touch.
    """
    F, _ = functions_of(new_events)
    touched = as_view(
        new_events.where(F.col("campaign").isNotNull())
        .select(F.col("user_id").alias("touched_id"), F.col("event_date").alias("touched_date"))
        .distinct()
    )
    purchases = as_view(
        events.where(F.col("event_type") == "purchase").select("user_id", "event_date").distinct()
    )
    day, touched_day = F.col("event_date"), F.col("touched_date")
    begin, touched_until = (
        clock.begin_column(F, its, first, last + lookback + timedelta(days=2))
        for its in (day, F.date_add(touched_day, 1))
    )
    in_time = (day >= touched_day) & (begin - touched_until < lookback // MICROSECOND)
    soon = (F.col("user_id") == F.col("touched_id")) & in_time
    return purchases.join(touched, on=soon, how="inner").select("event_date").distinct()
