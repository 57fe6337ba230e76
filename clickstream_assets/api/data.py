"""`GET /api/data` and `/api/records`: how far ingest and streams are, what became of records, and what is wrong.

Nothing is counted when it is asked for. Days are served sums; the rest is what Dagster's side measured last, and what
the streams and publications noted of themselves, each with its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from apiflask import APIBlueprint, Schema, fields
from flask import current_app

from clickstream_assets.api import queries, shop
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime
from clickstream_assets.api.listing import listing
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import EVENTS, RECORD_DAYS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.catalogue.metrics import (
    CHECK_FAILING,
    CHECKED,
    INGEST_LAG,
    INGESTED_EVENT,
    JOB_FAILURE,
    JOB_SUCCESS,
    Metric,
)
from clickstream_assets.dagster_pages import asset_page, check_page, run_page
from clickstream_assets.keys import Scope
from clickstream_assets.silences import Kind
from clickstream_assets.stores.postgres.measurements import (
    AGREEMENT,
    DAGSTER,
    KAFKA,
    Measured,
    read_measurements,
)

blueprint = APIBlueprint("data", __name__, url_prefix="/api", tag="Data")

EXTENSION = "clickstream_dagster_url"
DAYS = 14
CHECK_OVERDUE = timedelta(days=1)
"""A check is overdue if it was not carried out for so long although its table has changed since."""
# The column of a day's counts by the outcome.
_OUTCOMES = {
    "event": "events",
    "duplicate": "duplicates",
    "conflict": "conflicts",
    "rejected": "rejected",
    "late": "late",
    "left_out": "left_out",
    "refused": "refused",
}
_RECEIVED = ("events", "duplicates", "conflicts", "rejected")


def _text(description: str, *, nullable: bool = False) -> fields.String:
    return fields.String(required=True, allow_none=nullable, metadata={"description": description})


def _time(description: str) -> UtcTime:
    return UtcTime(required=True, allow_none=True, metadata={"description": description})


def _number(description: str, *, nullable: bool = False) -> fields.Integer:
    return fields.Integer(required=True, allow_none=nullable, metadata={"description": description})


def _flag(description: str) -> fields.Boolean:
    return fields.Boolean(required=True, metadata={"description": description})


def _list(of: type[Schema], description: str) -> fields.List:
    return fields.List(fields.Nested(of), required=True, metadata={"description": description})


def _link() -> fields.String:
    return _text("Its page in Dagster; null where DAGSTER_URL is not set", nullable=True)


class Waiting(Schema):
    """Records of a partition that wait."""

    topic = _text("The topic")
    partition = _number("The partition")
    records = _number("Records in Kafka that are not in the lake")


class Ingest(Schema):
    """State of the ingest."""

    ingested_at = _time("When events were last ingested; null before the first time")
    newest_event_at = _time("Time of the newest event in the lake, no later than its arrival")
    published_event_at = _time("Time of the newest event in the published sessions")
    waiting_records = _number(
        "Records in Kafka that are not in the lake; null while they were never counted", nullable=True
    )
    waiting_measured_at = _time("When they were last counted")
    waiting = _list(Waiting, "The same, by partition")


class RecordsOfDay(Schema):
    """Records of a day, by what became of them."""

    date = fields.Date(required=True, metadata={"description": "The shop's day of their arrival"})
    received = _number("All records, and items of records, that came: the sum of the next four")
    events = _number("Taken as events")
    duplicates = _number("Repetitions of events")
    conflicts = _number("With the id of another event")
    rejected = _number("No valid events")
    late = _number("Of the events, those that came after the end of the day on which they happened")
    left_out = _number("Fields that could not be read and were left out of events")
    refused = _number("Of the events, those that Elasticsearch did not take")


class DataTable(Schema):
    """An asset, and when it was last made."""

    asset = _text("Its name")
    group = _text("Its group in Dagster")
    updated_at = _time("When it was last made, whether anything in it changed or not")
    is_overdue = _flag("Whether something new has waited for longer than its freshness policy allows")
    url = _link()


class Published(Schema):
    """Publication of an asset to PostgreSQL."""

    asset = _text("The asset that publishes")
    published_at = _time("When it last did")
    url = _link()


class Stream(Schema):
    """A streaming query."""

    query = _text("Its name")
    is_failing = _flag("Whether it was stopped by an error, or did not report in time")
    waiting_records = _number("Records in Kafka that it has not read")
    waiting_measured_at = _time("When they were last counted")
    latency_seconds = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "From the newest event of its last batch to its window in PostgreSQL"},
    )
    records = _number("Records that it has read")
    late_events = _number(
        "Events that came later than WATERMARK_DELAY allows, and are in the batch tables only"
    )
    watermark = _time("Events before this time are late for it")
    last_batch_at = _time("When its last batch was done")
    updated_at = _time("When it last reported")
    url = _link()


class StreamAgainstBatch(Schema):
    """What the check `stream_agrees_with_batch` last found."""

    is_agreed = _flag("Whether they agree, but for what is so by design")
    said = _text("What the check said", nullable=True)
    compared = _number("Closed windows that were compared; null where none could be", nullable=True)
    differences = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={
            "description": "Windows that differ, by the reason: late and repeated are so by design, lost and "
            "unexplained are faults"
        },
    )
    checked_at = _time("When they were compared")
    url = _link()


class Check(Schema):
    """A check, and what it last found."""

    asset = _text("The asset that it is of")
    check = _text("Its name")
    severity = fields.String(
        required=True,
        metadata={"description": "What it means if it fails", "enum": ["error", "warn"]},
    )
    is_failing = _flag("Whether it failed when it was last carried out")
    is_overdue = _flag("Whether it was not carried out for a day although its table was made anew since")
    checked_at = _time("When it was last carried out")
    url = _link()


class Job(Schema):
    """A job, and how its last runs ended."""

    job = _text("Its name")
    is_failing = _flag("Whether its last run that ended has failed")
    succeeded_at = _time("When the last run that succeeded ended; null before the first")
    failed_at = _time("When the last run that failed ended; null before the first")
    failed_run_url = _text(
        "The page in Dagster of the last run that failed; null without one, or where DAGSTER_URL is not set",
        nullable=True,
    )


class DataProblem(Schema):
    """Something that is wrong now, of which people are notified."""

    kind = fields.String(required=True, metadata={"description": "What is wrong", "enum": [*Kind]})
    subject = _text("What it is wrong with")
    severity = fields.String(
        required=True, metadata={"description": "How bad it is", "enum": ["error", "warning"]}
    )
    summary = _text("Both, in a short sentence")
    since = _time("Since when")
    url = _link()


class Source(Schema):
    """Where figures are from."""

    source = fields.String(
        required=True,
        metadata={
            "description": "kafka: ingest's waiting records; dagster: tables, checks, jobs, problems and the newest "
            "event",
            "enum": [KAFKA, DAGSTER],
        },
    )
    measured_at = _time("When Dagster's sensor `measurements` last asked it; every 15 s, while it answers")


class Data(Schema):
    """The answer."""

    asked_at = _time("Now")
    ingest = fields.Nested(Ingest, required=True, metadata={"description": "How far the ingest has come"})
    days = _list(RecordsOfDay, "Of the last 14 days those on which records came, the newest first")
    streams = _list(Stream, "The streaming queries")
    stream_against_batch = fields.Nested(
        StreamAgainstBatch,
        required=True,
        allow_none=True,
        metadata={"description": "How stream and batch agree; null before they were compared"},
    )
    tables = _list(DataTable, "Assets that were made, by group and name")
    published = _list(Published, "What was published to PostgreSQL, by asset")
    checks = _list(Check, "Checks that were carried out: failing ones first, then overdue ones")
    jobs = _list(Job, "Jobs, failing ones first")
    problems = _list(DataProblem, "All that is wrong now, the oldest first")
    sources = _list(Source, "Where figures are from, and how old they are")
    dagster_url = _text("Address of Dagster's pages; null where DAGSTER_URL is not set", nullable=True)


@blueprint.get("/data")
@needs(Scope.READ)
@blueprint.output(Data)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(503))
def show_data() -> dict[str, Any]:
    """Say how the data are: ingest, records by day, streams, tables, checks, jobs, and what is wrong.

    It is what was measured and noted last, each with its time; `GET /metrics` has the same for Prometheus.
    """
    clock = current_app.extensions[shop.EXTENSION]
    assert isinstance(clock, ShopClock)
    now = datetime.now(UTC)
    with database().snapshot() as connection:
        measured = read_measurements(connection)
        status = queries.stream_status(connection)
        published = queries.publications(connection)
        newest_published = queries.newest_published_event(connection)
        days = queries.record_days(connection, clock.today() - timedelta(days=DAYS - 1))
    state = measured.state
    return {
        "asked_at": now,
        "ingest": {
            "ingested_at": _moment(state.updated.get(EVENTS.name)),
            "newest_event_at": _moment(_values(measured, INGESTED_EVENT).get(())),
            "published_event_at": _moment(newest_published),
            **_waiting(measured),
        },
        "days": _days(days),
        "streams": [_stream(row) for row in status.streams],
        "stream_against_batch": _agreement(measured),
        "tables": _tables(measured),
        "published": [{**row, "url": _url(asset_page(row["asset"]))} for row in published],
        "checks": _checks(measured, now),
        "jobs": _jobs(measured),
        "problems": [
            {
                "kind": problem.kind,
                "subject": problem.subject,
                "severity": problem.severity,
                "summary": problem.summary,
                "since": _moment(problem.since),
                "url": _url(problem.page),
            }
            for problem in state.problems
        ],
        "sources": [{"source": name, "measured_at": at} for name, at in sorted(measured.ages.items())],
        "dagster_url": current_app.extensions[EXTENSION],
    }


def _url(page: str | None) -> str | None:
    """Return the whole address of a page in Dagster; None where that has none."""
    server: str | None = current_app.extensions[EXTENSION]
    return server.rstrip("/") + page if server and page else None


def _moment(seconds: float | None) -> datetime | None:
    """Return a time that is counted since 1970; None for 0 too, which stands for never."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _values(measured: Measured, metric: Metric) -> dict[tuple[str, ...], float]:
    """Return a metric's values by their labels."""
    return {sample.labels: sample.value for sample in measured.samples if sample.metric is metric}


