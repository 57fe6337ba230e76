"""Exposures as records have them, and each batch of them taken in once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from clickstream_assets.catalogue import EXPERIMENT_EXPOSURES, RAW_EXPOSURES, REJECTED_EXPOSURES, Table
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest.exposures import read_exposure, update_exposures
from clickstream_assets.ingest.fields import Rejection
from clickstream_assets.ingest.retention import empty_old_records
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, LakeError
from clickstream_assets_tests.analytics.records import ARRIVED, raw_table

EXPOSURE = {
    "exposure_id": "e1",
    "experiment": "x",
    "arm": "a",
    "unit": "anonymous:v",
    "products": ["p", "q"],
    "time": "2024-05-01T10:00:00.5Z",
    "model_version": "m",
    "moment_version": None,
}


def record(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in (EXPOSURE | changes).items() if v != "absent"}).encode()


def test_a_record_is_read_as_the_api_writes_it():
    found = read_exposure(record(more=1))
    assert found.pop("exposed_at") == datetime(2024, 5, 1, 10, 0, 0, 500_000, tzinfo=UTC)
    assert found == {name: value for name, value in EXPOSURE.items() if name != "time"}


@pytest.mark.parametrize(
    ("value", "field", "rule"),
    [
        (None, None, "not_json"),
        (b"{", None, "not_json"),
        (b"\xff", None, "not_json"),
        (b"[]", None, "wrong_type"),
        (record(unit="absent"), "unit", "missing"),
        (record(unit=""), "unit", "wrong_type"),
        (record(unit=7), "unit", "wrong_type"),
        (record(time="2024-05-01T10:00:00"), "time", "wrong_type"),
        (record(products=["p", 1]), "products", "wrong_type"),
        (record(experiment="../x"), "experiment", "wrong_type"),
    ],
)
def test_what_is_no_exposure_is_rejected_by_its_field(value: bytes | None, field: str | None, rule: str):
    with pytest.raises(Rejection) as caught:
        read_exposure(value)
    assert (caught.value.field, caught.value.rule) == (field, rule)


def land(lake: Lake, batch: int, *values: bytes) -> None:
    lake.append_batch(RAW_EXPOSURES, lake.engine.from_arrow(raw_table(values, batch, 10 * batch)), batch)


def found(lake: Lake, table: Table) -> list[tuple[int, int]]:
    return sorted((row["batch"], row["offset"]) for row in lake.rows(table).to_pylist())


def test_each_batch_is_taken_in_once_and_one_that_was_put_back_goes(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    assert update_exposures(lake) == 0
    land(lake, 1, record(), b"{")
    land(lake, 2, b"[]")
    land(lake, 3, record(experiment="y"), record())
    assert update_exposures(lake) == 2
    assert found(lake, EXPERIMENT_EXPOSURES) == [(1, 10), (3, 30), (3, 31)]
    assert found(lake, REJECTED_EXPOSURES) == [(1, 11), (2, 20)]
    versions = [lake.version(table) for table in (EXPERIMENT_EXPOSURES, REJECTED_EXPOSURES)]
    assert update_exposures(lake) == 0
    assert [lake.version(table) for table in (EXPERIMENT_EXPOSURES, REJECTED_EXPOSURES)] == versions
    earlier = Lake(str(tmp_path / "earlier"), engine)
    land(earlier, 1, record(), b"{")
    (tmp_path / "raw_exposures").rename(tmp_path / "lost")
    (tmp_path / "earlier" / "raw_exposures").rename(tmp_path / "raw_exposures")
    update_exposures(lake)
    assert found(lake, EXPERIMENT_EXPOSURES) == [(1, 10)]
    assert found(lake, REJECTED_EXPOSURES) == [(1, 11)]
    land(lake, 2, record())
    update_exposures(lake)
    assert found(lake, EXPERIMENT_EXPOSURES) == [(1, 10), (2, 20)]


def test_a_run_that_was_killed_between_two_tables_is_made_up_for(
    duckdb_engine: DuckDBEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake(str(tmp_path), duckdb_engine)
    land(lake, 1, record(), b"{")
    append = Lake.append_rows

    def killed(self: Lake, table: Table, *args: Any) -> None:
        if table is EXPERIMENT_EXPOSURES:
            raise KeyboardInterrupt
        append(self, table, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "append_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            update_exposures(lake)
    assert (found(lake, EXPERIMENT_EXPOSURES), found(lake, REJECTED_EXPOSURES)) == ([], [(1, 11)])
    update_exposures(lake)
    assert (found(lake, EXPERIMENT_EXPOSURES), found(lake, REJECTED_EXPOSURES)) == ([(1, 10)], [(1, 11)])


@pytest.mark.slow
def test_old_ones_lose_their_bytes_once_they_are_taken_in(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    settings = Settings(_env_file=None, raw_retention_days=1, rejected_retention_days=1)
    later = ARRIVED + timedelta(days=2)
    land(lake, 1, record(), b"{")
    assert empty_old_records(lake, settings, later) == {}
    update_exposures(lake)
    assert empty_old_records(lake, settings, later) == {"raw_exposures": 2, "rejected_exposures": 1}
    for table, rows in ((RAW_EXPOSURES, 2), (REJECTED_EXPOSURES, 1)):
        assert [row["value"] for row in lake.rows(table).to_pylist()] == [None] * rows
    copytree(tmp_path / "lake" / "raw_exposures", tmp_path / "earlier")
    land(lake, 2, record(exposure_id="e2"))
    update_exposures(lake)
    assert found(lake, EXPERIMENT_EXPOSURES) == [(1, 10), (2, 20)]
    # Records that were put back to an earlier time take nothing away that cannot be made again.
    (tmp_path / "lake" / "raw_exposures").rename(tmp_path / "later")
    (tmp_path / "earlier").rename(tmp_path / "lake" / "raw_exposures")
    with pytest.raises(LakeError, match="batches 1 to 1 have no bytes in raw_exposures"):
        update_exposures(lake)
    assert found(lake, EXPERIMENT_EXPOSURES) == [(1, 10), (2, 20)]
    # As of a lake of which a part was put back to an earlier time.
    (tmp_path / "lake" / "experiment_exposures").rename(tmp_path / "lost")
    with pytest.raises(
        LakeError, match=r"batches 1 to 1 have no bytes in raw_exposures .*\(RAW_RETENTION_DAYS"
    ):
        update_exposures(lake)
