"""Records past their retention: what they said is gone, and everything that was made of them stays."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import RAW_EVENTS, REJECTED_EVENTS
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest.classification import (
    CLASSIFIED_TABLES,
    classify_records,
    counts_by_hour,
    misclassified_records,
)
from clickstream_assets.ingest.rejected import Selection, all_rejected, send_again
from clickstream_assets.ingest.retention import empty_old_records
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, LakeError
from clickstream_assets_tests.analytics.records import ARRIVED, RULES, VIEW, encode, raw_table

DAY = timedelta(days=1)
BROKEN = encode(VIEW | {"event_type": "teleport"})


def landed(lake: Lake, batch: int, values: list[bytes | None], days_later: int) -> None:
    rows = raw_table(values, batch, first_offset=batch * 10)
    times = pa.array([ARRIVED + days_later * DAY] * rows.num_rows, RAW_EVENTS.arrow.field("kafka_time").type)
    rows = rows.set_column(rows.column_names.index("kafka_time"), "kafka_time", times)
    lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(rows), batch)


def view(number: int) -> bytes:
    return encode(VIEW | {"event_id": f"e-{number}"})


def values_of(lake: Lake) -> dict[int, list[bytes | None]]:
    rows = lake.engine.to_arrow(
        lake.read(RAW_EVENTS, columns=("topic", "partition", "batch", "value"))
    ).to_pylist()
    return {batch: [row["value"] for row in rows if row["batch"] == batch] for batch in (1, 2, 3)}


def three_batches(lake: Lake) -> None:
    """Land batches, a day apart: an event each; a tombstone and a record that is none in the first."""
    landed(lake, 1, [view(1), BROKEN, None], 0)
    landed(lake, 2, [view(2)], 1)
    landed(lake, 3, [view(3)], 2)


@pytest.fixture
def lake(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    three_batches(lake)
    return lake


def kept(**days: Any) -> Settings:
    return Settings(_env_file=None, **days)


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_old_records_lose_their_bytes_and_nothing_else(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"), engine)
    three_batches(lake)
    classify_records(lake, RULES)
    before = {table: engine.to_arrow(lake.read(table)).num_rows for table in CLASSIFIED_TABLES}
    counts, offsets = (
        counts_by_hour(lake, 3),
        lake.snapshot(RAW_EVENTS).maximum("offset", by=("topic", "partition")),
    )
    settings, now = kept(raw_retention_days=1), ARRIVED + 2.5 * DAY
    assert empty_old_records(lake, settings, now) == {"raw_events": 4}
    assert values_of(lake) == {1: [None] * 3, 2: [None], 3: [view(3)]}
    assert {table: engine.to_arrow(lake.read(table)).num_rows for table in CLASSIFIED_TABLES} == before
    assert counts_by_hour(lake, 3) == counts
    assert misclassified_records(lake, 3, first_batch=1) == []
    assert lake.snapshot(RAW_EVENTS).maximum("offset", by=("topic", "partition")) == offsets
    # Again, there is nothing to do; and what comes in goes on.
    version = lake.version(RAW_EVENTS)
    assert empty_old_records(lake, settings, now) == {}
    assert lake.version(RAW_EVENTS) == version
    landed(lake, 4, [view(1), view(4)], 3)
    assert classify_records(lake, RULES) == {"same_event": 1, "events": 1}
    assert misclassified_records(lake, 4, first_batch=1) == []


@pytest.mark.slow
def test_everything_is_kept_unless_somebody_says_otherwise(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    assert empty_old_records(lake, kept(raw_retention_days=1, rejected_retention_days=1), ARRIVED) == {}
    landed(lake, 1, [view(1), BROKEN], 0)
    classify_records(lake, RULES)
    assert empty_old_records(lake, kept(), ARRIVED + 10_000 * DAY) == {}


@pytest.mark.slow
def test_what_is_not_classified_yet_keeps_its_bytes(lake: Lake):
    # As after weeks without a run.
    assert empty_old_records(lake, kept(raw_retention_days=1), ARRIVED + 100 * DAY) == {}
    classify_records(lake, RULES)
    assert empty_old_records(lake, kept(raw_retention_days=1), ARRIVED + 100 * DAY) == {"raw_events": 5}


@pytest.mark.slow
def test_rejected_records_are_counted_still_and_can_be_sent_no_more(lake: Lake):
    classify_records(lake, RULES)
    settings, now = kept(rejected_retention_days=1), ARRIVED + 2 * DAY
    assert empty_old_records(lake, settings, now) == {"rejected_events": 1}
    assert empty_old_records(lake, settings, now) == {}
    rows: list[dict[str, Any]] = list(all_rejected(lake, Selection()))
    assert sorted((row["rule"], row["field"], row["value"], row["rejected_value"]) for row in rows) == [
        ("tombstone", None, None, None),
        ("unknown", "event_type", None, None),
    ]
    resent = send_again(rows, lambda *_: None, RULES, ["events"], 0, {("event_type",): "view"})
    assert resent.still_rejected == {"emptied": 1, "tombstone": 1}


@pytest.mark.slow
def test_no_table_is_made_again_of_records_without_bytes(lake: Lake, tmp_path: Path):
    classify_records(lake, RULES)
    empty_old_records(lake, kept(raw_retention_days=1), ARRIVED + 2.5 * DAY)
    # As of a lake of which a part was put back to an earlier time.
    (tmp_path / "lake" / "events").rename(tmp_path / "lake" / "lost")
    with pytest.raises(
        LakeError, match=r"ingest batches 1 to 2 have no bytes .*\(RAW_RETENTION_DAYS, PSEUDONYMS\)"
    ):
        classify_records(lake, RULES)
    assert lake.engine.to_arrow(lake.read(REJECTED_EVENTS)).num_rows == 2
