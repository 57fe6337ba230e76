"""Deletes what records said, once it is older than a shop wants to keep it: their rows stay, and so do all counts.

Rows of raw tables say up to which offset Kafka was read, and how many records there were; their bytes alone are what
takes room, and what is about persons.
"""

from datetime import UTC, datetime, timedelta

from clickstream_assets.catalogue import (
    EVENTS,
    EXPERIMENT_EXPOSURES,
    PRODUCT_FEED,
    RAW_EVENTS,
    RAW_EXPOSURES,
    RAW_PRODUCTS,
    REJECTED_EVENTS,
    REJECTED_EXPOSURES,
    REJECTED_PRODUCTS,
    Table,
)
from clickstream_assets.engine import functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, LakeError

_EMPTIED = "emptied"
"""Mark of a raw table: the last batch whose records have no bytes any more."""
_TAKEN_INTO = {RAW_EVENTS: EVENTS, RAW_PRODUCTS: PRODUCT_FEED, RAW_EXPOSURES: EXPERIMENT_EXPOSURES}
"""By each raw table the one that takes a batch of it last."""
_BYTES = ("key", "value")
_REJECTED = (REJECTED_EVENTS, REJECTED_PRODUCTS, REJECTED_EXPOSURES)


def empty_old_records(lake: Lake, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete the bytes of records that came longer ago than RAW_RETENTION_DAYS and REJECTED_RETENTION_DAYS.

    Of raw tables whole batches, once they are taken in. Can be repeated, and interrupted, at any time; the files with
    the bytes go with the upkeep, LAKE_RETENTION_DAYS later.

    Returns:
        By table, how many records have lost what they said; only tables that have such.

    Raises:
        LakeConflictError: the rows were put into other files meanwhile; nothing was changed.
    """
    emptied: dict[str, int] = {}
    if days := settings.raw_retention_days:
        for raw, taken_into in _TAKEN_INTO.items():
            if lake.exists(raw):
                emptied[raw.name] = _empty_raw(lake, raw, taken_into, now - timedelta(days=days))
    if days := settings.rejected_retention_days:
        before = _literal(now - timedelta(days=days))
        is_old = f"kafka_time < {before} AND (value IS NOT NULL OR rejected_value IS NOT NULL)"
        for rejected in filter(lake.exists, _REJECTED):
            emptied[rejected.name] = lake.blank(rejected, ("key", "value", "rejected_value"), is_old)
    return {table: rows for table, rows in emptied.items() if rows}


def empty_taken_in(lake: Lake, raw: Table) -> int:
    """Delete the bytes of all records that are taken in, and the files that have had them; can be repeated.

    Returns:
        How many records have lost what they said.

    Raises:
        LakeConflictError: the rows were put into other files meanwhile; nothing was changed.
    """
    emptied, last = _last_emptied(lake, raw), lake.snapshot(_TAKEN_INTO[raw]).batch
    rows = 0
    if last > emptied:
        rows = lake.blank(raw, _BYTES, f"batch > {emptied} AND batch <= {last}", {_EMPTIED: last})
    # Also those of a run that was killed before it came to that.
    lake.delete_replaced_files(raw)
    return rows


def check_bytes(lake: Lake, raw: Table, batches: range) -> None:
    """Refuse to make tables from records that have lost their bytes.

    Args:
        lake: where they are.
        raw: their table.
        batches: the batches that are to be taken in, in order.

    Raises:
        LakeError: the first of them have none.
    """
    emptied = _last_emptied(lake, raw)
    if batches and batches.start <= emptied:
        raise LakeError(
            f"The records of the ingest batches {batches.start} to {emptied} have no bytes in {raw.name} any more "
            f"(RAW_RETENTION_DAYS, PSEUDONYMS), so {_TAKEN_INTO[raw].name} cannot be made from them again. Put the "
            "whole lake back from one backup, and not some of its tables"
        )


def _last_emptied(lake: Lake, raw: Table) -> int:
    return lake.snapshot(raw, [_EMPTIED]).marks.get(_EMPTIED, 0)


def _empty_raw(lake: Lake, raw: Table, taken_into: Table, before: datetime) -> int:
    emptied = _last_emptied(lake, raw)
    records = lake.read(raw, columns=("topic", "partition", "batch", "kafka_time"))
    F, _ = functions_of(records)
    is_recent = F.col("kafka_time") >= F.lit(before.astimezone(UTC))
    recent = lake.engine.to_arrow(records.where(is_recent).agg(F.min("batch").alias("first")))
    first: int | None = recent["first"][0].as_py()
    last = lake.snapshot(taken_into).batch
    if first is not None:
        last = min(last, first - 1)
    if last <= emptied:
        return 0
    of_batches = f"batch > {emptied} AND batch <= {last}"
    return lake.blank(raw, _BYTES, of_batches, {_EMPTIED: last})


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
