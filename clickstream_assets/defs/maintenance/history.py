"""Dagster's own history: runs on which nothing rests any more are deleted, with their events and logs.

Thousands of runs a day leave some hundred events each in Dagster's database. The last that made an asset, or a day of
one, stays: pages, sensors, freshness and checks know of the asset by it.
"""

from __future__ import annotations

from datetime import datetime

import dagster as dg

from clickstream_assets.defs.dagster_private import (
    FINISHED,
    delete_logs,
    last_materializations,
    materializations,
)


def delete_old_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the runs that were asked for before a time, have ended, and are not the last that made something.

    Can be repeated, and interrupted, at any time.

    Returns:
        How many were deleted.
    """
    needed = last_materializations(instance)
    deleted = 0
    for run_id in instance.get_run_ids(dg.RunsFilter(statuses=FINISHED, created_before=before)):
        if needed.isdisjoint(materializations(instance, run_id)):
            delete_logs(instance, run_id)
            instance.delete_run(run_id)
            deleted += 1
    return deleted
