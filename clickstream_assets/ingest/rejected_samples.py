"""Samples of rejected records: a few of each day, rule and field, for whoever looks at the counts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import EVENTS, ITEM_KEY, REJECTED_EVENTS, REJECTED_SAMPLES, WHOLE_RECORD
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.catalogue.units import EPOCH, HOUR
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

DAYS = timedelta(days=14)
"""Samples of so many days are kept, up to the newest with any; fewer, where REJECTED_RETENTION_DAYS says so."""
MOST = 2000
"""Samples that are kept at most, the newest: a sender can break a rule in as many fields as it likes."""
_ORDER = ("kafka_time", *ITEM_KEY)


def update_samples(lake: Lake, settings: Settings, now: datetime | None = None) -> pa.Table:
    """Take samples of the ingest batches that REJECTED_SAMPLES does not have yet, and give up what is too old.

    Samples are the newest of their day, rule and field. The commit carries the number of the last batch; only new
    batches are read, so it takes as long as they are large. Records that Elasticsearch refused are none: they are
    events.

    Args:
        lake: has the rejected records, and keeps the samples.
        settings: how many samples, how long what was rejected is kept, and the shop's clock.
        now: the moment from which on a sample is too old (default: now).

    Returns:
        All samples that are kept, REJECTED_SAMPLES rows.

    Raises:
        LakeError: the lake cannot be read or written.
    """
    newest, sampled = lake.snapshot(EVENTS).batch, lake.snapshot(REJECTED_SAMPLES).batch
    there = lake.rows(REJECTED_SAMPLES).to_pylist()
    new = []
    if newest > sampled and settings.rejected_samples:
        new = _newest(
            lake, (sampled + 1, newest), settings.rejected_samples, ShopClock(settings.shop_time_zone)
        )
    kept = _kept([*there, *new], settings, now or datetime.now(UTC))
    samples = pa.Table.from_pylist(kept, schema=REJECTED_SAMPLES.arrow)
    if newest > sampled:
        lake.replace_batch(REJECTED_SAMPLES, samples, newest)
    elif len(kept) < len(there):
        lake.replace_rows(REJECTED_SAMPLES, samples)
    return samples


def _newest(lake: Lake, batches: tuple[int, int], number: int, clock: ShopClock) -> list[dict[str, Any]]:
    """Return the newest records of each hour of arrival, rule and field of some batches."""
    rows = lake.read(REJECTED_EVENTS, batches=batches)
    F, Window = functions_of(rows)
    names = (*ITEM_KEY, "kafka_time", "rule", "rejected_value")
    by_ingest = rows.where(F.col("rejected_by").isNull() | (F.col("rejected_by") == "ingest"))
    of_hours = as_view(
        by_ingest.select(
            *names,
            F.coalesce(F.col("field"), F.lit(WHOLE_RECORD)).alias("field"),
            F.floor(F.unix_micros("kafka_time") / F.lit(HOUR)).cast("long").alias("hour"),
        )
    )
    newest_first = [F.col(name).desc() for name in _ORDER]
    place = F.row_number().over(Window.partitionBy("hour", "rule", "field").orderBy(*newest_first))
    numbered = as_view(of_hours.select(*names, "field", place.alias("place")))
    newest = lake.engine.to_arrow(numbered.where(F.col("place") <= number).drop("place"))
    return [{"arrival_date": clock.day_of(row["kafka_time"]), **row} for row in newest.to_pylist()]


def _kept(rows: list[dict[str, Any]], settings: Settings, now: datetime) -> list[dict[str, Any]]:
    """Return the samples that are neither too old nor too many, the newest first."""
    first_day = max((row["arrival_date"] for row in rows), default=date.min + DAYS) - DAYS
    days = settings.rejected_retention_days
    first_time = now - timedelta(days=days) if days else EPOCH
    of_group: Counter[tuple[Any, ...]] = Counter()
    kept = []
    for row in sorted(rows, key=itemgetter(*_ORDER), reverse=True):
        group = (row["arrival_date"], row["rule"], row["field"])
        if row["arrival_date"] > first_day and row["kafka_time"] >= first_time:
            of_group[group] += 1
            if of_group[group] <= settings.rejected_samples:
                kept.append(row)
    return kept[:MOST]
