"""Stores that were put back to an earlier time, as from a backup: each is caught up with the others.

Every asset reports what its store said of it: the version of a table in the lake, the stamp of a publication in
PostgreSQL. A store that says another thing later is not the one that was reported. What the sensors `new_records` and
`new_stream_records` compare is found by them; this is the rest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import dagster as dg
from dagster import DagsterInstance

from clickstream_assets.catalogue import EVENTS, FLASH_SALE_ALERTS, PRODUCT_WINDOWS, TABLES, Table
from clickstream_assets.defs.assets import LAKE_VERSION
from clickstream_assets.defs.dagster_private import FIRST_PARTITION_TAG, LAST_PARTITION_TAG
from clickstream_assets.defs.jobs import experiments, ingest, refresh, train
from clickstream_assets.defs.partitions import daily
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.runs import metadata_value, under_way, wait_after_failures
from clickstream_assets.defs.scope import PUT_BACK_AT
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.publishing import read_stamps

PUBLICATIONS = {
    "published_days": refresh,
    "published_shoppers": refresh,
    "published_products": refresh,
    "product_recommendations": train,
    "published_next_product": train,
    "published_predictions": train,
    "published_experiments": experiments,
    "rejected_counts": ingest,
}
"""The assets that publish to PostgreSQL, and the job that each is part of."""
STAMP = "publication"
"""Metadata of PUBLICATIONS: the stamp that PostgreSQL has of the last one."""
# The stream keeps its tables in PostgreSQL, and brings the lake's copies up to date by itself.
_COMPARED = [table for table in TABLES.values() if table not in (PRODUCT_WINDOWS, FLASH_SALE_ALERTS)]


def reported_stamp(instance: DagsterInstance, asset: str) -> str | None:
    """Return the stamp of an asset's last publication that was reported; None before the first."""
    return metadata_value(instance.get_latest_materialization_event(dg.AssetKey(asset)), STAMP)


def older_tables(instance: DagsterInstance, lake: Lake) -> list[str]:
    """Return the tables of which the lake has an earlier version than was last reported.

    Reports from before the lake was last found to be put back are of no account: what `events` reported then has all
    tables computed again.

    Raises:
        LakeError: the lake cannot be read.
    """
    reports = {
        record.asset_entry.asset_key.path[-1]: record.asset_entry.last_materialization
        for record in instance.get_asset_records([dg.AssetKey(table.name) for table in _COMPARED])
    }
    put_back_at = metadata_value(reports.get(EVENTS.name), PUT_BACK_AT) or 0
    return [table.name for table in _COMPARED if _is_older(lake, table, reports, put_back_at)]


def _is_older(
    lake: Lake, table: Table, reports: Mapping[str, dg.EventLogEntry | None], put_back_at: float
) -> bool:
    report = reports.get(table.name)
    version = metadata_value(report, LAKE_VERSION)
    if report is None or version is None or report.timestamp < put_back_at:
        return False
    return lake.version(table) < version


def _unpublished(instance: DagsterInstance) -> list[str]:
    """Return the assets of PUBLICATIONS that PostgreSQL does not have as they were last reported."""
    settings = load_settings()
    with explained(settings), connect(settings) as connection:
        there = read_stamps(connection)
    reported = {asset: reported_stamp(instance, asset) for asset in PUBLICATIONS}
    return [asset for asset in PUBLICATIONS if reported[asset] and reported[asset] != there.get(asset)]


def _publish(job: dg.UnresolvedAssetJobDefinition, unpublished: Collection[str]) -> dg.RunRequest | None:
    """Ask for a run of those assets that are part of a job; None if none is."""
    assets = [dg.AssetKey(asset) for asset in unpublished if PUBLICATIONS[asset] is job]
    day = str(daily().get_last_partition_key())
    tags = {FIRST_PARTITION_TAG: day, LAST_PARTITION_TAG: day} if job is refresh else {}
    return dg.RunRequest(job_name=job.name, asset_selection=assets, tags=tags) if assets else None


@dg.sensor(
    jobs=[ingest, refresh, train, experiments],
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the lake or PostgreSQL caught up, if one was put back to an earlier time.",
)
def stores_put_back(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
    """Compare the lake's tables and PostgreSQL's publications with what was reported of them.

    An older lake is a matter of `ingest`, which has all days computed again; an older database of the assets that
    publish, all days included.
    """
    for job in (ingest, refresh):
        if run_id := under_way(context.instance, job.name):
            return dg.SensorResult(skip_reason=f"run {run_id} is under way")
        if wait := wait_after_failures(context.instance, job.name, time.time()):
            return dg.SensorResult(
                skip_reason=f"the last run of {job.name} failed; trying again in {wait:.0f} s"
            )
    if older := older_tables(context.instance, lake.get()):
        context.log.warning(f"LAKE_PATH is of an earlier time than was reported: {', '.join(older)}")
        return dg.SensorResult(run_requests=[dg.RunRequest(job_name=ingest.name)])
    if unpublished := _unpublished(context.instance):
        context.log.warning(f"POSTGRES_DB is of an earlier time than was reported: {', '.join(unpublished)}")
        # A training publishes by itself, and may take long, or fail: the others do not wait for it.
        is_busy = under_way(context.instance, train.name) or wait_after_failures(
            context.instance, train.name, time.time()
        )
        jobs = (ingest, refresh, experiments) if is_busy else (ingest, refresh, experiments, train)
        requests = (_publish(job, unpublished) for job in jobs)
        return dg.SensorResult(run_requests=list(filter(None, requests)))
    return dg.SensorResult(skip_reason="lake and PostgreSQL are as they were reported")
