"""Segments: what kind of shopper a user was on a day."""

from __future__ import annotations

from clickstream_assets.analytics.measures import count_of, revenue
from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import DataFrame, functions_of


def user_segments(events: DataFrame) -> DataFrame:
    """Tell buyers (a purchase that day) from window shoppers (there, and no purchase).

    Args:
        events: EVENTS rows of whole days, without bots.

    Returns:
        USER_SEGMENTS rows, one per user and day.
    """
    F, _ = functions_of(events)

    return (
        events.groupBy("event_date", "user_id")
        .agg(
            F.count(F.lit(1)).cast("long").alias("events"),
            count_of(F, "view").alias("views"),
            count_of(F, "add_to_cart").alias("add_to_carts"),
            count_of(F, "purchase").alias("purchases"),
            revenue(F).alias("revenue"),
        )
        .withColumn("report_date", F.col("event_date"))
        .withColumn(
            "segment", F.when(F.col("purchases") > 0, F.lit("buyer")).otherwise(F.lit("window_shopper"))
        )
        .select(*USER_SEGMENTS.column_names)
    )