def _waiting(measured: Measured) -> dict[str, Any]:
    lag = _values(measured, INGEST_LAG)
    is_measured = KAFKA in measured.ages
    return {
        "waiting_records": sum(map(int, lag.values())) if is_measured else None,
        "waiting_measured_at": measured.ages.get(KAFKA),
        "waiting": [
            {"topic": topic, "partition": int(partition), "records": int(records)}
            for (topic, partition), records in sorted(
                lag.items(), key=lambda item: (item[0][0], int(item[0][1]))
            )
        ],
    }


def _days(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counts: defaultdict[date, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_OUTCOMES.values(), 0))
    for row in rows:
        counts[row["arrival_date"]][_OUTCOMES[row["outcome"]]] = row["records"]
    return [
        {"date": day, "received": sum(of_day[name] for name in _RECEIVED), **of_day}
        for day, of_day in counts.items()
    ]


def _stream(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "query": row["query"],
        "is_failing": bool(row["failing"]),
        "waiting_records": sum(row["lag"].values()),
        "waiting_measured_at": _moment(row["lag_at"]),
        "latency_seconds": row["latency_seconds"],
        "records": row["rows"],
        "late_events": row["dropped_late"],
        "watermark": _moment(row["watermark"]),
        "last_batch_at": _moment(row["batch_at"]),
        "updated_at": _moment(row["updated"]),
        "url": _url(asset_page(row["query"])),
    }


