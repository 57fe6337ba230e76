"""The daily summary: a day in one row."""

from __future__ import annotations

from datetime import date

from clickstream_assets.analytics.measures import (
    MONEY_SUM,
    UNITS_SUM,
    count,
    count_where,
    half_even,
    in_money,
    net,
    order_key,
    percent,
    refunds,
    rows_of,
)
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import DAILY_SUMMARY
from clickstream_assets.catalogue.units import MONEY_UNITS
from clickstream_assets.engine import DataFrame, as_view, functions_of


def daily_summary(
    shoppers: DataFrame,
    segments: DataFrame,
    events: DataFrame,
    sessions: DataFrame,
    first: date,
    last: date,
) -> DataFrame:
    """Sum up days: their users and orders, and the sessions that started.

    Bots are counted apart. `total_events` counts each event once, where older reports counted the
    lines of a log: those of bots and repetitions too.

    Args:
        shoppers: SHOPPER_EVENTS rows, of at least these days; only purchases and refunds are looked at.
        segments: USER_SEGMENTS rows, of at least these days.
        events: EVENTS rows, of at least these days: they say which days have events, and how many are bots'.
        sessions: SESSIONS rows, of at least these days.
        first: first day.
        last: last day.

    Returns:
        DAILY_SUMMARY rows, one per day that has events.
    """
    F, _ = functions_of(events)
    all_events = as_view(
        between(events, "event_date", first, last).groupBy("event_date").agg(count(F).alias("all_events"))
    )
    users = _of_users(between(segments, "report_date", first, last))
    money = _of_money(between(shoppers, "event_date", first, last))
    visits = _of_sessions(between(sessions, "session_date", first, last))
    joined = as_view(
        all_events.join(users, on=F.col("event_date") == F.col("users_date"), how="left")
        .join(money, on=F.col("event_date") == F.col("money_date"), how="left")
        .join(visits, on=F.col("event_date") == F.col("session_date"), how="left")
    )

    amounts, names = ("revenue", "refunds"), ("currency", "paid_in")
    known = {
        name: F.coalesce(F.col(name), F.lit(0)).cast("long").alias(name)
        for name in (*users.columns, *money.columns, *visits.columns)
        if name not in ("users_date", "money_date", "session_date", *amounts, *names)
    }
    counts = as_view(
        joined.select(
            F.col("event_date").alias("report_date"),
            "all_events",
            *(F.coalesce(F.col(name), F.lit(0)).cast(MONEY_SUM).alias(name) for name in amounts),
            *names,
            *known.values(),
        )
    )
    order_units = half_even(F, (F.col("revenue") * F.lit(MONEY_UNITS)).cast(UNITS_SUM), F.col("orders"))
    computed = {
        "window_shopper_count": F.col("users") - F.col("buyer_count"),
        "buyer_rate": percent(F, F.col("buyer_count"), F.col("users")),
        "bounce_rate": percent(F, F.col("bounced_sessions"), F.col("sessions")),
        "net_revenue": net(F),
        "average_order_value": in_money(F, order_units),
        "conversion_rate": percent(F, F.col("converted_sessions"), F.col("sessions")),
        "currencies": F.when(F.col("paid_in_some") > 0, F.sort_array(F.array_compact("paid_in"))),
        "bot_events": F.col("all_events") - F.col("total_events"),
    }
    return rows_of(DAILY_SUMMARY, counts, computed)


def _of_users(segments: DataFrame) -> DataFrame:
    F, _ = functions_of(segments)
    return as_view(
        segments.groupBy(F.col("report_date").alias("users_date")).agg(
            F.sum("events").cast("long").alias("total_events"),
            count(F).alias("users"),
            count_where(F, F.col("purchases") > 0).alias("buyer_count"),
            *(F.sum(name).cast("long").alias(name) for name in ("views", "add_to_carts", "purchases")),
            F.sum("revenue").cast(MONEY_SUM).alias("revenue"),
        )
    )


def _of_money(events: DataFrame) -> DataFrame:
    F, _ = functions_of(events)
    is_purchase = F.col("event_type") == "purchase"
    is_apart = F.col("price").isNull() & F.col("sent_price").isNotNull()
    # The length, so that no id reads on into the key.
    order = F.concat_ws("|", F.length("user_id").cast("string"), F.col("user_id"), order_key(F))
    return as_view(
        events.where(F.col("event_type").isin("purchase", "refund"))
        .withColumn("order_key", F.when(is_purchase, order))
        .withColumn("paid_in", F.when(is_purchase, F.col("sent_currency")))
        .withColumn("money_currency", F.when(F.col("price").isNotNull(), F.col("currency")))
        .withColumn("money_date", F.col("event_date"))
        .groupBy("money_date")
        .agg(
            F.countDistinct("order_key").cast("long").alias("orders"),
            refunds(F).alias("refunds"),
            F.max("money_currency").alias("currency"),
            count_where(F, is_apart).alias("unconverted"),
            F.count("paid_in").alias("paid_in_some"),
            F.collect_set("paid_in").alias("paid_in"),
        )
    )


def _of_sessions(sessions: DataFrame) -> DataFrame:
    F, _ = functions_of(sessions)
    is_bot = F.col("is_bot")

    return as_view(
        sessions.groupBy("session_date").agg(
            count_where(F, ~is_bot).alias("sessions"),
            count_where(F, ~is_bot & (F.col("total_events") == 1)).alias("bounced_sessions"),
            count_where(F, ~is_bot & (F.col("purchases") > 0)).alias("converted_sessions"),
            count_where(F, is_bot).alias("bot_sessions"),
        )
    )
