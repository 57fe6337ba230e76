"""The lake's upkeep, nightly: small files are put together, and files that nobody reads any more are deleted."""

from datetime import timedelta

import dagster as dg

from clickstream_assets import catalogue
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.jobs import ONE_AT_A_TIME
from clickstream_assets.defs.resources import LakeResource, SettingsResource

TABLES = [table for table in catalogue.TABLES.values() if table.in_lake]


@dg.op
def maintain_tables(context: dg.OpExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
    """Maintain each table that is there; can be repeated, and interrupted, at any time."""
    retention = timedelta(days=settings.get().lake_retention_days)
    the_lake = lake.get()
    lines = ["| table | rows | files before | files after | deleted from storage |", "|---|---|---|---|---|"]
    before = after = removed = 0
    with explained_errors():
        for table in filter(the_lake.exists, TABLES):
            done = the_lake.maintain(table, retention)
            lines.append(
                f"| {table.name} | {done.rows:,} | {done.files_before:,} | {done.files_after:,} "
                f"| {done.removed_files:,} |"
            )
            before += done.files_before
            after += done.files_after
            removed += done.removed_files
    context.add_output_metadata(
        {
            "files_before": before,
            "files_after": after,
            "removed_files": removed,
            "tables": dg.MetadataValue.md("\n".join(lines)),
        }
    )


# Appending, as the ingest does, goes on beside it; what replaces days does not.
@dg.job(tags={ONE_AT_A_TIME: "refresh"})
def lake_maintenance() -> None:
    """Small files of the lake together, and unused ones gone."""
    maintain_tables()


nightly_maintenance = dg.ScheduleDefinition(
    job=lake_maintenance,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Maintains the lake's tables at 03:30 UTC, after the report of the day before.",
)
