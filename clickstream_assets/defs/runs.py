"""What sensors ask about runs: is one under way, and how long to wait after failures."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

FIRST_WAIT_SECONDS = 10
LONGEST_WAIT_SECONDS = 600


def under_way(instance: DagsterInstance, job_name: str) -> str | None:
    """Return the id of an unfinished run of a job, if there is one."""
    runs = instance.get_runs(RunsFilter(job_name=job_name, statuses=NOT_FINISHED_STATUSES), limit=1)
    return runs[0].run_id if runs else None


def wait_after_failures(instance: DagsterInstance, job_name: str, now: float) -> float:
    """Return how many seconds to wait before a job is run again: doubling with each failure in a row.

    Args:
        instance: where the runs are.
        job_name: the job.
        now: the current time, seconds since 1970.
    """
    records = instance.get_run_records(RunsFilter(job_name=job_name), limit=10)
    failures = 0
    for record in records:
        if record.dagster_run.status != DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return 0
    ended = records[0].end_time or records[0].create_timestamp.timestamp()
    wait = min(FIRST_WAIT_SECONDS * 2 ** (failures - 1), LONGEST_WAIT_SECONDS)
    return max(0.0, ended + wait - now)


def metadata_value(event: dg.EventLogEntry | None, name: str) -> Any:
    """Return a metadata value of a materialization, None where there is neither."""
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get(name) if materialization else None
    return value.value if value else None
