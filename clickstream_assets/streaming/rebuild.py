"""`clickstream stream --rebuild`: windows and alerts from the lake's events, and a stream that goes on from there.

Windows that the lake has whole are final from then on. The new checkpoint begins in Kafka with the first record that
an open window can need, so no event is missing in between; the tables and the offsets change in one transaction.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg

from clickstream_assets.analytics.windows import counted_time, product_windows
from clickstream_assets.catalogue import EVENTS, PRODUCT_WINDOWS, RECORD_KEY
from clickstream_assets.catalogue.units import EPOCH
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.classification import refuse_topics_made_anew
from clickstream_assets.ingest.erased_places import keep_places_of_lake
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import explained
from clickstream_assets.streaming.alert_index import update_alert_index
from clickstream_assets.streaming.alerts import AlertRules
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.progress import Progress, read_progress
from clickstream_assets.streaming.query import checkpoint_of, lake_of
from clickstream_assets.streaming.source import classified_offsets
from clickstream_assets.streaming.store import WindowStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """Result of a rebuild: numbers of windows and alerts, up to when they are final, and where the stream begins."""

    windows: int
    alerts: int
    floor: datetime | None
    offsets: dict[TopicPartition, int]
    lost: int
    """Events that the topics do not have, so that open windows were closed early with what the lake has of them."""


@dataclass(frozen=True)
class _Beginning:
    floor: datetime | None
    watermark: datetime | None
    offsets: dict[TopicPartition, int]
    lost: int = 0


def rebuild(settings: Settings, lake: Lake, connection: psycopg.Connection) -> Rebuilt:
    """Begin anew from the lake.

    Args:
        settings: windows, thresholds, and where everything is.
        lake: with the engine to compute on.
        connection: the owner's.

    Raises:
        TopicError: Kafka does not answer, or a topic is another than the lake has records of, by the same name.
        PostgresError: the database cannot be reached. Nothing was changed.
    """
    refuse_topics_made_anew(lake, Topics(settings))
    # The stream leaves out what PostgreSQL knows to be erased.
    keep_places_of_lake(lake, settings)
    classified = classified_offsets(lake, settings.topics)
    events = lake.read(EVENTS)
    beginning = _begin(settings, lake, events, classified)
    rows = lake.engine.to_arrow(product_windows(events, settings.window_duration, settings.slide_duration))
    with explained(settings):
        before = read_progress(connection)
        keeps = _are_of_this_length(settings, connection)
    copied = lake_of(settings).snapshot(PRODUCT_WINDOWS).batch
    number = max(before.batch_id if before else 0, copied) + 1
    progress = Progress(
        generation=before.generation + 1 if before else 1,
        base_batch_id=number,
        batch_id=number,
        watermark=beginning.watermark,
        floor=beginning.floor,
        offsets=beginning.offsets,
        alert_rules=AlertRules.of(settings),
    )
    # A rebuild that was killed may have left some files; nothing points there yet.
    checkpoint = checkpoint_of(settings, progress.generation)
    checkpoint.remove()
    checkpoint.open(Topics(settings).ids())
    windows, alerts = WindowStore(connection, settings).rebuild(progress, rows, keeps)
    if before:
        checkpoint_of(settings, before.generation).remove()
    update_copies(settings, lake_of(settings))
    update_alert_index(settings)
    return Rebuilt(windows, alerts, beginning.floor, beginning.offsets, beginning.lost)


def _begin(
    settings: Settings, lake: Lake, events: DataFrame, classified: dict[TopicPartition, int]
) -> _Beginning:
    """Find out up to when the lake's windows are whole, and which records the others need.

    `classified` are the offsets up to which the events, or more of them, hold the topics.
    """
    F, _ = functions_of(events)
    timed = events.select(*RECORD_KEY, counted_time(F).alias("counted_time"))
    newest = _single(lake, timed.agg(F.max("counted_time").alias("value")))
    if newest is None:
        return _Beginning(None, None, {})
    complete = newest - settings.watermark_delay
    needed = timed.where(F.col("counted_time") >= F.lit(complete - settings.window_duration))
    is_read = F.col("topic").isin(*settings.topics)
    firsts = (
        needed.where(is_read).groupBy("topic", "partition").agg(F.min("offset").cast("long").alias("first"))
    )
    needed_from = {
        TopicPartition(row["topic"], row["partition"]): row["first"]
        for row in lake.engine.to_arrow(firsts).to_pylist()
    }
    # The first that is needed can be one that was classified meanwhile.
    offsets = classified | {p: min(first, classified.get(p, first)) for p, first in needed_from.items()}
    # Of topics that KAFKA_TOPIC names no more.
    gone = [needed.where(~is_read)]
    for partition, available in Topics(settings).offsets().items():
        first = offsets.get(partition, 0)
        if available.low > first:
            of_partition = (F.col("topic") == partition.topic) & (F.col("partition") == partition.partition)
            deleted = (F.col("offset") >= first) & (F.col("offset") < available.low)
            gone.append(needed.where(of_partition & deleted))
    beginning = _Beginning(complete, complete, offsets)
    for rows in gone:
        last = _single(lake, rows.agg(F.max("counted_time").alias("value")))
        lost = _single(lake, rows.agg(F.count(F.lit(1)).cast("long").alias("value")))
        if last is None:
            continue
        end = last_window_end(last, settings.window_duration, settings.slide_duration)
        beginning = replace(beginning, floor=max(beginning.floor or end, end), lost=beginning.lost + lost)
    if beginning.lost:
        _log.warning(
            "the topics of KAFKA_TOPIC do not have %d events of open windows; windows up to %s are as the lake has "
            "them, and final",
            beginning.lost,
            beginning.floor,
        )
    return beginning


def last_window_end(moment: datetime, duration: timedelta, slide: timedelta) -> datetime:
    """Return the end of the last window that holds a moment."""
    return moment - (moment - EPOCH) % slide + duration


def _single(lake: Lake, df: DataFrame) -> Any:
    return lake.engine.to_arrow(df)["value"][0].as_py()


def _are_of_this_length(settings: Settings, connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT bool_and(window_end - window_start = %s AND mod(extract(epoch FROM window_start), %s::numeric) = 0) "
        "FROM product_windows",
        (settings.window_duration, settings.slide_duration.total_seconds()),
    ).fetchone()
    return row == (True,)
