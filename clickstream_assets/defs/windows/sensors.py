"""The sensors that run the streams, as soon as Kafka has what they have not read, unless `clickstream stream` does.

Then only their checks are run, at intervals: a process materializes, but it is Dagster that checks.
"""

import time

import dagster as dg

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.defs.jobs import WAITING_RECORDS, stream, stream_checks
from clickstream_assets.defs.resources import KafkaResource
from clickstream_assets.defs.runs import under_way, wait_after_failures
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import ElasticsearchError
from clickstream_assets.stores.kafka.consumer import TopicNotFoundError
from clickstream_assets.streaming.lake_copies import are_copied
from clickstream_assets.streaming.live_events import lost_since
from clickstream_assets.streaming.owner import always_on, owner
from clickstream_assets.streaming.progress import Progress, is_idle, progress_of
from clickstream_assets.streaming.query import lake_of


@dg.sensor(
    job=stream,
    minimum_interval_seconds=load_settings().stream_sensor_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of the streams when the topics have records that they have not read, and nobody runs "
    "them.",
)
def new_stream_records(context: dg.SensorEvaluationContext, kafka: KafkaResource) -> dg.SensorResult:
    """Compare the topics' ends with how far the stream's tables have come.

    A run is also asked for where records come no more, to close the windows that are over by the clock, and where the
    lake or Elasticsearch has less than the streams have put there.

    Keeps no cursor: PostgreSQL knows what has been counted. A server that does not answer is an error of the
    tick, and red in the UI.
    """
    settings = load_settings()
    if run_id := under_way(context.instance, stream.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if wait := wait_after_failures(context.instance, stream.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    if holder := owner(settings):
        return dg.SensorResult(skip_reason=f"the streams are run by {holder}")
    if process := always_on(settings):
        return dg.SensorResult(skip_reason=f"the streams are left to {process}, which waits for its turn")
    try:
        available = kafka.get().offsets()
    except TopicNotFoundError as error:
        return dg.SensorResult(skip_reason=str(error))
    progress = progress_of(settings)
    read = progress.offsets if progress else {}
    waiting = sum(max(0, o.high - max(read.get(p, o.low), o.low)) for p, o in available.items())
    if not waiting and not is_idle(settings) and not _is_put_back(settings, progress):
        return dg.SensorResult(skip_reason="no new records")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={WAITING_RECORDS: str(waiting)})])


def _is_put_back(settings: Settings, progress: Progress | None) -> bool:
    """Return whether the lake's copies or the live events are of an earlier time than the stream."""
    if progress and progress.has_begun and not are_copied(lake_of(settings), progress):
        return True
    try:
        return lost_since(settings) is not None
    except ElasticsearchError:
        # The windows do without it; the run that finds it back finds out.
        return False


@dg.sensor(
    job=stream_checks,
    minimum_interval_seconds=load_settings().stream_check_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of the checks of windows and alerts while `clickstream stream` runs.",
)
def unchecked_streams(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Ask for the checks, unless the streams are run by Dagster, whose runs check what they did."""
    settings = load_settings()
    if owner(settings) is None:
        return dg.SensorResult(
            skip_reason="`clickstream stream` does not run; runs of `stream` check what they did"
        )
    for job in (stream, stream_checks):
        if run_id := under_way(context.instance, job.name):
            return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if progress_of(settings) is None:
        return dg.SensorResult(skip_reason="the streams have not begun")
    if context.instance.get_latest_materialization_event(dg.AssetKey(EVENTS.name)) is None:
        # The first run of all should not share the machine with one that has nothing to compare.
        return dg.SensorResult(skip_reason="there are no events to compare them with")
    return dg.SensorResult(run_requests=[dg.RunRequest()])
