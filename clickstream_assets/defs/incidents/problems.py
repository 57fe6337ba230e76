"""Problems that there are now: failed runs, checks, sensors and schedules, overdue assets, standing streams.

Each look asks for the state as it is, and not for what has happened since the last one: a look that is missed, or an
event that is lost, leaves nothing unseen that is still wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.dagster_pages import asset_page, check_page, run_page
from clickstream_assets.defs.dagster_private import (
    ASSET_JOB,
    OVERDUE,
    UNFINISHED,
    WILL_RETRY_TAG,
    ErrorInfo,
    freshness_seconds,
    freshness_states,
    last_evaluation,
    newest_ticks,
    planned_or_evaluated,
)
from clickstream_assets.defs.incidents.record import Problem, Severity
from clickstream_assets.defs.jobs import experiments, ingest, refresh, stream, train
from clickstream_assets.defs.runs import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    end_of,
    failures_in_a_row,
    metadata_value,
    under_way,
)
from clickstream_assets.defs.scope import DIRTY_DAYS
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.silences import Kind
from clickstream_assets.stores.kafka.partition import TopicPartition, from_json
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.streaming.outages import standing_still
from clickstream_assets.streaming.owner import always_on
from clickstream_assets.streaming.progress import progress_of

RUN_AGAIN = {ingest.name, refresh.name, stream.name, train.name, experiments.name}
"""Jobs that their sensors ask for again after a failure."""
RETRY_SECONDS = 6 * FIRST_WAIT_SECONDS
"""They have begun again within this time after the first failure."""
REMEMBERED_SECONDS = 24 * 3600
"""A failed run that a person started is a problem for so long: no later run is known to make up for it."""
_RUNS_BY_HAND_READ = 100
_NAMES_SHOWN = 3
_REPORTS_READ = 500
_EVENTS, _RAW_EVENTS = dg.AssetKey(EVENTS.name), dg.AssetKey(RAW_EVENTS.name)
_OURS = "clickstream_assets."
_FAILURE = "dagster._core.definitions.events.Failure: "
_log = logging.getLogger(__name__)


class Look(NamedTuple):
    """Sources that are asked for problems: Dagster, the code location and the settings."""

    instance: dg.DagsterInstance
    repository: dg.RepositoryDefinition
    settings: Settings
    own_name: str
    """The sensor that looks."""

    @property
    def graph(self) -> Any:
        """The code location's assets and checks."""
        return self.repository.asset_graph


def find_problems(look: Look) -> tuple[list[Problem], dict[Kind, Exception]]:
    """Return all that is wrong now, and the kinds that could not be looked for, with the error."""
    finders: dict[Kind, Callable[[Look], Iterator[Problem]]] = {
        Kind.RUN_FAILED: _failed_runs,
        Kind.CHECK_FAILED: _failed_checks,
        Kind.SENSOR_FAILED: _failed_sensors,
        Kind.ASSET_OVERDUE: _overdue_assets,
        Kind.STREAM_DOWN: _streams_down,
    }
    problems: list[Problem] = []
    unknown: dict[Kind, Exception] = {}
    for kind, find in finders.items():
        try:
            problems += find(look)
        except Exception as error:
            # People are notified of the others all the same; the sensor fails with it afterwards.
            _log.exception("incidents of kind %s were not looked for", kind)
            unknown[kind] = error
    return problems, unknown


def _failed_runs(look: Look) -> Iterator[Problem]:
    for job in look.repository.job_names:
        yield from _runs_by_hand(look) if job == ASSET_JOB else _failed_job(look, job)


def _failed_job(look: Look, job: str) -> Iterator[Problem]:
    """Find whether a job's last run failed: for good, and not only until its sensor asks for it again."""
    failed = failures_in_a_row(look.instance, job)
    if not failed or (job == stream.name and _has_process(look.settings)):
        return
    failures, newest = len(failed), failed[0]
    waits = job in RUN_AGAIN and time.time() - end_of(newest) < RETRY_SECONDS
    is_retried = newest.dagster_run.tags.get(WILL_RETRY_TAG) == "true" or (
        failures == 1 and (waits or under_way(look.instance, job) is not None)
    )
    run_id = newest.dagster_run.run_id
    yield Problem(
        kind=Kind.RUN_FAILED,
        subject=job,
        summary=f"job {job} failed" + (f" {failures} times in a row" if failures > 1 else ""),
        reason=_reason_of_run(look.instance, run_id),
        advice=f"It is run again by itself, at most {LONGEST_WAIT_SECONDS // 60} minutes apart."
        if job in RUN_AGAIN
        else "It is not run again before its next time, unless you do it from its page.",
        path=run_page(run_id),
        since=end_of(failed[-1]),
        is_settled=not is_retried,
    )


