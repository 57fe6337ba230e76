"""The hourly summary: a day, hour by hour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from types import ModuleType
from typing import Any

from clickstream_assets.analytics.measures import (
    MONEY_SUM,
    amount,
    count,
    event_counts,
    flag,
    net,
    order_key,
    percent,
    rows_of,
    total,
)
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import HOURLY_SUMMARY
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import HOUR, SECOND
from clickstream_assets.engine import DataFrame, as_view, functions_of

_EVENT_COUNTS = ("views", "add_to_carts", "purchases")
_COUNTS = ("total_events", *_EVENT_COUNTS, "users", "orders", "sessions", "converted_sessions")
_AMOUNTS = ("revenue", "refunds")


def hourly_summary(
    shoppers: DataFrame, sessions: DataFrame, first: date, last: date, clock: ShopClock = UTC_CLOCK
) -> DataFrame:
    """Sum up the hours of days: what happened in each, the orders that were begun in it, the sessions that started.

    Hours are counted from a day's begin: of a day of 23 hours there are as many. An order counts in the hour of its
    first purchase, so that a day's hours have the day's orders in all; its amounts are those of the purchases of each
    hour.

    Args:
        shoppers: SHOPPER_EVENTS rows, of at least these days.
        sessions: SESSIONS rows, of at least these days.
        first: first day.
        last: last day.
        clock: says when days begin.

    Returns:
        HOURLY_SUMMARY rows, one per hour in which anything happened or started.
    """
    F, _ = functions_of(shoppers)

    def hour(day: str, time: Any) -> Any:
        begin = clock.begin_column(F, F.col(day), first, last + timedelta(days=1))
        return (begin + F.floor((time - begin) / F.lit(HOUR)) * F.lit(HOUR)).cast("long").alias("hour_us")

    time = F.unix_micros("event_time")
    events = as_view(
        between(shoppers, "event_date", first, last).withColumn("hour_us", hour("event_date", time))
    )
    counted = events.groupBy(F.col("event_date").alias("report_date"), "hour_us").agg(
        count(F).alias("total_events"),
        *event_counts(F, *_EVENT_COUNTS),
        F.countDistinct("user_id").cast("long").alias("users"),
        *(
            total(F, F.when(F.col("event_type") == event_type, amount(F))).alias(name)
            for name, event_type in zip(_AMOUNTS, ("purchase", "refund"), strict=True)
        ),
    )
    began = as_view(
        events.where(F.col("event_type") == "purchase")
        .withColumn("order_key", order_key(F))
        .groupBy(F.col("event_date").alias("report_date"), "user_id", "order_key")
        .agg(F.min("hour_us").alias("hour_us"))
    )
    orders = began.groupBy("report_date", "hour_us").agg(count(F).alias("orders"))
    visits = as_view(
        between(sessions, "session_date", first, last)
        .where(~F.col("is_bot"))
        .withColumn("hour_us", hour("session_date", F.unix_micros("start_time")))
    )
    started = visits.groupBy(F.col("session_date").alias("report_date"), "hour_us").agg(
        count(F).alias("sessions"),
        F.sum(flag(F, F.col("purchases") > 0)).cast("long").alias("converted_sessions"),
    )
    parts = [
        _part(F, counted, ("total_events", *_EVENT_COUNTS, "users", *_AMOUNTS)),
        _part(F, orders, ("orders",)),
        _part(F, started, ("sessions", "converted_sessions")),
    ]
    both = as_view(parts[0].unionByName(parts[1]).unionByName(parts[2]))
    summed = as_view(
        both.groupBy("report_date", "hour_us").agg(
            *(F.sum(name).cast("long").alias(name) for name in _COUNTS),
            *(F.sum(name).cast(MONEY_SUM).alias(name) for name in _AMOUNTS),
        )
    )
    computed: Mapping[str, Any] = {
        "hour_start": F.timestamp_seconds(F.col("hour_us") / F.lit(SECOND)),
        "net_revenue": net(F),
        "conversion_rate": percent(F, F.col("converted_sessions"), F.col("sessions")),
    }
    return rows_of(HOURLY_SUMMARY, summed, computed)


def _part(F: ModuleType, rows: DataFrame, names: tuple[str, ...]) -> DataFrame:
    """Return some of the sums of hours, the others as 0."""
    counts = (F.col(name) if name in names else F.lit(0).cast("long").alias(name) for name in _COUNTS)
    amounts = (F.col(name) if name in names else F.lit(0).cast(MONEY_SUM).alias(name) for name in _AMOUNTS)
    return as_view(rows.select("report_date", "hour_us", *counts, *amounts))
