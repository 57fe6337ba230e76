"""The nightly upkeep of the lake as Dagster runs it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import raw_table


def test_every_table_that_is_there_is_maintained_and_reported(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    for batch in (1, 2, 3):
        rows = duckdb_engine.from_arrow(raw_table([b"a", b"b"], batch, batch * 2))
        lake.append_batch(RAW_EVENTS, rows, batch)
    job = definitions.resolve_job_def("lake_maintenance")
    result = job.execute_in_process(instance=instance)

    (output,) = (e.step_output_data for e in result.all_events if e.is_successful_output)
    reported = {name: value.value for name, value in output.metadata.items()}
    assert {name: reported[name] for name in ("files_before", "files_after", "removed_files")} == {
        "files_before": 3,
        "files_after": 1,
        "removed_files": 0,
    }
    assert reported["tables"].splitlines()[2:] == ["| raw_events | 6 | 3 | 1 | 0 |"]
    assert lake.snapshot(RAW_EVENTS).batch == 3
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["raw_events"]
