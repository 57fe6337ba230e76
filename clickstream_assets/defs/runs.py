"""Questions of sensors to Dagster: is a run under way, how long to wait after failures, what did checks find."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from clickstream_assets.defs.dagster_private import FINISHED, UNFINISHED, last_evaluation
from clickstream_assets.settings import load_settings

FIRST_WAIT_SECONDS = 10
LONGEST_WAIT_SECONDS = 600
# The daemon begins evaluations every 5 s, whatever a sensor's least interval is (MIN_INTERVAL_LOOP_TIME in its
# sensor.py), and misses the turn of a sensor whose last one has not ended.
LOOKING_SECONDS = 4.0


def look_until_due(look: Callable[[], dg.SensorResult]) -> dg.SensorResult:
    """Look every SENSOR_INTERVAL_SECONDS, for most of the time until the next evaluation, until a run is due.

    A look must change nothing that matters if its result is lost with the evaluation.
    """
    interval = load_settings().sensor_interval_seconds
    end = time.monotonic() + LOOKING_SECONDS
    while True:
        result = look()
        if result.run_requests or time.monotonic() + interval > end:
            return result
        time.sleep(interval)


def under_way(instance: DagsterInstance, job_name: str) -> str | None:
    """Return the id of an unfinished run of a job, if there is one."""
    runs = instance.get_runs(RunsFilter(job_name=job_name, statuses=UNFINISHED), limit=1)
    return runs[0].run_id if runs else None


def wait_after_failures(instance: DagsterInstance, job_name: str, now: float) -> float:
    """Return how many seconds to wait before a job is run again: doubling with each failure in a row.

    Args:
        instance: where the runs are.
        job_name: the job.
        now: the current time, seconds since 1970.
    """
    failed = failures_in_a_row(instance, job_name)
    if not failed:
        return 0
    wait = min(FIRST_WAIT_SECONDS * 2 ** (len(failed) - 1), LONGEST_WAIT_SECONDS)
    return max(0.0, end_of(failed[0]) + wait - now)


def failures_in_a_row(instance: DagsterInstance, job_name: str) -> list[dg.RunRecord]:
    """Return the last runs of a job that all failed, at most 10, newest first; none where the last one did not."""
    ended = instance.get_run_records(RunsFilter(job_name=job_name, statuses=FINISHED), limit=10)
    return list(takewhile(lambda record: record.dagster_run.status == DagsterRunStatus.FAILURE, ended))


def end_of(record: dg.RunRecord) -> float:
    """Return when a run ended, seconds since 1970; of one that never began, when it was made."""
    return record.end_time or record.create_timestamp.timestamp()


def blocking_checks(
    context: dg.SensorEvaluationContext, asset: dg.AssetKey, materialization: int
) -> dict[str, bool | None]:
    """Return whether each blocking check of an asset passed when it was last carried out.

    Dagster stops a run at such a check, and no other run. It reports the materialization first, so a sensor that acts
    on that has to ask for the checks too.

    Args:
        context: knows the instance and the code location.
        asset: the asset.
        materialization: storage id of its newest materialization, or 0.

    Returns:
        By the check's name; None where it has not been carried out on this materialization.
    """
    if context.repository_def is None:
        raise dg.DagsterInvariantViolationError("the sensor needs its code location")
    graph = context.repository_def.asset_graph
    verdicts: dict[str, bool | None] = {}
    for check in sorted(graph.asset_check_keys, key=lambda key: key.name):
        if check.asset_key != asset or not graph.get(check).blocking:
            continue
        evaluation = last_evaluation(context.instance, check)
        target = evaluation.target_materialization_data if evaluation else None
        is_of_it = target is not None and target.storage_id >= materialization
        verdicts[check.name] = evaluation.passed if evaluation and is_of_it else None
    return verdicts


def metadata_value(event: dg.EventLogEntry | None, name: str) -> Any:
    """Return a metadata value of a materialization, None where there is neither."""
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get(name) if materialization else None
    return value.value if value else None