def _agreement(measured: Measured) -> dict[str, Any] | None:
    found = measured.state.agreement
    if found is None:
        return None
    asset, check = AGREEMENT
    return {
        "is_agreed": found.passed,
        "said": found.said,
        "compared": found.compared,
        "differences": found.differences,
        "checked_at": _moment(_values(measured, CHECKED).get(AGREEMENT)),
        "url": _url(check_page(asset, check)),
    }


def _tables(measured: Measured) -> list[dict[str, Any]]:
    state = measured.state
    overdue = {problem.subject for problem in state.problems if problem.kind == Kind.ASSET_OVERDUE}
    return [
        {
            "asset": asset,
            "group": state.groups.get(asset, ""),
            "updated_at": _moment(at),
            "is_overdue": asset in overdue,
            "url": _url(asset_page(asset)),
        }
        for asset, at in sorted(
            state.updated.items(), key=lambda item: (state.groups.get(item[0], ""), item[0])
        )
    ]


def _checks(measured: Measured, now: datetime) -> list[dict[str, Any]]:
    updated, checked = measured.state.updated, _values(measured, CHECKED)
    checks = []
    for (asset, check, severity), failing in sorted(_values(measured, CHECK_FAILING).items()):
        at = checked.get((asset, check), 0)
        is_late = now.timestamp() - at > CHECK_OVERDUE.total_seconds()
        checks.append(
            {
                "asset": asset,
                "check": check,
                "severity": severity,
                "is_failing": bool(failing),
                "is_overdue": is_late and updated.get(asset, 0) > at,
                "checked_at": _moment(at),
                "url": _url(check_page(asset, check)),
            }
        )
    return sorted(checks, key=lambda row: (not row["is_failing"], not row["is_overdue"]))


def _jobs(measured: Measured) -> list[dict[str, Any]]:
    succeeded, failed = _values(measured, JOB_SUCCESS), _values(measured, JOB_FAILURE)
    runs = measured.state.failed_runs
    jobs = [
        {
            "job": job,
            "is_failing": failed.get((job,), 0) > succeeded.get((job,), 0),
            "succeeded_at": _moment(succeeded.get((job,))),
            "failed_at": _moment(failed.get((job,))),
            "failed_run_url": _url(run_page(runs[job])) if job in runs else None,
        }
        for (job,) in sorted({*succeeded, *failed})
    ]
    return sorted(jobs, key=lambda row: not row["is_failing"])


listing(
    blueprint,
    "/records",
    RECORD_DAYS,
    "RecordDay",
    """List how many records came, by day of arrival and by what became of them; the newest day first.

    `event`, `duplicate`, `conflict` and `rejected` together are all records. `late`, `refused` and `left_out` count
    events once more.
    """,
    order=["arrival_date DESC"],
    limit=1000,
    scope=Scope.READ,
)
