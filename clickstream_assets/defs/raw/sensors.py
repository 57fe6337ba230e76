"""The sensor that starts ingest: as soon as Kafka has what the lake has not, one run at a time."""

import json
import math
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import dagster as dg

from clickstream_assets.catalogue import EVENTS, REJECTED_COUNTS, Table
from clickstream_assets.defs.jobs import WAITING_RECORDS, ingest
from clickstream_assets.defs.resources import KafkaResource, LakeResource
from clickstream_assets.defs.runs import (
    blocking_checks,
    look_until_due,
    metadata_value,
    under_way,
    wait_after_failures,
)
from clickstream_assets.defs.scope import SETTINGS
from clickstream_assets.ingest.classification import Ingested, ingested
from clickstream_assets.ingest.money import settings_of_money
from clickstream_assets.ingest.reach import settings_of_days
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.consumer import TopicNotFoundError
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import waiting_offsets


@dg.sensor(
    job=ingest,
    minimum_interval_seconds=math.ceil(load_settings().sensor_interval_seconds),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts an ingest run when the topics have records that the lake has not, or days are to be computed "
    "by other settings.",
)
def new_records(
    context: dg.SensorEvaluationContext, kafka: KafkaResource, lake: LakeResource
) -> dg.SensorResult:
    """Compare the topics' ends with the lake, raw_events with events, and these with what was reported and counted.

    And the settings that days are computed by, exchange rates among them, with those that were reported.

    Keeps no cursor: the lake knows what has been ingested, also after it was put back to an earlier time, so nothing
    here can be lost, and a request too many finds nothing to do. A broker that does not answer, or a lake that cannot
    be read, is an error of the tick, and red in the UI.
    """

    # A look is too often to read a large table's log: the lake changes with what runs report, and between evaluations.
    @lru_cache(maxsize=1)
    def held(_report: int | None, partitions: frozenset[TopicPartition]) -> Ingested:
        return ingested(lake.get(), partitions)

    return look_until_due(lambda: _look(context, kafka, held))


def _look(
    context: dg.SensorEvaluationContext,
    kafka: KafkaResource,
    held: Callable[[int | None, frozenset[TopicPartition]], Ingested],
) -> dg.SensorResult:
    if run_id := under_way(context.instance, ingest.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if wait := wait_after_failures(context.instance, ingest.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    events = dg.AssetKey(EVENTS.name)
    reported = next(iter(context.instance.fetch_materializations(events, limit=1).records), None)
    try:
        available = kafka.get().offsets()
    except TopicNotFoundError as error:
        if error.others_are_there:
            raise
        return dg.SensorResult(skip_reason=str(error))
    there = held(reported and reported.storage_id, frozenset(available))
    settings = load_settings()
    waiting = waiting_offsets(there.offsets, available, settings.allow_data_loss)
    unclassified = there.landed != there.classified
    # A run was killed before its report, or the lake or Dagster's database is of another time than the other.
    unreported = there.classified != (metadata_value(reported and reported.event_log_entry, "batch") or 0)
    # A run was killed before its checks. One whose checks failed is for a person to look at.
    checks = blocking_checks(context, events, reported.storage_id).values() if reported else ()
    # A run was killed before its last step. None of which a check failed comes to that.
    uncounted = reported and False not in checks and _is_older(context.instance, REJECTED_COUNTS, reported)
    tags = {WAITING_RECORDS: str(waiting)}
    if waiting or unclassified or unreported or None in checks or uncounted:
        return dg.SensorResult(run_requests=[dg.RunRequest(tags=tags)])
    made_by = metadata_value(reported and reported.event_log_entry, SETTINGS)
    now = settings_of_days(settings) | settings_of_money(settings)
    if made_by in (None, now):
        return dg.SensorResult(skip_reason="no new records")
    # Dagster takes a key once, so a run whose machine has another file of rates than this one is not asked for again.
    key = blake2b(json.dumps([made_by, now], sort_keys=True).encode(), digest_size=16).hexdigest()
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"settings {key}", tags=tags)])


def _is_older(instance: dg.DagsterInstance, table: Table, than: dg.EventLogRecord) -> bool:
    """Return whether the asset of a table was last materialized before that, or never."""
    newest = instance.fetch_materializations(dg.AssetKey(table.name), limit=1).records
    return not newest or newest[0].storage_id < than.storage_id
