"""Segments: the buyers and the window shoppers of a day."""

from __future__ import annotations

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
    is_buyer = F.col("purchases") > 0
    computed = {
        "report_date": F.col("event_date"),
        "segment": F.when(is_buyer, F.lit("buyer")).otherwise(F.lit("window_shopper")),
    }
    return rows_of(USER_SEGMENTS, by_user, computed)
