"""The sensor that looks at the results of experiments when there is something new to see."""

from __future__ import annotations

import math
import time

import dagster as dg

from clickstream_assets.catalogue import EXPERIMENT_RESULTS, RAW_EXPOSURES
from clickstream_assets.defs.experiments.assets import MADE_FROM, RESULTS_VERSION, sources
from clickstream_assets.defs.jobs import WAITING_RECORDS, experiments
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.runs import metadata_value, under_way, wait_after_failures
from clickstream_assets.ingest.classification import landed
from clickstream_assets.ingest.exposures import exposures_topic
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.consumer import TopicNotFoundError
from clickstream_assets.stores.kafka.topic import waiting_offsets
from clickstream_assets.stores.lake import Lake


@dg.sensor(
    job=experiments,
    minimum_interval_seconds=math.ceil(load_settings().sensor_interval_seconds),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of experiments when there is something new of them, and the last look is old enough.",
)
def new_exposures(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
    """Compare what results were made from with what there is, and the topic of exposures with the lake.

    Keeps no cursor: a request too many finds the same results.
    """
    settings = load_settings()
    if settings.experiments is None:
        return dg.SensorResult(skip_reason="EXPERIMENTS is not set: there are no experiments")
    if run_id := under_way(context.instance, experiments.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if wait := wait_after_failures(context.instance, experiments.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    made, published = (
        context.instance.get_latest_materialization_event(dg.AssetKey(name))
        for name in (EXPERIMENT_RESULTS.name, "published_experiments")
    )
    there = lake.get()
    if made and there.version(EXPERIMENT_RESULTS) != metadata_value(published, RESULTS_VERSION):
        # A run was killed, or PostgreSQL away, before they were published.
        return dg.SensorResult(run_requests=[dg.RunRequest()])
    age = math.inf if made is None else time.time() - made.timestamp
    wait = 60 * settings.experiment_results_minutes - age
    if wait > 0:
        return dg.SensorResult(skip_reason=f"the last look was a moment ago; the next is in {wait:.0f} s")
    try:
        waiting = _waiting(settings, there)
    except TopicNotFoundError as error:
        return dg.SensorResult(skip_reason=str(error))
    if not waiting and metadata_value(made, MADE_FROM) == sources(settings, there):
        return dg.SensorResult(skip_reason="the results are of all that there is")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={WAITING_RECORDS: str(waiting)})])


def _waiting(settings: Settings, lake: Lake) -> int:
    """Return how many offsets the topic has that the lake has not."""
    topic = exposures_topic(settings)
    if topic is None:
        return 0
    available = topic.offsets()
    return waiting_offsets(landed(lake, available, RAW_EXPOSURES), available, settings.allow_data_loss)
