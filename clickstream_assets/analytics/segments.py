"""Segments: what kind of shopper a user was on a day."""

from __future__ import annotations

from typing import Any

from clickstream_assets.analytics.schema import USER_SEGMENTS
from clickstream_assets.analytics.sessions import MONEY
from clickstream_assets.engine import DataFrame, functions_of


def user_segments(events: DataFrame) -> DataFrame:
    """Tell buyers (a purchase that day) from window shoppers (there, and no purchase).

    Args:
        events: EVENTS rows of whole days, without bots.

    Returns:
        USER_SEGMENTS rows, one per user and day.
    """
    F, _ = functions_of(events)

    def count(event_type: str) -> Any:
        is_type = F.col("event_type") == event_type
        return F.sum(F.when(is_type, F.lit(1)).otherwise(F.lit(0))).cast("long")

    amount = (F.col("price") * F.coalesce(F.col("quantity"), F.lit(1))).cast(MONEY)
    paid = F.when(F.col("event_type") == "purchase", amount)
    return (
        events.groupBy("event_date", "user_id")
        .agg(
            F.count(F.lit(1)).cast("long").alias("events"),
            count("view").alias("views"),
            count("add_to_cart").alias("add_to_carts"),
            count("purchase").alias("purchases"),
            F.coalesce(F.sum(paid), F.lit(0).cast(MONEY)).cast(MONEY).alias("revenue"),
        )
        .withColumn("report_date", F.col("event_date"))
        .withColumn(
            "segment", F.when(F.col("purchases") > 0, F.lit("buyer")).otherwise(F.lit("window_shopper"))
        )
        .select(*USER_SEGMENTS.column_names)
    )
