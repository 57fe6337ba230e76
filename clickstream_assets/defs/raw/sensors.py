"""The sensor that starts ingest: as soon as Kafka has what the lake has not, one run at a time."""

import math
import time
from collections.abc import Mapping

import dagster as dg

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.defs.jobs import ingest
from clickstream_assets.defs.resources import KafkaResource
from clickstream_assets.defs.runs import (
    blocking_checks,
    look_until_due,
    metadata_value,
    under_way,
    wait_after_failures,
)
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.topic import Offsets, TopicNotFoundError


@dg.sensor(
    job=ingest,
    minimum_interval_seconds=math.ceil(load_settings().sensor_interval_seconds),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts an ingest run when the topic has records that raw_events does not report.",
)
def new_records(context: dg.SensorEvaluationContext, kafka: KafkaResource) -> dg.SensorResult:
    """Compare the topic's end with what raw_events last reported, raw_events with events, events with its checks.

    Keeps no cursor: the lake knows what has been ingested, so nothing here can be lost, and a request too many finds
    nothing to do. A broker that does not answer is an error of the tick, and red in the UI.
    """
    return look_until_due(lambda: _look(context, kafka))


def _look(context: dg.SensorEvaluationContext, kafka: KafkaResource) -> dg.SensorResult:
    if run_id := under_way(context.instance, ingest.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if wait := wait_after_failures(context.instance, ingest.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    landed = context.instance.get_latest_materialization_event(dg.AssetKey(RAW_EVENTS.name))
    events = dg.AssetKey(EVENTS.name)
    classified = next(iter(context.instance.fetch_materializations(events, limit=1).records), None)
    topic = kafka.get()
    same_topic = metadata_value(landed, "topic") == topic.name
    ingested = metadata_value(landed, "offsets") if same_topic else {}
    try:
        available = topic.offsets()
    except TopicNotFoundError as error:
        return dg.SensorResult(skip_reason=str(error))
    waiting = _waiting(available, ingested, load_settings().allow_data_loss)
    newest = metadata_value(classified and classified.event_log_entry, "batch")
    unclassified = metadata_value(landed, "batch") != newest
    # A run was killed before its checks. One whose checks failed is for a person to look at.
    unchecked = classified and None in blocking_checks(context, events, classified.storage_id).values()
    if not waiting and not unclassified and not unchecked:
        return dg.SensorResult(skip_reason="no new records")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={"clickstream/waiting_records": str(waiting)})])


def _waiting(available: Mapping[int, Offsets], ingested: Mapping[str, int], allow_data_loss: bool) -> int:
    """Return by how many offsets the topic and what was ingested of it differ.

    Records that were lost count too, and a topic that ends too early: the run fails and says what happened. Where
    losses are allowed they do not, as no run could ever bring them in.
    """
    waiting = 0
    for partition, offsets in available.items():
        start = ingested.get(str(partition), offsets.low)
        waiting += abs(offsets.high - (max(start, offsets.low) if allow_data_loss else start))
    return waiting
