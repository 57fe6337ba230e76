"""The query behind `product_windows`: deduplicated events, counted per sliding window and product."""

from typing import Any

from clickstream_assets.analytics.windows import COUNTS, counted_time, counts, is_counted, visitor
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.repetitions import identities, order_line
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.source import LINE_COPIES

QUERY = "product_windows"
COLUMNS = (
    "event_id",
    "event_type",
    "event_time",
    "kafka_time",
    "user_id",
    "anonymous_id",
    "session_id",
    "product_id",
    "product_category",
    "price",
    "quantity",
    "order_id",
    "order_line",
    *LINE_COPIES,
    "is_bot",
)
"""Columns that the query needs of an event."""

STATE_FORMAT = 4
"""To be raised with every change of the query that its checkpoints do not survive."""


def fingerprint(settings: Settings) -> dict[str, Any]:
    """Return the settings that a checkpoint of this query depends on: with others it cannot be used."""
    return {
        "FORMAT": STATE_FORMAT,
        "KAFKA_TOPIC": ",".join(sorted(settings.topics)),
        "WINDOW_DURATION": f"{settings.window_duration.total_seconds():g} seconds",
        "SLIDE_DURATION": f"{settings.slide_duration.total_seconds():g} seconds",
        "WATERMARK_DELAY": f"{settings.watermark_delay.total_seconds():g} seconds",
        "STREAM_SHUFFLE_PARTITIONS": settings.stream_shuffle_partitions,
    }


def windowed(events: DataFrame, settings: Settings) -> DataFrame:
    """Count a stream of valid events.

    The first event of an id counts, and of an order line the first of a visitor and of a user, as on the batch side;
    duplicates are recognized for as long as they can come without being late. Events later than WATERMARK_DELAY are
    dropped, and counted by the first of the operators, once per event.

    Args:
        events: COLUMNS of valid events, bots and searches included: their ids are taken too.

    Returns:
        window_start, window_end, window_date, product_id and the COUNTS columns, in update mode.
    """
    from pyspark.sql import functions as F

    def spark(interval: Any) -> str:
        return f"{interval.total_seconds():g} seconds"

    is_line, columns = order_line(F)

    def line(identity: Any, copy: str) -> Any:
        text = F.to_json(F.array(identity, *(column.cast("string") for column in (*columns, F.col(copy)))))
        # Files of the state are kept for some batches, and are to name no person: 128 bits of a hash are as good a key.
        return F.when(is_line & identity.isNotNull(), F.md5(text)).otherwise(F.to_json(F.array("event_id")))

    user_line, visitor_line = map(line, identities(F), LINE_COPIES)
    once = (
        events.withColumn("counted_time", counted_time(F))
        .withColumns({"user_line": user_line, "visitor_line": visitor_line})
        .withWatermark("counted_time", spark(settings.watermark_delay))
        .dropDuplicatesWithinWatermark(["event_id"])
        # In this order: a line that repeats a guest's must not stand for the user who then logged in, since for the
        # batch it is no event to be repeated. The other way round there is `Reason.LATE`.
        .dropDuplicatesWithinWatermark(["visitor_line"])
        .dropDuplicatesWithinWatermark(["user_line"])
    )
    window = F.window("counted_time", spark(settings.window_duration), spark(settings.slide_duration))
    return (
        once.where(is_counted(F))
        .groupBy(window, "product_id")
        .agg(*counts(F, F.approx_count_distinct(visitor(F), rsd=0.05)))
        .select(
            F.col("window.start").alias("window_start"),
            F.col("window.end").alias("window_end"),
            F.to_date("window.start").alias("window_date"),
            "product_id",
            *COUNTS,
        )
    )
