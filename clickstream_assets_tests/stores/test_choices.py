"""A lake keeps the time zone that its first events were read by, and whether it has pseudonyms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import EVENTS, INGEST_RULES, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.classification import classify_records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.choices import require_choices
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.start_date import with_start_date
from clickstream_assets_tests.analytics.records import VIEW, encode, raw_table


def settings_of(folder: Path, zone: str) -> Settings:
    return Settings(_env_file=None, lake_path=str(folder), shop_time_zone=zone)


def ingest(lake: Lake, settings: Settings, batch: int) -> None:
    view = {**VIEW, "timestamp": "2024-05-01T23:30:00", "user_id": f"u{batch}"}
    lake.append_batch(
        RAW_EVENTS, lake.engine.from_arrow(raw_table([encode(view)], batch, first_offset=batch)), batch
    )
    classify_records(lake, ValidationRules.of(settings))


@pytest.mark.slow
def test_a_lake_is_not_gone_on_with_by_another_clock(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    berlin, utc = (settings_of(tmp_path, zone) for zone in ("Europe/Berlin", "UTC"))
    # Nothing has come in yet.
    for settings in (berlin, utc):
        require_choices(lake, settings)
    ingest(lake, berlin, 1)
    ingest(lake, berlin, 2)
    require_choices(lake, berlin)
    assert with_start_date(berlin).shop_time_zone == "Europe/Berlin"
    with pytest.raises(InputError) as refused:
        with_start_date(utc)
    assert f"SHOP_TIME_ZONE='UTC', and the lake in LAKE_PATH={tmp_path}" in str(refused.value)
    assert "days of 'Europe/Berlin'. Set SHOP_TIME_ZONE=Europe/Berlin;" in str(refused.value)
    assert set(lake.snapshot(EVENTS).rows_by("event_date").values()) == {2}


@pytest.mark.slow
def test_a_batch_that_was_begun_is_finished_by_the_clock_that_it_was_begun_with(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    lake = Lake(str(tmp_path), duckdb_engine)
    ingest(lake, settings_of(tmp_path, "Asia/Tokyo"), 1)
    for table in (EVENTS, INGEST_RULES):
        assert lake.snapshot(table).batch == 1
    (row,) = lake.rows_of_batch(INGEST_RULES, 1).to_pylist()
    assert row["time_zone"] == "Asia/Tokyo"
    (event,) = duckdb_engine.to_arrow(lake.read(EVENTS)).to_pylist()
    assert (str(event["event_date"]), event["event_time"].hour) == ("2024-05-01", 14)


def test_a_lake_from_before_there_was_a_choice_is_of_utc(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    bounds = {"earliest": 0, "max_clock_skew": 0, "max_event_bytes": 1, "max_age": None, "event_id_days": 2}
    rules: dict[str, Any] = {"batch": 1, **bounds, "id_placeholders": "", "decimal_comma": False}
    lake.append_rows(
        INGEST_RULES, pa.Table.from_pylist([{**rules, "time_zone": None}], INGEST_RULES.arrow), 1
    )
    require_choices(lake, settings_of(tmp_path, "UTC"))
    with pytest.raises(InputError, match="days of 'UTC'"):
        require_choices(lake, settings_of(tmp_path, "Asia/Tokyo"))


def test_a_lake_of_ids_gets_no_pseudonyms_and_one_of_pseudonyms_no_ids(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    ids = settings_of(tmp_path / "ids", "UTC")
    ingest(Lake(ids.lake, duckdb_engine), ids, 1)
    with pytest.raises(InputError) as refused:
        with_start_date(ids.model_copy(update={"pseudonyms": True}))
    assert f"PSEUDONYMS=true, and the lake in LAKE_PATH={ids.lake} has ids of persons" in str(refused.value)
    assert "Set PSEUDONYMS=false; or set LAKE_PATH to a new folder" in str(refused.value)
    pseudonyms = settings_of(tmp_path / "pseudonyms", "UTC").model_copy(update={"pseudonyms": True})
    lake = Lake(pseudonyms.lake, duckdb_engine)
    view = raw_table([encode(VIEW)])
    lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(view), 1)
    classify_records(lake, ValidationRules.of(pseudonyms), lambda _, ids: dict.fromkeys(ids, "p1"))
    require_choices(lake, pseudonyms)
    with pytest.raises(InputError, match=r"PSEUDONYMS=false.*has pseudonyms of persons. Set PSEUDONYMS=true"):
        require_choices(lake, pseudonyms.model_copy(update={"pseudonyms": False}))
