"""The nightly upkeep of the lake as Dagster runs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import RAW_EVENTS, REJECTED_SAMPLES
from clickstream_assets.defs.maintenance.history import delete_old_runs
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.rejected_samples import update_samples
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.analytics.records import raw_table
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.ingest.test_record_counts import came as arrived
from clickstream_assets_tests.ingest.test_record_counts import rejected


def reported_by(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    (output,) = (
        event.step_output_data
        for event in result.all_events
        if event.is_successful_output and event.step_key == op
    )
    return {name: value.value for name, value in output.metadata.items()}


def test_every_table_that_is_there_is_maintained_and_reported(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "lake"))
    # All windows and notifications are kept, for which no database is asked.
    monkeypatch.setenv("WINDOWS_RETENTION_DAYS", "0")
    monkeypatch.setenv("NOTIFICATIONS_RETENTION_DAYS", "0")
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    for batch in (1, 2, 3):
        rows = duckdb_engine.from_arrow(raw_table([b"a", b"b"], batch, batch * 2))
        lake.append_batch(RAW_EVENTS, rows, batch)
    job = definitions.resolve_job_def("upkeep")
    result = job.execute_in_process(instance=instance)

    reported = reported_by(result, "maintain_tables")
    assert {name: reported[name] for name in ("files_before", "files_after", "removed_files")} == {
        "files_before": 3,
        "files_after": 1,
        "removed_files": 0,
    }
    assert reported["tables"].splitlines()[2:] == ["| raw_events | 6 | 3 | 1 | 0 |"]
    assert lake.snapshot(RAW_EVENTS).batch == 3
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["raw_events"]


def test_what_is_past_its_retention_is_deleted_and_reported(
    definitions: dg.Definitions, instance: dg.DagsterInstance, pipeline_env: Settings
):
    query(
        pipeline_env,
        "INSERT INTO alert_notifications (notified_id, sequence, kind, sink, delivered_at) "
        "SELECT days::text, 1, 'opened', 'console', now() - days * interval '1 day' "
        "FROM generate_series(1, 100) AS days RETURNING 1",
    )
    result = definitions.resolve_job_def("upkeep").execute_in_process(instance=instance)
    assert reported_by(result, "delete_old_windows") == {
        "windows": 0,
        "windows_in_lake": 0,
        "notifications": 11,
        "notified_alerts": 0,
    }


def test_samples_of_rejected_records_are_gone_with_what_was_rejected(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    duckdb_engine: DuckDBEngine,
    pipeline_env: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    lake = Lake(pipeline_env.lake, duckdb_engine)
    now = datetime.now(UTC)
    came = [now - timedelta(days=days) for days in (2, 4)]
    rejected(lake, 1, *((time, "missing", "user_id") for time in came))
    arrived(lake, 1, now)
    samples = update_samples(lake, pipeline_env)
    with publication(pipeline_env) as published:
        published.publish(REJECTED_SAMPLES, samples)
    assert samples.num_rows == 2
    monkeypatch.setenv("REJECTED_RETENTION_DAYS", "3")
    result = definitions.resolve_job_def("upkeep").execute_in_process(instance=instance)
    assert reported_by(result, "delete_old_samples") == {"samples": 1}
    assert query(pipeline_env, 'SELECT "offset" FROM rejected_samples') == [(1500,)]
    assert lake.rows(REJECTED_SAMPLES)["offset"].to_pylist() == [1500]


def test_the_last_run_that_made_an_asset_or_a_day_of_it_stays(instance: dg.DagsterInstance):
    days = dg.DailyPartitionsDefinition(start_date="2024-05-01", end_date="2024-05-04")

    @dg.asset
    def whole() -> None:
        """An asset without days."""

    @dg.asset(partitions_def=days)
    def by_day() -> None:
        """An asset with days."""

    @dg.op
    def failing() -> None:
        raise ValueError

    @dg.job
    def fails() -> None:
        failing()

    def made(asset: dg.AssetsDefinition, day: str | None = None) -> str:
        return dg.materialize([asset], instance=instance, partition_key=day).run_id

    runs = [
        *(made(whole) for _ in range(3)),
        *(made(by_day, f"2024-05-0{day}") for day in (1, 2, 1, 3)),
    ]
    runs.append(fails.execute_in_process(instance=instance, raise_on_error=False).run_id)
    before = instance.get_latest_materialization_event(by_day.key)

    assert delete_old_runs(instance, datetime.now(UTC) - timedelta(days=1)) == 0
    assert delete_old_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 4
    assert {record.dagster_run.run_id for record in instance.get_run_records()} == {runs[2], *runs[4:7]}
    assert instance.get_materialized_partitions(by_day.key) == {"2024-05-01", "2024-05-02", "2024-05-03"}
    assert instance.get_latest_materialization_event(by_day.key) == before
    latest = instance.get_latest_materialization_event(whole.key)
    assert latest
    assert latest.run_id == runs[2]
    assert not instance.all_logs(runs[0])
    assert delete_old_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 0
