"""Dagster's own history: runs and checks on which nothing rests any more are deleted.

A refresh leaves some hundred events in Dagster's database, and there can be thousands of them a day. However old it is,
this stays: the last run that made an asset, or a day of one, and the last that succeeded of each job, by which pages,
sensors, freshness and checks know of them; runs whose dirty days the sensor has not taken in yet; and of each check
what it found last.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from clickstream_assets.defs.dagster_private import (
    FINISHED,
    delete_run,
    last_materializations,
    last_successes,
    runs_of_events,
)
from clickstream_assets.defs.dirty_days import runs_not_taken_in

RUNS_PER_PAGE = 500
_SUCCEEDED = [DagsterRunStatus.SUCCESS]
_OTHERS = [status for status in FINISHED if status not in _SUCCEEDED]


def delete_old_runs(
    instance: dg.DagsterInstance, before: datetime | None, succeeded_before: datetime | None = None
) -> int:
    """Delete runs that were asked for before a time, have ended, and are needed by nothing.

    Can be repeated, and interrupted, at any time.

    Args:
        instance: where they are.
        before: the time (None: no run is too old).
        succeeded_before: another, for runs that have succeeded; the later of both counts.

    Returns:
        How many were deleted.
    """
    times = [time for time in (before, succeeded_before) if time]
    limits = [(_SUCCEEDED, max(times, default=None)), (_OTHERS, before)]
    needed: set[str] | None = None
    deleted = 0
    for statuses, limit in limits:
        for record in _runs(instance, statuses, limit) if limit else ():
            if needed is None:
                needed = _needed(instance)
            if record.dagster_run.run_id not in needed:
                delete_run(instance, record.dagster_run.run_id)
                deleted += 1
    return deleted


def _needed(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs that stay; what is made meanwhile makes fewer of them needed, and none of the others."""
    made = runs_of_events(instance, last_materializations(instance))
    return made | runs_not_taken_in(instance) | last_successes(instance)


def _runs(
    instance: dg.DagsterInstance, statuses: list[DagsterRunStatus], before: datetime
) -> Iterator[dg.RunRecord]:
    """Yield runs, the oldest first; each may be deleted then."""
    asked = RunsFilter(statuses=statuses, created_before=before)
    page = instance.get_run_records(asked, limit=RUNS_PER_PAGE, ascending=True)
    while page:
        # Before any of these is deleted: the next page begins after the last of them.
        after = instance.get_run_records(
            asked, limit=RUNS_PER_PAGE, ascending=True, cursor=page[-1].dagster_run.run_id
        )
        yield from page
        page = after
