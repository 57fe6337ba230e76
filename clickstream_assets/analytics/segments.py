"""Segments: the buyers and the window shoppers of a day."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from clickstream_assets.analytics.measures import count, event_counts, revenue, rows_of
from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import DataFrame, functions_of


def user_segments(events: DataFrame) -> DataFrame:
    """Label each user of a day a buyer (a purchase that day) or a window shopper (events, and no purchase).

    Args:
        events: SHOPPER_EVENTS rows of whole days.

    Returns:
        USER_SEGMENTS rows, one per user and day.
    """
    F, _ = functions_of(events)
    by_user = events.groupBy("event_date", "user_id").agg(
        count(F).alias("events"),
        *event_counts(F, "views", "add_to_carts", "purchases"),
        revenue(F).alias("revenue"),
    )
    computed = {
        "report_date": F.col("event_date"),
        "segment": segment_of(F, F.col("purchases") > 0),
    }
    return rows_of(USER_SEGMENTS, by_user, computed)


def segment_of(F: ModuleType, has_purchased: Any) -> Any:
    """Column: the segment of a user of a day, by whether they purchased that day."""
    return F.when(has_purchased, F.lit("buyer")).otherwise(F.lit("window_shopper"))
