"""Upkeep, nightly: what is past its retention is deleted, and the lake's small and unused files are gone."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from clickstream_assets.catalogue import ERASED_RECORDS, REJECTED_SAMPLES, TABLES
from clickstream_assets.defs.dagster_private import delete_checks
from clickstream_assets.defs.jobs import ONE_AT_A_TIME
from clickstream_assets.defs.maintenance.history import delete_old_runs
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.serving.parts import withdraw_old_days
from clickstream_assets.defs.steps import step
from clickstream_assets.ingest.erasure import rows_left
from clickstream_assets.ingest.rejected_samples import update_samples
from clickstream_assets.ingest.retention import empty_old_records
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.daily_files import delete_files
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres import erasures
from clickstream_assets.stores.postgres.pseudonyms import forget_old_sessions
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets.streaming.retention import delete_expired, update_old_copies


@dg.op
@step
def delete_old_windows(context: dg.OpExecutionContext, settings: Settings, lake: Lake) -> None:
    """Delete windows and notifications that are past their retention; can be repeated at any time."""
    deleted = delete_expired(settings)
    copies = update_old_copies(settings, lake)
    context.add_output_metadata({**deleted._asdict(), "windows_in_lake": copies})


@dg.op
@step
def delete_old_history(context: dg.OpExecutionContext, settings: Settings) -> None:
    """Delete Dagster's runs and checks that are past their retention; can be repeated, and interrupted, at any time."""
    now = datetime.now(UTC)
    before, succeeded_before = (
        now - timedelta(days=days) if days else None
        for days in (settings.runs_retention_days, settings.succeeded_runs_retention_days)
    )
    runs = delete_old_runs(context.instance, before, succeeded_before)
    limit = succeeded_before or before
    checks = delete_checks(context.instance, limit) if limit else 0
    context.add_output_metadata({"runs": runs, "checks": checks})


@dg.op
@step
def delete_old_pseudonyms(context: dg.OpExecutionContext, settings: Settings) -> None:
    """Delete pseudonyms of sessions that are long over; can be repeated at any time."""
    context.add_output_metadata({"sessions": forget_old_sessions(settings) if settings.pseudonyms else 0})


@dg.op
@step
def delete_old_samples(context: dg.OpExecutionContext, settings: Settings, lake: Lake) -> None:
    """Delete samples of rejected records that are past their retention; can be repeated at any time."""
    if not lake.exists(REJECTED_SAMPLES):
        context.add_output_metadata({"samples": 0})
        return
    samples = update_samples(lake, settings)
    with publication(settings) as published:
        published.publish(REJECTED_SAMPLES, samples)
    context.add_output_metadata({"samples": samples.num_rows})


@dg.op
@step
def delete_old_days(context: dg.OpExecutionContext, settings: Settings, lake: Lake) -> None:
    """Delete persons' days that are past their retention from PostgreSQL; can be repeated, and interrupted."""
    deleted = withdraw_old_days(lake, settings)
    context.add_output_metadata({"rows": sum(deleted.values()), "tables": deleted})


@dg.op
@step
def delete_old_files(context: dg.OpExecutionContext, settings: Settings) -> None:
    """Delete daily files of what was sent that are past their retention; can be repeated at any time."""
    days = settings.raw_logs_retention_days
    deleted = delete_files(settings.raw_logs, datetime.now(UTC) - timedelta(days=days)) if days else 0
    context.add_output_metadata({"files": deleted})


@dg.op
@step
def maintain_tables(context: dg.OpExecutionContext, settings: Settings, lake: Lake) -> None:
    """Empty old records, and maintain each table that is there; can be repeated, and interrupted, at any time."""
    emptied = empty_old_records(lake, settings, datetime.now(UTC))
    retention = timedelta(days=settings.lake_retention_days)
    done = {table.name: lake.maintain(table, retention) for table in filter(lake.exists, TABLES.values())}
    context.add_output_metadata(
        {
            **{f"emptied_{table}": rows for table, rows in emptied.items()},
            "files_before": sum(table.files_before for table in done.values()),
            "files_after": sum(table.files_after for table in done.values()),
            "removed_files": sum(table.removed_files for table in done.values()),
            "tables": text_table(
                ["table", "rows", "files before", "files after", "deleted from storage"],
                [
                    (name, table.rows, table.files_before, table.files_after, table.removed_files)
                    for name, table in done.items()
                ],
            ),
        }
    )


@dg.op(ins={"start": dg.In(dg.Nothing)})
@step
def finish_erasures(context: dg.OpExecutionContext, settings: Settings, lake: Lake) -> None:
    """Delete the files that erased persons were in, once no table names them; can be repeated at any time.

    Until a refresh and a training have made all tables without them, their files stay, and the next night looks again.
    """
    if not lake.exists(ERASED_RECORDS):
        context.add_output_metadata({"waiting": 0})
        return
    erasures.forget(settings)
    waiting = [each for each in erasures.unfinished(settings) if each.erased_at]
    left = rows_left(lake, [person for each in waiting for person in each.persons]) if waiting else {}
    if left or not waiting:
        context.add_output_metadata({"waiting": len(waiting), "rows_left": left})
        return
    # What reads an older version is begun again by the sensors.
    tables = [
        lake.maintain(table, timedelta(0))
        for table in TABLES.values()
        if table.in_lake and lake.exists(table)
    ]
    LiveEvents(settings).expunge()
    receipt = {
        "removed_files": sum(table.removed_files for table in tables),
        "files_go": f"gone since {datetime.now(UTC).isoformat()}",
        "rows_left": 0,
    }
    erasures.add_to_receipt(settings, {each.number: receipt for each in waiting}, is_done=True)
    context.add_output_metadata({"finished": len(waiting), **receipt})


# Appending, as the ingest does, is possible meanwhile; replacing days is not.
@dg.job(tags={ONE_AT_A_TIME: "refresh"})
def upkeep() -> None:
    """Delete what is past its retention; put small files of the lake together, and delete unused ones."""
    delete_old_windows()
    delete_old_history()
    delete_old_samples()
    delete_old_pseudonyms()
    delete_old_days()
    delete_old_files()
    # Both replace files of the same tables.
    finish_erasures(start=maintain_tables())


nightly_upkeep = dg.ScheduleDefinition(
    job=upkeep,
    cron_schedule="30 3 * * *",
    execution_timezone=load_settings().shop_time_zone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps lake, PostgreSQL and Dagster's history small: at 03:30 of SHOP_TIME_ZONE, after the report.",
)
