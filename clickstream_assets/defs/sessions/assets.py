"""Sessions, a day at a time."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.schema import EVENTS, SESSIONS
from clickstream_assets.analytics.sessions import sessions as compute_sessions
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions
from clickstream_assets.defs.tables import OWNERS, describe
from clickstream_assets.resources.lake import LakeResource
from clickstream_assets.resources.settings import SettingsResource


@dg.asset(
    deps=["events"],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="sessions",
    kinds={"delta"},
    owners=OWNERS,
    metadata=describe(SESSIONS),
)
def sessions(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> dg.MaterializeResult:
    """One row per visit, on the day it started and whole across midnight. Bots' are labelled.

    A day is replaced in one commit, so computing it again, in any order, gives the same table.
    """
    limits = settings.get()
    the_lake = lake.get()
    gap = timedelta(minutes=limits.session_gap_minutes)
    first, last = days_of(context)
    with explained_errors():
        for start, end in portions(the_lake, first, last):
            rows = compute_sessions(the_lake.read(EVENTS), start, end, gap, limits.bot_views_per_minute)
            the_lake.replace(SESSIONS, rows, days=(start, end))
    snapshot = the_lake.snapshot(SESSIONS)
    per_day = snapshot.rows_by("session_date")
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": sum(n for day, n in per_day.items() if first <= day <= last),
            "dagster/row_count": snapshot.rows,
        }
    )
