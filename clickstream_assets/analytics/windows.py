"""Counts per sliding window and product, for a stream of events and for a table of them.

The stream counts with the same columns; this batch function is what it is checked against and rebuilt by.
"""

from __future__ import annotations

from datetime import timedelta
from types import ModuleType
from typing import Any

from clickstream_assets.analytics.measures import count, event_counts
from clickstream_assets.catalogue.units import MICROSECOND, SECOND
from clickstream_assets.engine import DataFrame, as_view, functions_of

CLOCK_TOLERANCE = timedelta(minutes=1)
COUNTS = (
    "product_category",
    "views",
    "add_to_carts",
    "purchases",
    "total_events",
    "distinct_users",
    "first_event_time",
    "last_event_time",
)


def counted_time(F: ModuleType) -> Any:
    """Column of EVENTS rows: the time that an event is counted at.

    Its own; or, if that is more than a minute after it came into Kafka, when it came. No event comes before it
    happens, and a shopper's clock that is an hour fast must not make the events of all others late.
    """
    ahead = F.unix_micros("event_time") - F.unix_micros("kafka_time")
    is_ahead = ahead > F.lit(CLOCK_TOLERANCE // MICROSECOND)
    return F.when(is_ahead, F.col("kafka_time")).otherwise(F.col("event_time"))


def visitor(F: ModuleType) -> Any:
    """Column of EVENTS rows: who did it, as far as the event itself says; the first of its ids, and which that is."""
    return F.coalesce(*(named_id(F, name) for name in ("user_id", "anonymous_id", "session_id")))


def named_id(F: ModuleType, name: str) -> Any:
    """Column of EVENTS rows: an id and which it is, as a user id and an anonymous id can be the same text; or null."""
    return F.when(F.col(name).isNotNull(), F.concat_ws("|", F.lit(name), F.col(name)))


def is_counted(F: ModuleType) -> Any:
    """Column of EVENTS rows: whether an event counts at all; bots and events without a product do not."""
    return (~F.col("is_bot")) & F.col("product_id").isNotNull()


def counts(F: ModuleType, distinct_users: Any) -> list[Any]:
    """Aggregates: the COUNTS columns of a window.

    Args:
        F: functions of the engine.
        distinct_users: aggregate that counts users: exactly, or by an estimate that a stream can keep.
    """
    in_order = F.struct("counted_time", "event_id", "product_category")
    category = F.max(F.when(F.col("product_category").isNotNull(), in_order))
    return [
        category.getField("product_category").alias("product_category"),
        *event_counts(F, "views", "add_to_carts", "purchases"),
        count(F).alias("total_events"),
        distinct_users.cast("long").alias("distinct_users"),
        F.min("counted_time").alias("first_event_time"),
        F.max("counted_time").alias("last_event_time"),
    ]


def product_windows(events: DataFrame, duration: timedelta, slide: timedelta) -> DataFrame:
    """Count events per window and product.

    Windows start at multiples of `slide` since 1970, as Spark's do.

    Args:
        events: EVENTS rows.
        duration: length of a window.
        slide: from one window's start to the next one's, at most `duration`.

    Returns:
        PRODUCT_WINDOWS rows without `is_final` and `batch_id`; users are counted exactly.
    """
    F, _ = functions_of(events)
    length, step = duration // MICROSECOND, slide // MICROSECOND
    per_event = -(-length // step)

    counted = as_view(
        events.where(is_counted(F)).select(
            "event_id",
            "event_type",
            visitor(F).alias("visitor"),
            "product_id",
            "product_category",
            counted_time(F).alias("counted_time"),
        )
    )
    moment = F.unix_micros("counted_time")
    last_start = (F.floor(moment / F.lit(step)) * F.lit(step)).cast("long")
    starts = F.array(*(last_start - F.lit(back * step) for back in range(per_event)))
    in_windows = as_view(counted.withColumn("start", F.explode(starts)))
    in_windows = in_windows.where(F.unix_micros("counted_time") < F.col("start") + F.lit(length))
    totals = as_view(in_windows.groupBy("start", "product_id").agg(*counts(F, F.countDistinct("visitor"))))
    start = F.timestamp_seconds(F.col("start") / F.lit(SECOND))
    return totals.select(
        start.alias("window_start"),
        F.timestamp_seconds((F.col("start") + F.lit(length)) / F.lit(SECOND)).alias("window_end"),
        start.cast("date").alias("window_date"),
        "product_id",
        *COUNTS,
    )
