"""Do stream and batch agree? Closed windows, counted again from `events`, and why they differ where they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from clickstream_assets.analytics.schema import EVENTS, PRODUCT_WINDOWS, RAW_EVENTS
from clickstream_assets.analytics.windows import counted_time, is_counted, product_windows
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.lake import Lake
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.store import Progress

EXACT = ("views", "add_to_carts", "purchases", "total_events", "first_event_time", "last_event_time")
"""What has to be equal; users are estimated by the stream and counted by the batch."""
_MICROSECOND = timedelta(microseconds=1)


class Reason(StrEnum):
    """Why a window's counts differ."""

    LATE = "late"
    """The batch has events that came later than WATERMARK_DELAY allows; the stream dropped them."""
    REPEATED = "repeated later"
    """The stream counted what the batch knows for a repetition: it came later than the stream remembers."""
    LOST = "lost"
    """The batch has events that were in time. The stream's state was lost, or it is wrong."""


@dataclass(frozen=True)
class Difference:
    """A window whose counts are not the same."""

    window_start: datetime
    product_id: str
    streamed: int
    """Events that the stream counted."""
    batch: int
    """Events that the lake has."""
    late: int
    """Of these, those that came late."""
    reason: Reason


@dataclass
class Agreement:
    """What a comparison found."""

    compared: int = 0
    """Closed windows."""
    differences: list[Difference] = field(default_factory=list)
    waiting: str | None = None
    """Why there is nothing to compare yet."""

    def count(self, reason: Reason) -> int:
        """Return how many windows differ for a reason."""
        return sum(difference.reason is reason for difference in self.differences)


def compare(settings: Settings, lake: Lake, progress: Progress | None, days: int) -> Agreement:
    """Compare the closed windows of the last days with the lake's events.

    Only records that both sides have read are looked at, so that it does not matter who is ahead.

    Args:
        settings: length of the windows.
        lake: with `product_windows` and `events`.
        progress: of the stream.
        days: how many days of event time, up to the watermark.
    """
    if progress is None or progress.watermark is None:
        return Agreement(waiting="no window is closed yet")
    held = lake.snapshot(RAW_EVENTS).maximum("offset", by=("topic", "partition"))
    placed = lake.snapshot(EVENTS).batch >= lake.snapshot(RAW_EVENTS).batch
    behind = [
        partition
        for partition, offset in progress.offsets.items()
        if held.get((progress.topic, partition), -1) + 1 < offset
    ]
    if behind or not placed:
        return Agreement(waiting="events has not come as far as the stream")

    since = progress.watermark - timedelta(days=days)
    windows = lake.read(PRODUCT_WINDOWS)
    F, _ = functions_of(windows)
    closed = as_view(
        windows.where((F.col("window_start") >= F.lit(since)) & F.col("is_final")).select(
            "window_start", "product_id", *(F.col(name).alias(f"streamed_{name}") for name in EXACT)
        )
    )
    events = _seen(lake.read(EVENTS), progress, since - settings.window_duration)
    ended = F.col("window_end") <= F.lit(max(filter(None, (progress.watermark, progress.floor))))
    again = product_windows(events, settings.window_duration, settings.slide_duration)
    again = as_view(
        again.where((F.col("window_start") >= F.lit(since)) & ended).select(
            F.col("window_start").alias("start"),
            F.col("product_id").alias("product"),
            *(F.col(name).alias(f"batch_{name}") for name in EXACT),
        )
    )
    both = as_view(
        closed.join(
            again,
            on=(F.col("window_start") == F.col("start")) & (F.col("product_id") == F.col("product")),
            how="full",
        ).select(
            F.coalesce(F.col("window_start"), F.col("start")).alias("window_start"),
            F.coalesce(F.col("product_id"), F.col("product")).alias("product_id"),
            F.coalesce(F.col("streamed_total_events"), F.lit(0)).cast("long").alias("streamed"),
            F.coalesce(F.col("batch_total_events"), F.lit(0)).cast("long").alias("batch"),
            *(F.col(f"{side}_{name}") for side in ("streamed", "batch") for name in EXACT),
        )
    )
    compared = lake.engine.to_arrow(both.agg(F.count(F.lit(1)).cast("long").alias("windows")))
    is_same = F.lit(True)
    for name in EXACT:
        is_same = is_same & F.coalesce(F.col(f"streamed_{name}") == F.col(f"batch_{name}"), F.lit(False))
    different = lake.engine.to_arrow(
        both.where(~is_same).select("window_start", "product_id", "streamed", "batch")
    ).to_pylist()
    result = Agreement(compared=compared["windows"][0].as_py())
    if different:
        late = _late_events(lake, events, settings)
        result.differences = [_explained(row, late, settings) for row in different]
        result.differences.sort(key=lambda difference: (difference.window_start, difference.product_id))
    return result


def _seen(events: DataFrame, progress: Progress, since: datetime) -> DataFrame:
    """Return the events of records that the stream has read, from a time on."""
    F, _ = functions_of(events)
    is_seen = F.lit(False)
    for partition, offset in progress.offsets.items():
        is_seen = is_seen | ((F.col("partition") == partition) & (F.col("offset") < offset))
    # The partition column first: it spares whole days.
    recent = events.where(F.col("event_date") >= F.lit(since.date()))
    return as_view(recent.where((F.col("topic") == progress.topic) & is_seen))


def _late_events(lake: Lake, events: DataFrame, settings: Settings) -> list[dict[str, Any]]:
    """Return time and product of the events that came behind the watermark, by the time they came into Kafka."""
    F, Window = functions_of(events)
    before = Window.orderBy("kafka_time", "topic", "partition", "offset").rowsBetween(
        Window.unboundedPreceding, -1
    )
    timed = as_view(
        events.select(
            "product_id",
            is_counted(F).alias("is_counted"),
            "kafka_time",
            "topic",
            "partition",
            "offset",
            F.unix_micros(counted_time(F)).alias("at"),
        )
    )
    behind = as_view(timed.withColumn("newest", F.max("at").over(before)))
    delay = settings.watermark_delay // _MICROSECOND
    late = behind.where(F.col("is_counted") & (F.col("at") < F.col("newest") - F.lit(delay)))
    return lake.engine.to_arrow(late.select("product_id", "at")).to_pylist()


def _explained(row: dict[str, Any], late: list[dict[str, Any]], settings: Settings) -> Difference:
    start = row["window_start"]
    first = round(start.timestamp() * 1_000_000)
    end = first + settings.window_duration // _MICROSECOND
    late_here = sum(e["product_id"] == row["product_id"] and first <= e["at"] < end for e in late)
    missing = row["batch"] - row["streamed"]
    if missing < 0 or (missing == 0 and not late_here):
        reason = Reason.REPEATED
    else:
        reason = Reason.LATE if missing <= late_here else Reason.LOST
    return Difference(start, row["product_id"], row["streamed"], row["batch"], late_here, reason)
