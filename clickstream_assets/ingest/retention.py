"""Deletes what records said, once it is older than a shop wants to keep it: their rows stay, and so do all counts.

Rows of `raw_events` say up to which offset Kafka was read, and how many records there were; their bytes alone are what
takes room, and what is about persons.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS, REJECTED_EVENTS
from clickstream_assets.engine import functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

EMPTIED = "emptied"
"""Mark of `raw_events`: the last ingest batch whose records have no bytes any more."""


class Emptied(NamedTuple):
    """Numbers of records that have lost what they said."""

    raw_events: int = 0
    rejected_events: int = 0


def empty_old_records(lake: Lake, settings: Settings, now: datetime) -> Emptied:
    """Delete the bytes of records that came longer ago than RAW_RETENTION_DAYS and REJECTED_RETENTION_DAYS.

    Of `raw_events` whole ingest batches, once `events` has them. Can be repeated, and interrupted, at any time; the
    files with the bytes go with the upkeep, LAKE_RETENTION_DAYS later.

    Raises:
        LakeConflictError: the rows were put into other files meanwhile; nothing was changed.
    """
    raw = rejected = 0
    if (days := settings.raw_retention_days) and lake.exists(RAW_EVENTS):
        raw = _empty_raw(lake, now - timedelta(days=days))
    if (days := settings.rejected_retention_days) and lake.exists(REJECTED_EVENTS):
        before = now - timedelta(days=days)
        is_old = f"kafka_time < {_literal(before)} AND (value IS NOT NULL OR rejected_value IS NOT NULL)"
        rejected = lake.blank(REJECTED_EVENTS, ("key", "value", "rejected_value"), is_old)
    return Emptied(raw, rejected)


def _empty_raw(lake: Lake, before: datetime) -> int:
    emptied = lake.snapshot(RAW_EVENTS, [EMPTIED]).marks.get(EMPTIED, 0)
    records = lake.read(RAW_EVENTS, columns=("topic", "partition", "batch", "kafka_time"))
    F, _ = functions_of(records)
    is_recent = F.col("kafka_time") >= F.lit(before.astimezone(UTC))
    recent = lake.engine.to_arrow(records.where(is_recent).agg(F.min("batch").alias("first")))
    first: int | None = recent["first"][0].as_py()
    last = lake.snapshot(EVENTS).batch
    if first is not None:
        last = min(last, first - 1)
    if last <= emptied:
        return 0
    of_batches = f"batch > {emptied} AND batch <= {last}"
    return lake.blank(RAW_EVENTS, ("key", "value"), of_batches, {EMPTIED: last})


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
