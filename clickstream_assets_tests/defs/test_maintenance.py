"""The nightly upkeep of the lake as Dagster runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS, REJECTED_SAMPLES
from clickstream_assets.defs.dagster_private import delete_checks, last_evaluation
from clickstream_assets.defs.dirty_days import RefreshState, runs_not_taken_in
from clickstream_assets.defs.maintenance import history
from clickstream_assets.defs.maintenance.history import delete_old_runs
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.rejected_samples import update_samples
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.analytics.records import raw_table
from clickstream_assets_tests.dagster_private import (
    InstanceRef,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
    SensorInstigatorData,
)
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.ingest.test_record_counts import came as arrived
from clickstream_assets_tests.ingest.test_record_counts import rejected


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that keeps sensors' states too."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        yield instance


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


def test_what_succeeded_goes_sooner_but_the_last_of_each_job_and_what_failed_stay(
    instance: dg.DagsterInstance,
):
    @dg.op(config_schema=bool)
    def works(context) -> None:
        if not context.op_config:
            raise ValueError

    @dg.job
    def one() -> None:
        works()

    @dg.job
    def other() -> None:
        works()

    def ran(job: dg.JobDefinition, *, succeeds: bool = True) -> str:
        config = {"ops": {"works": {"config": succeeds}}}
        return job.execute_in_process(config, instance=instance, raise_on_error=False).run_id

    runs = [ran(one), ran(other), ran(one, succeeds=False), ran(one), ran(one), ran(one, succeeds=False)]
    long_ago, later = (datetime.now(UTC) + timedelta(days=days) for days in (-30, 1))

    def left() -> list[int]:
        return sorted(runs.index(record.dagster_run.run_id) for record in instance.get_run_records())

    assert delete_old_runs(instance, None, None) == delete_old_runs(instance, long_ago, long_ago) == 0
    assert delete_old_runs(instance, long_ago, later) == 2
    assert left() == [1, 2, 4, 5]
    assert delete_old_runs(instance, None, later) == 0
    # Where the other is shorter, it counts for all.
    assert delete_old_runs(instance, later, long_ago) == 2
    assert left() == [1, 4]


@pytest.mark.parametrize("pages_of", [1, 2, 3])
def test_runs_are_deleted_page_by_page_whichever_of_them_stay(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, pages_of: int
):
    monkeypatch.setattr(history, "RUNS_PER_PAGE", pages_of)
    days = dg.DailyPartitionsDefinition(start_date="2024-05-01", end_date="2024-05-04")

    @dg.asset(partitions_def=days)
    def by_day() -> None:
        """An asset with days."""

    runs = [
        dg.materialize([by_day], instance=instance, partition_key=f"2024-05-0{day}").run_id
        for day in (1, 2, 1, 1, 3, 1, 3)
    ]
    assert delete_old_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 4
    assert {record.dagster_run.run_id for record in instance.get_run_records()} == {runs[1], *runs[5:]}


def state_of_dirty_days(seen: int) -> InstigatorState:
    """Return what Dagster keeps of the sensor that has taken in reports up to one."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("clickstream"), "__repository__")
    data = SensorInstigatorData(cursor=RefreshState(seen=seen).model_dump_json())
    origin = RemoteInstigatorOrigin(repository, "dirty_days")
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)


def test_a_run_stays_until_the_sensor_has_taken_in_its_dirty_days(instance: dg.DagsterInstance):
    @dg.asset(name=EVENTS.name)
    def events() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"dirty_days": dg.MetadataValue.json(["2024-05-01"])})

    later = datetime.now(UTC) + timedelta(days=1)
    runs = [dg.materialize([events], instance=instance).run_id for _ in range(4)]
    # The sensor has never looked.
    assert delete_old_runs(instance, later) == 0
    reports = instance.fetch_materializations(dg.AssetKey(EVENTS.name), limit=4, ascending=True).records
    instance.add_instigator_state(state_of_dirty_days(reports[1].storage_id))
    assert delete_old_runs(instance, later) == 2
    left = {record.dagster_run.run_id for record in instance.get_run_records()}
    assert left == set(runs[2:])
    assert runs_not_taken_in(instance) == left


def test_a_run_that_was_half_deleted_is_deleted_the_next_time(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    @dg.asset
    def whole() -> None:
        """An asset."""

    runs = [dg.materialize([whole], instance=instance).run_id for _ in range(3)]
    later = datetime.now(UTC) + timedelta(days=1)
    with monkeypatch.context() as killed:
        killed.setattr(instance, "delete_run", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            delete_old_runs(instance, later)
    assert not instance.all_logs(runs[0])
    assert instance.get_run_by_id(runs[0])
    assert delete_old_runs(instance, later) == 2
    assert [record.dagster_run.run_id for record in instance.get_run_records()] == [runs[2]]


def test_of_each_check_stays_what_it_found_last_and_when_it_last_passed(instance: dg.DagsterInstance):
    @dg.asset
    def whole() -> None:
        """An asset."""

    passes = iter((True, True, False, False))

    @dg.asset_check(asset=whole)
    def sometimes() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=next(passes))

    @dg.asset_check(asset=whole)
    def always() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    keys = [check.check_key for check in (sometimes, always)]
    for _ in range(4):
        dg.materialize([whole, sometimes, always], instance=instance)
    now = datetime.now(UTC)

    def found() -> list[int]:
        storage = instance.event_log_storage
        return [len(storage.get_asset_check_execution_history(key, limit=10)) for key in keys]

    said = [last_evaluation(instance, key, passed_only=only) for key in keys for only in (False, True)]
    assert delete_checks(instance, now - timedelta(days=1)) == 0
    assert found() == [4, 4]
    # Two of one check, as the last that passed is not the last; one of the other.
    assert delete_checks(instance, now + timedelta(days=1)) == 5
    assert found() == [2, 1]
    assert said == [
        last_evaluation(instance, key, passed_only=only) for key in keys for only in (False, True)
    ]
    assert [evaluation.passed for evaluation in said if evaluation] == [False, True, True, True]
    assert delete_checks(instance, now + timedelta(days=1)) == 0