def _has_process(settings: Settings) -> bool:
    """Return whether a process runs the streams, or waits for its turn.

    No run of `stream` is asked for then, so none would end the incident of one that failed before; how the streams
    are doing is a matter of `stream_down`.
    """
    try:
        return always_on(settings) is not None
    except ClickstreamError:
        # The database that would know is away, which is an incident of its own.
        return False


def _runs_by_hand(look: Look) -> Iterator[Problem]:
    """Find failed runs of assets that a person chose, such as a backfill."""
    failed = RunsFilter(job_name=ASSET_JOB, statuses=[DagsterRunStatus.FAILURE])
    for record in look.instance.get_run_records(failed, limit=_RUNS_BY_HAND_READ):
        run, end = record.dagster_run, end_of(record)
        if time.time() - end > REMEMBERED_SECONDS or run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        assets = sorted(key.to_user_string() for key in run.asset_selection or ())
        more = len(assets) - _NAMES_SHOWN
        names = " ".join(assets[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        yield Problem(
            kind=Kind.RUN_FAILED,
            subject=f"{names or 'checks'} {run.run_id[:8]}",
            summary=f"run of {names or 'checks'} failed",
            reason=_reason_of_run(look.instance, run.run_id),
            advice="It was started by a person, or by a backfill, and is not run again by itself.",
            path=run_page(run.run_id),
            since=end,
            has_end=False,
        )


def _reason_of_run(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the sentence of the first step that failed, or, without one, of the run."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event and event.step_failure_data.error:
            return f"{event.step_key}: {sentence(event.step_failure_data.error)}"
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE):
        event = entry.dagster_event
        if event:
            error = event.job_failure_data.error if event.event_specific_data else None
            return sentence(error) if error else event.message or ""
    return "its log says why"


def sentence(error: ErrorInfo) -> str:
    """Return what an error says: the sentence of ours in its chain, if there is one, else the cause of all."""
    chain = [error]
    while chain[-1].cause:
        chain.append(chain[-1].cause)
    for link in chain:
        for prefix in (_OURS, _FAILURE):
            if link.message.startswith(prefix):
                return link.message.partition(": ")[2].strip()
    return chain[-1].message.strip()


def _failed_checks(look: Look) -> Iterator[Problem]:
    records = planned_or_evaluated(look.instance, list(look.graph.asset_check_keys))
    active = {run.run_id for run in look.instance.get_runs(RunsFilter(statuses=UNFINISHED))}
    for key, (run_id, evaluation) in records.items():
        # Planned and not carried out yet, or, if its run is over, left out: its last evaluation holds.
        found = evaluation or last_evaluation(look.instance, key)
        if found is None or found.passed:
            continue
        asset = key.asset_key.to_user_string()
        is_blocking = look.graph.get(key).blocking
        yield Problem(
            kind=Kind.CHECK_FAILED,
            subject=f"{asset}/{key.name}",
            severity=Severity.ERROR if found.severity == dg.AssetCheckSeverity.ERROR else Severity.WARNING,
            summary=f"check {key.name} of {asset} does not pass",
            reason=_reason_of_check(found, look.graph.get(key).description),
            advice="What depends on it is not brought up to date in the same run." if is_blocking else "",
            path=check_page(asset, key.name),
            is_settled=evaluation is not None or run_id not in active,
        )


def _reason_of_check(evaluation: dg.AssetCheckEvaluation, meaning: str | None) -> str:
    """Return what the check says, or else what it is for, and the figures that it found."""
    first = ["expected", "actual"]
    shown = [
        f"{name.replace('_', ' ')}: {evaluation.metadata[name].value}"
        for name in [*first, *sorted(evaluation.metadata.keys() - set(first))]
        # Not tables and plots.
        if name in evaluation.metadata and isinstance(evaluation.metadata[name].value, int | float | list)
    ]
    sentences = [evaluation.description or " ".join((meaning or "").split()), "; ".join(shown)]
    return "\n".join(filter(None, sentences))


def _failed_sensors(look: Look) -> Iterator[Problem]:
    names = {sensor.name: "sensor" for sensor in look.repository.sensor_defs}
    names |= {schedule.name: "schedule" for schedule in look.repository.schedule_defs}
    names.pop(look.own_name, None)
    for name, tick, location in newest_ticks(look.instance, look.repository.name, names):
        if tick.error is None:
            continue
        kind = names[name]
        yield Problem(
            kind=Kind.SENSOR_FAILED,
            subject=name,
            summary=f"{kind} {name} fails",
            reason=sentence(tick.error),
            advice="What it starts is not started until then.",
            path=f"/locations/{location}/{kind}s/{name}",
        )


def _overdue_assets(look: Look) -> Iterator[Problem]:
    """Find assets that something new has waited for longer than their policy allows.

    Dagster's own state counts from the last time that an asset was made: after a quiet night it says of each, at the
    first event, that it is overdue.
    """
    keys = list(look.graph.materializable_asset_keys)
    for key, state in freshness_states(look.instance, keys).items():
        policy = look.graph.get(key).freshness_policy
        newest = look.instance.get_latest_materialization_event(key)
        if state.freshness_state != OVERDUE or policy is None or newest is None:
            continue
        try:
            since = _waiting_since(look, key, newest)
        except ClickstreamError:
            # Not known while Kafka is away, which is an incident of its own.
            since, is_known = newest.timestamp, False
        else:
            is_known = True
        if since is None or time.time() - since < freshness_seconds(policy):
            continue
        asset = key.to_user_string()
        yield Problem(
            kind=Kind.ASSET_OVERDUE,
            subject=asset,
            summary=f"asset {asset} is overdue",
            reason=f"It was last brought up to date at {_minute(newest.timestamp)}, and there has been something new "
            f"for it since {_minute(since)}: longer than its freshness policy allows",
            advice="See whether its job runs, and whether its sensor or schedule is on.",
            path=asset_page(asset),
            since=since,
            is_settled=is_known,
        )


def _waiting_since(look: Look, key: dg.AssetKey, newest: dg.EventLogEntry) -> float | None:
    """Return since when there is something that an asset was not made from, seconds since 1970; None where nothing is.

    Raises:
        ClickstreamError: what the topic or the stream has cannot be asked.
    """
    waiting = [_news_of(look, key, parent, newest) for parent in look.graph.get(key).parent_keys - {key}]
    return min((since for since in waiting if since is not None), default=None)


def _news_of(look: Look, key: dg.AssetKey, parent: dg.AssetKey, newest: dg.EventLogEntry) -> float | None:
    if not look.graph.get(parent).is_materializable:
        first = Topics(look.settings).first_time(_read_up_to(look, key, newest))
        return first.timestamp() if first else None
    since = dg.AssetRecordsFilter(asset_key=parent, after_timestamp=newest.timestamp)
    reports = look.instance.fetch_materializations(since, limit=_REPORTS_READ, ascending=True).records
    times = (
        report.timestamp
        for report in reports
        # Records that repeat others, or are rejected, make no day dirty.
        if parent != _EVENTS or metadata_value(report.event_log_entry, DIRTY_DAYS)
    )
    return next(times, None)


def _read_up_to(look: Look, key: dg.AssetKey, newest: dg.EventLogEntry) -> Mapping[TopicPartition, int]:
    """Return the offsets up to which an asset straight from Kafka has read, by partition."""
    if key == _RAW_EVENTS:
        return from_json(metadata_value(newest, "offsets") or {})
    progress = progress_of(look.settings)
    return progress.offsets if progress else {}


def _minute(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(seconds))} UTC"


def _streams_down(look: Look) -> Iterator[Problem]:
    try:
        reasons = standing_still(look.settings)
    except ClickstreamError as error:
        reasons = {"product_windows": f"its state cannot be read: {error}"}
    for query, reason in reasons.items():
        yield Problem(
            kind=Kind.STREAM_DOWN,
            subject=query,
            summary=f"stream {query} stands still",
            reason=reason,
            advice="It goes on by itself once that is mended; nothing is lost as long as Kafka keeps the records.",
            path=asset_page(query),
        )
