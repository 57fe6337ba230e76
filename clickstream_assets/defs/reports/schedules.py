"""When the report goes out: in the morning, for the day before."""

from datetime import UTC, timedelta

import dagster as dg

from clickstream_assets.defs.jobs import ONE_AT_A_TIME
from clickstream_assets.defs.partitions import daily

morning_report_job = dg.define_asset_job(
    "morning_report_job",
    selection=dg.AssetSelection.groups("sessions", "segments", "reports")
    | dg.AssetSelection.assets("published_days"),
    # Of the days' tables there is one writer at a time.
    tags={ONE_AT_A_TIME: "refresh"},
    description="A day's tables, up to date and published; then its report is mailed.",
)


@dg.schedule(
    job=morning_report_job,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Mails the report of the day before, at 02:00 UTC.",
)
def morning_report(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for the day before."""
    day = (context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)).isoformat()
    if not daily().has_partition_key(day):
        return dg.SkipReason(f"{day} is before EVENTS_START_DATE")
    return dg.RunRequest(run_key=day, partition_key=day)
