"""Samples of rejected records: the newest few of each day, rule and field, and none that is too old."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import REJECTED_SAMPLES
from clickstream_assets.engine import Engine
from clickstream_assets.ingest.rejected_samples import MOST, update_samples
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingest.test_record_counts import came, rejected

NOON = at("2024-05-01 12:00")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TWO = Settings(_env_file=None, rejected_samples=2)


@pytest.fixture
def lake(engine: Engine, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), engine)


def shown(samples: pa.Table) -> list[tuple[Any, ...]]:
    names = ("arrival_date", "rule", "field", "offset", "rejected_value")
    return [(str(row["arrival_date"]), *(row[name] for name in names[1:])) for row in samples.to_pylist()]


@pytest.mark.long_on_spark
def test_samples_are_the_newest_of_each_day_rule_and_field_of_whatever_batch(lake: Lake):
    assert update_samples(lake, TWO).num_rows == 0
    # Offsets of batch 1 begin at 1500, values are numbered.
    rejected(
        lake,
        1,
        (NOON, "unknown", "event_type"),
        (NOON + HOUR, "unknown", "event_type"),
        (NOON + 2 * HOUR, "unknown", "event_type"),
        (NOON, "missing", "user_id"),
        (NOON + DAY, "not_json", None),
    )
    rejected(lake, 0, (NOON, "mapping", "price"), by="elasticsearch")
    came(lake, 1, NOON)
    first = [
        ("2024-05-02", "not_json", "(record)", 1504, "value 4"),
        ("2024-05-01", "unknown", "event_type", 1502, "value 2"),
        ("2024-05-01", "unknown", "event_type", 1501, "value 1"),
        ("2024-05-01", "missing", "user_id", 1503, "value 3"),
    ]
    assert shown(update_samples(lake, TWO)) == first
    assert shown(update_samples(lake, TWO)) == first

    rejected(lake, 2, (NOON + 3 * HOUR, "unknown", "event_type"))
    came(lake, 2, NOON)
    later = [*first[:1], ("2024-05-01", "unknown", "event_type", 2500, "value 0"), first[1], first[3]]
    assert shown(update_samples(lake, TWO)) == later
    assert sorted(shown(lake.rows(REJECTED_SAMPLES))) == sorted(later)
    times = [row["kafka_time"].astimezone(UTC) for row in update_samples(lake, TWO).to_pylist()]
    assert times == [NOON + DAY, NOON + 3 * HOUR, NOON + 2 * HOUR, NOON]


@pytest.mark.long_on_spark
def test_samples_are_of_the_last_fourteen_days_and_of_no_longer_than_what_was_rejected_is_kept(lake: Lake):
    rejected(lake, 1, *((NOON + days * DAY, "missing", "user_id") for days in (0, 1, 12, 14)))
    came(lake, 1, NOON)
    kept = [str((NOON + days * DAY).date()) for days in (14, 12, 1)]
    assert [day for day, *_ in shown(update_samples(lake, TWO))] == kept
    ten_days = with_settings(TWO, rejected_retention_days=10)
    now = NOON + 20 * DAY
    assert [day for day, *_ in shown(update_samples(lake, ten_days, now))] == kept[:2]
    assert lake.rows(REJECTED_SAMPLES).num_rows == 2
    assert update_samples(lake, ten_days, now + 5 * DAY).num_rows == 0


@pytest.mark.long_on_spark
def test_no_samples_are_kept_where_none_are_wanted_and_no_more_than_a_table_is_good_for(lake: Lake):
    rejected(lake, 1, *((NOON, "wrong_type", f"field_{number}") for number in range(MOST + 1)))
    came(lake, 1, NOON)
    assert update_samples(lake, TWO).num_rows == MOST
    none = with_settings(TWO, rejected_samples=0)
    assert update_samples(lake, none).num_rows == 0
    assert lake.rows(REJECTED_SAMPLES).num_rows == 0
    rejected(lake, 2, (NOON, "missing", "user_id"))
    came(lake, 2, NOON)
    assert update_samples(lake, none).num_rows == 0
    # What came while none were wanted is past.
    assert update_samples(lake, TWO).num_rows == 0
