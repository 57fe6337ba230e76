"""The sensor that measures the batch side for `GET /metrics` and `GET /api/data`: the API reads PostgreSQL alone.

It asks for the state as it is, and no event starts it: what happened while the daemon was down, or how a run ended
whose process was gone, is in the next measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.catalogue.metrics import (
    CHECK_FAILING,
    CHECKED,
    INGEST_LAG,
    INGEST_RECORDS,
    INGESTED_EVENT,
    JOB_FAILURE,
    JOB_SUCCESS,
)
from clickstream_assets.defs.dagster_private import last_evaluation, last_evaluations
from clickstream_assets.defs.incidents.keeping import kept
from clickstream_assets.defs.resources import KafkaResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.ingest.classification import CLASSIFIED_TABLES
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.partition import from_json
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.postgres.measurements import (
    AGREEMENT,
    DAGSTER,
    KAFKA,
    Agreement,
    Problem,
    Sample,
    State,
    write_measurements,
)
from clickstream_assets.streaming.reconciliation import Reason

EVERY_SECONDS = 15
NEWEST_EVENT = "newest_event"
"""Metadata of `events`: the time of its newest event."""
_JOB_ENDS = {JOB_SUCCESS: DagsterRunStatus.SUCCESS, JOB_FAILURE: DagsterRunStatus.FAILURE}


@dg.sensor(
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Measures ingest, jobs and checks, for the API's GET /metrics and GET /api/data. Starts no runs.",
)
def measurements(context: dg.SensorEvaluationContext, kafka: KafkaResource) -> dg.SkipReason:
    """Measure what each source says. One that does not answer keeps what it said last, and its age shows."""
    if context.repository_def is None:
        raise dg.DagsterInvariantViolationError("the sensor needs its code location")
    repository, settings = context.repository_def, load_settings()
    jobs = [job.name for job in repository.get_all_jobs()]
    checks = repository.asset_graph.asset_check_keys
    sources: dict[str, tuple[Callable[[], Iterable[Sample]], Callable[[], State | None]]] = {
        DAGSTER: (
            lambda: measure_dagster(context.instance, jobs, checks),
            lambda: state_of_dagster(context.instance, jobs, repository.asset_graph),
        ),
        KAFKA: (lambda: measure_kafka(context.instance, kafka.get()), lambda: None),
    }
    said = []
    for source, (measure, state) in sources.items():
        try:
            write_measurements(settings, source, measure(), state())
        except TopicError as error:
            # The sensor of ingest is the one that fails of it.
            said.append(f"{source} was not measured: {error}")
    return dg.SkipReason("; ".join(said) or "measured")


def measure_dagster(
    instance: DagsterInstance, jobs: Iterable[str], checks: Iterable[dg.AssetCheckKey]
) -> Iterator[Sample]:
    """Measure what runs did and reported: how jobs ended, what checks found, and what was ingested."""
    for job in sorted(jobs):
        for metric, status in _JOB_ENDS.items():
            ended = instance.get_run_records(RunsFilter(job_name=job, statuses=[status]), limit=1)
            yield Sample(metric, (job,), (ended[0].end_time or 0) if ended else 0)
    for evaluation, timestamp in last_evaluations(instance, checks):
        labels = (evaluation.asset_key.to_user_string(), evaluation.check_name)
        severity = evaluation.severity.value.lower()
        yield Sample(CHECK_FAILING, (*labels, severity), 0 if evaluation.passed else 1)
        yield Sample(CHECKED, labels, timestamp)
    for table in (RAW_EVENTS, *CLASSIFIED_TABLES):
        reported = instance.get_latest_materialization_event(dg.AssetKey(table.name))
        rows = metadata_value(reported, "dagster/row_count")
        if rows is not None:
            yield Sample(INGEST_RECORDS, (table.name,), rows)
        newest = metadata_value(reported, NEWEST_EVENT) if table is EVENTS else None
        # In 1970, where there is no event.
        if newest:
            yield Sample(INGESTED_EVENT, (), newest)


def state_of_dagster(instance: DagsterInstance, jobs: Iterable[str], graph: Any) -> State:
    """Return what figures cannot say: when assets were made, which runs failed, and what is wrong by name.

    Args:
        instance: has the assets' records, the runs and the record of incidents.
        jobs: names of the jobs.
        graph: the assets and their checks.
    """
    made = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization
        for record in instance.get_asset_records(list(graph.materializable_asset_keys))
    }
    updated = {key: event.timestamp for key, event in made.items() if event}
    failed = {
        job: instance.get_run_ids(RunsFilter(job_name=job, statuses=[DagsterRunStatus.FAILURE]), limit=1)
        for job in sorted(jobs)
    }
    asset, check = AGREEMENT
    compared = last_evaluation(instance, dg.AssetCheckKey(dg.AssetKey(asset), check))
    return State(
        updated={key.to_user_string(): at for key, at in updated.items()},
        groups={key.to_user_string(): graph.get(key).group_name for key in updated},
        failed_runs={job: ids[0] for job, ids in failed.items() if ids},
        problems=[
            Problem(
                kind=incident.problem.kind,
                subject=incident.problem.subject,
                severity=incident.problem.severity,
                summary=incident.problem.summary,
                since=incident.since,
                page=incident.problem.path,
            )
            for incident in kept(instance).open()
        ],
        agreement=_agreement(compared) if compared else None,
    )


def _agreement(found: dg.AssetCheckEvaluation) -> Agreement:
    said: dict[str, Any] = {name: value.value for name, value in found.metadata.items()}
    return Agreement(
        passed=found.passed,
        said=found.description,
        compared=said.get("compared"),
        differences={
            reason.name.lower(): said[reason.name.lower()] for reason in Reason if reason.name.lower() in said
        },
    )


def measure_kafka(instance: DagsterInstance, topics: Topics) -> Iterator[Sample]:
    """Measure by how many records ingest is behind each partition.

    Raises:
        TopicError: Kafka does not answer, or a topic is not there.
    """
    landed = instance.get_latest_materialization_event(dg.AssetKey(RAW_EVENTS.name))
    ingested = from_json(metadata_value(landed, "offsets") or {})
    for partition, offsets in topics.offsets().items():
        behind = offsets.high - max(ingested.get(partition, offsets.low), offsets.low)
        yield Sample(INGEST_LAG, (partition.topic, str(partition.partition)), max(0, behind))
