"""User segments, a day at a time."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.schema import EVENTS, SESSIONS, USER_SEGMENTS
from clickstream_assets.analytics.segments import user_segments as compute_user_segments
from clickstream_assets.analytics.sessions import without_bots
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions
from clickstream_assets.defs.tables import OWNERS, describe
from clickstream_assets.engine import functions_of
from clickstream_assets.resources.lake import LakeResource


@dg.asset(
    deps=[
        "events",
        # A bot's session can have started up to two days before the day's events.
        dg.AssetDep("sessions", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2)),
    ],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="segments",
    kinds={"delta"},
    owners=OWNERS,
    metadata=describe(USER_SEGMENTS),
)
def user_segments(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One row per user and UTC day: buyer (purchased that day) or window shopper. No bots."""
    the_lake = lake.get()
    first, last = days_of(context)
    with explained_errors():
        for start, end in portions(the_lake, first, last):
            events, sessions = the_lake.read(EVENTS), the_lake.read(SESSIONS)
            F, _ = functions_of(events)
            event_date, session_date = F.col("event_date"), F.col("session_date")
            of_the_days = events.where((event_date >= F.lit(start)) & (event_date <= F.lit(end)))
            around = sessions.where(
                (session_date >= F.lit(start - timedelta(days=2))) & (session_date <= F.lit(end))
            )
            rows = compute_user_segments(without_bots(of_the_days, around))
            the_lake.replace(USER_SEGMENTS, rows, days=(start, end))
    snapshot = the_lake.snapshot(USER_SEGMENTS)
    per_day = snapshot.rows_by("report_date")
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": sum(n for day, n in per_day.items() if first <= day <= last),
            "dagster/row_count": snapshot.rows,
        }
    )
