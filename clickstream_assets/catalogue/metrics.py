"""The metrics of `GET /metrics`: what each is called, counts and is labelled with, and what says how old it is.

The page `docs/metrics.md` is made from here, and alert rules and the dashboard are held to it. A label has few values:
each is a time series for good. None is called `job`, which is a label of Prometheus' own. Units are its own, too:
seconds and records; times are seconds since 1970.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A metric's type in Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name; a counter's ends in `_total`.
        kind: Its type.
        description: What it says, without the unit, which is in the name.
        labels: Names of its labels.
        age: Name of the metric that says since when its value holds; none where it holds when it is asked for, or is
            a time itself.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    age: str | None = None


POSTGRES_UP = Metric(
    "clickstream_postgres_up",
    Kind.GAUGE,
    "1 if PostgreSQL answered the API; while it is 0, all below are left out but `clickstream_stream_failing`",
)
REQUESTS = Metric(
    "clickstream_api_request_seconds",
    Kind.HISTOGRAM,
    "Time that requests to the API took",
    ("method", "route", "status"),
)
COLLECTED = Metric(
    "clickstream_collected_events_total",
    Kind.COUNTER,
    "Events that came over HTTP and that Kafka has, `accepted` or, which ingest will reject, `rejected`; those that a "
    "client sent again count again",
    ("verdict",),
)
RECENT_READ = Metric(
    "clickstream_recent_events_timestamp_seconds",
    Kind.GAUGE,
    "When the API had last read all that Kafka had, of its worker processes the one that is furthest behind; 0 before "
    "the first time. What visitors did since does not count in what they are recommended",
)
EXPOSURES = Metric(
    "clickstream_exposures_total",
    Kind.COUNTER,
    "Answers of an experiment that were to be noted in KAFKA_EXPOSURES_TOPIC: `sent`, or `lost`, because Kafka was "
    "away or slow, so that their shoppers may be missing in the experiment's results",
    ("outcome",),
)

STREAM_UPDATED = Metric(
    "clickstream_stream_updated_timestamp_seconds",
    Kind.GAUGE,
    "When the query's status was last written",
    ("query",),
)
STREAM_LAG_MEASURED = Metric(
    "clickstream_stream_lag_timestamp_seconds",
    Kind.GAUGE,
    "When the query's lag was last measured",
    ("query",),
)
STREAM_BATCH = Metric(
    "clickstream_stream_batch_timestamp_seconds",
    Kind.GAUGE,
    "When the query's last batch was done",
    ("query",),
)
STREAM_FAILING = Metric(
    "clickstream_stream_failing",
    Kind.GAUGE,
    "1 from when the query was stopped by an error, a server that it needs did not answer, or the process that runs it "
    "did not report in time, until a batch succeeds or nothing is left to read; and while PostgreSQL does not answer",
    ("query",),
)
STREAM_LAG = Metric(
    "clickstream_stream_lag_records",
    Kind.GAUGE,
    "Records in Kafka that the query has not read",
    ("query", "topic", "partition"),
    age=STREAM_LAG_MEASURED.name,
)
STREAM_LATENCY = Metric(
    "clickstream_stream_latency_seconds",
    Kind.GAUGE,
    "From the newest event of the last batch with events to its window in PostgreSQL",
    ("query",),
    age=STREAM_BATCH.name,
)
STREAM_WATERMARK = Metric(
    "clickstream_stream_watermark_timestamp_seconds",
    Kind.GAUGE,
    "Events before this time are late for the query",
    ("query",),
)
STREAM_RECORDS = Metric(
    "clickstream_stream_records_total", Kind.COUNTER, "Records that the query has read", ("query",)
)
STREAM_LATE = Metric(
    "clickstream_stream_late_events_total",
    Kind.COUNTER,
    "Events that came later than WATERMARK_DELAY allows, and are in the batch tables only",
    ("query",),
)
ALERTS_OPEN = Metric("clickstream_alerts_open", Kind.GAUGE, "Flash-sale alerts that are open")
NOTIFICATIONS = Metric(
    "clickstream_notifications",
    Kind.GAUGE,
    "Notifications of alerts that are `pending`, and that have `failed` for good",
    ("sink", "state"),
)

PUBLISHED_EVENT = Metric(
    "clickstream_published_event_timestamp_seconds",
    Kind.GAUGE,
    "Time of the newest event in the published sessions",
)
MEASURED = Metric(
    "clickstream_measured_timestamp_seconds",
    Kind.GAUGE,
    "When Dagster's sensor `measurements` last asked this source: `kafka`, or its own runs, `dagster`",
    ("source",),
)
INGESTED_EVENT = Metric(
    "clickstream_ingested_event_timestamp_seconds",
    Kind.GAUGE,
    "Time of the newest event in `events`, no later than its arrival, as the last ingest reported it",
    age=MEASURED.name,
)
INGEST_LAG = Metric(
    "clickstream_ingest_lag_records",
    Kind.GAUGE,
    "Records in Kafka that the last ingest did not bring into the lake",
    ("topic", "partition"),
    age=MEASURED.name,
)
INGEST_RECORDS = Metric(
    "clickstream_ingest_records_total",
    Kind.COUNTER,
    "Records in the lake: in `raw_events`, and of those in `events`, `duplicate_events`, `conflicting_events`, "
    "`rejected_events`, where those that Elasticsearch refused are too, and `erased_records`",
    ("table",),
    age=MEASURED.name,
)
LEFT_OUT = Metric(
    "clickstream_fields_left_out",
    Kind.GAUGE,
    "Events that came within the last 24 hours without a field that could not be read, by the field and the rule that "
    "it breaks",
    ("field", "rule"),
)
REJECTED = Metric(
    "clickstream_rejected_records",
    Kind.GAUGE,
    "Records that came within the last 24 hours and were rejected, by the rule that they break and by who rejected "
    "them: `ingest`, or `elasticsearch`, whose rule is the kind of its error",
    ("rule", "rejected_by"),
)
JOB_SUCCESS = Metric(
    "clickstream_job_success_timestamp_seconds",
    Kind.GAUGE,
    "When the last run of the job that succeeded ended; 0 before the first",
    ("dagster_job",),
    age=MEASURED.name,
)
JOB_FAILURE = Metric(
    "clickstream_job_failure_timestamp_seconds",
    Kind.GAUGE,
    "When the last run of the job that failed ended, also one whose process was gone; 0 before the first",
    ("dagster_job",),
    age=MEASURED.name,
)
CHECKED = Metric(
    "clickstream_check_timestamp_seconds",
    Kind.GAUGE,
    "When the check was last carried out",
    ("asset", "check"),
    age=MEASURED.name,
)
CHECK_FAILING = Metric(
    "clickstream_check_failing",
    Kind.GAUGE,
    "1 if the check failed when it was last carried out; a check of severity `warn` only warns",
    ("asset", "check", "severity"),
    age=CHECKED.name,
)

SECTIONS = {
    "The API": (POSTGRES_UP, REQUESTS, COLLECTED, RECENT_READ, EXPOSURES),
    "The streams": (
        STREAM_FAILING,
        STREAM_UPDATED,
        STREAM_LAG,
        STREAM_LAG_MEASURED,
        STREAM_LATENCY,
        STREAM_BATCH,
        STREAM_WATERMARK,
        STREAM_RECORDS,
        STREAM_LATE,
        ALERTS_OPEN,
        NOTIFICATIONS,
    ),
    "The batch side": (
        MEASURED,
        INGEST_LAG,
        INGEST_RECORDS,
        REJECTED,
        LEFT_OUT,
        INGESTED_EVENT,
        PUBLISHED_EVENT,
        JOB_SUCCESS,
        JOB_FAILURE,
        CHECK_FAILING,
        CHECKED,
    ),
}
"""The metrics by who they are about, as the page lists them."""

METRICS = {metric.name: metric for section in SECTIONS.values() for metric in section}
"""All metrics by their names."""
