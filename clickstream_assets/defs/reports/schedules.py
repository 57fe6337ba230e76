"""The schedule of the report: in the morning, for the day before."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.jobs import ONE_AT_A_TIME
from clickstream_assets.defs.partitions import Days, daily
from clickstream_assets.defs.reports.assets import MailConfig, report_mail
from clickstream_assets.settings import load_settings

_CLOCK = ShopClock(load_settings().shop_time_zone)

morning_report_job = dg.define_asset_job(
    "morning_report_job",
    selection=(
        dg.AssetSelection.groups("sessions", "segments", "reports")
        | dg.AssetSelection.assets("published_days", "published_shoppers")
    )
    - dg.AssetSelection.assets("report_mail"),
    # The days' tables have one writer at a time.
    tags={ONE_AT_A_TIME: "refresh"},
    description="A day's tables, up to date and published; then its report is mailed, by report_mail_job.",
)

report_mail_job = dg.define_asset_job(
    "report_mail_job",
    # By itself: it may wait for a mail server for an hour, and the tables must not.
    selection=dg.AssetSelection.assets("report_mail"),
    tags={ONE_AT_A_TIME: "mail"},
    description="The report of a day, mailed to those who have not had it.",
)


@dg.schedule(
    job=morning_report_job,
    cron_schedule="0 2 * * *",
    execution_timezone=_CLOCK.zone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Brings the tables and the report of the day before up to date, at 02:00 by the shop's clock; then it "
    "is mailed.",
)
def morning_report(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for the day before."""
    day = (_CLOCK.day_of(context.scheduled_execution_time) - timedelta(days=1)).isoformat()
    if not daily().has_partition_key(day):
        return dg.SkipReason(f"{day} is before EVENTS_START_DATE")
    return dg.RunRequest(run_key=day, partition_key=day)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[morning_report_job],
    request_job=report_mail_job,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the report mailed when the morning's run has published it.",
)
def report_published(context: dg.RunStatusSensorContext) -> dg.RunRequest:
    """Ask for the mail of the run's newest day."""
    newest = Days.of_run(context.dagster_run.tags).last
    config = dg.RunConfig({report_mail.op.name: MailConfig(days=[newest.isoformat()])})
    return dg.RunRequest(run_key=context.dagster_run.run_id, run_config=config)
