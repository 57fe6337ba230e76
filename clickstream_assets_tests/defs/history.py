"""A Dagster instance with a past, and sensors that look at it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus

from clickstream_assets_tests.dagster_private import (
    AssetCheckEvaluationTargetMaterializationData,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    SensorExecutionData,
    create_run_for_test,
    freeze_time,
)

CHECKS_OF_EVENTS = ("counts_close", "event_ids_are_unique", "values_are_allowed")
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("clickstream_assets"), "__repository__")
STEPS = {
    DagsterRunStatus.QUEUED: DagsterEventType.RUN_ENQUEUED,
    DagsterRunStatus.STARTING: DagsterEventType.RUN_STARTING,
    DagsterRunStatus.STARTED: DagsterEventType.RUN_START,
    DagsterRunStatus.CANCELING: DagsterEventType.RUN_CANCELING,
    DagsterRunStatus.SUCCESS: DagsterEventType.RUN_SUCCESS,
    DagsterRunStatus.FAILURE: DagsterEventType.RUN_FAILURE,
    DagsterRunStatus.CANCELED: DagsterEventType.RUN_CANCELED,
}


def start_run(
    instance: dg.DagsterInstance,
    job_name: str,
    status: DagsterRunStatus = DagsterRunStatus.STARTED,
    tags: Mapping[str, str] | None = None,
) -> DagsterRun:
    """A run that is under way."""
    run = create_run_for_test(
        instance,
        job_name=job_name,
        status=DagsterRunStatus.NOT_STARTED,
        tags=dict(tags or {}),
        # What a queued run has to know to be launched.
        remote_job_origin=RemoteJobOrigin(REPOSITORY, job_name),
    )
    if status in STEPS:
        _report(instance, run, status)
    return run


def end_run(
    instance: dg.DagsterInstance, run: DagsterRun, status: DagsterRunStatus, seconds_ago: float = 0
) -> None:
    """The run ends; the instance learns when as it does from Dagster, by an event."""
    with freeze_time(time.time() - seconds_ago):
        _report(instance, run, status)


def past_run(
    instance: dg.DagsterInstance, job_name: str, status: DagsterRunStatus, seconds_ago: float = 0
) -> None:
    """A run that has ended so long ago."""
    end_run(instance, start_run(instance, job_name), status, seconds_ago)


def _report(instance: dg.DagsterInstance, run: DagsterRun, status: DagsterRunStatus) -> None:
    event = DagsterEvent(event_type_value=STEPS[status].value, job_name=run.job_name)
    instance.report_dagster_event(event, run.run_id)


def materialize(instance: dg.DagsterInstance, asset: str, **metadata: Any) -> None:
    """An asset reports what it did."""
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


def trained_on(version: int, rows: int, seconds_ago: float = 0) -> dict[str, Any]:
    """The metadata of recommendations of a training on so many rows of a version of `interaction_days`."""
    data = {
        "versions": {"interaction_days": version},
        "first_day": "2024-05-01",
        "last_day": "2024-05-02",
        "rows": rows,
        "rows_of_all_days": rows,
    }
    return {"trained_on": data, "trained_at": time.time() - seconds_ago}


def check_events(instance: dg.DagsterInstance, passed: bool = True, only: str | None = None) -> None:
    """The checks of `events` are carried out on its newest materialization, or only the one of this name."""
    check_asset(instance, "events", CHECKS_OF_EVENTS if only is None else (only,), passed)


def check_asset(instance: dg.DagsterInstance, asset: str, checks: Iterable[str], passed: bool = True) -> None:
    """Checks of an asset are carried out on its newest materialization."""
    key = dg.AssetKey(asset)
    (newest,) = instance.fetch_materializations(key, limit=1).records
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=newest.storage_id, run_id="", timestamp=newest.timestamp
    )
    for name in checks:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key, check_name=name, passed=passed, target_materialization_data=target
            )
        )


def tick(
    sensor: dg.SensorDefinition,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    cursor: str | None = None,
    resources: Mapping[str, object] | None = None,
) -> SensorExecutionData:
    """Evaluate a sensor as the daemon does: run requests are resolved against the code location."""
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        definitions=definitions,
        sensor_name=sensor.name,
        resources=resources,
    ) as context:
        return sensor.evaluate_tick(context)
