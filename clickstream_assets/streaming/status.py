"""Status of the streams, for everybody to read: a row per query in `stream_status`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from clickstream_assets.engine.spark_private import dropped_late
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, from_topics, to_json
from clickstream_assets.stores.kafka.topic import Offsets
from clickstream_assets.stores.postgres.connection import connect, explained

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery


@dataclass
class Status:
    """Work of one run of a query so far."""

    query: str
    batch_id: int = -1
    """Spark's number of the last batch that was taken in here."""
    rows: int = 0
    """Records read in this run."""
    dropped_late: int = 0
    """Events in this run that came later than WATERMARK_DELAY allows."""
    read: dict[TopicPartition, int] = field(default_factory=dict)
    """Per partition, the offset up to where its batches are done."""
    lag: dict[TopicPartition, int] = field(default_factory=dict)
    """Per partition, records that are in Kafka and are in no batch that is done."""
    lag_at: datetime | None = None
    """When the lag was measured."""
    batch_at: datetime | None = None
    """When the last batch was taken in here."""
    error: str | None = None
    """Reason that it stopped for, until a batch succeeds."""
    fault: str | None = None
    """A server that it needs and that did not answer, until it does and a batch succeeds."""
    watermark: datetime | None = None
    latency_seconds: float | None = None
    """Seconds from the newest event's time to PostgreSQL, in the last batch with events."""
    rows_per_second: float | None = None
    unwritten_rows: int = 0
    unwritten_late: int = 0
    """Parts of `rows` and `dropped_late` that `stream_status` has not yet."""

    def anew(self) -> Status:
        """Return the status of another run of the query, with what is not written of this one."""
        return Status(
            self.query,
            error=self.error or self.fault,
            unwritten_rows=self.unwritten_rows,
            unwritten_late=self.unwritten_late,
        )

    def take_in(self, query: StreamingQuery) -> None:
        """Take in what the query reports."""
        rows = late = 0
        for report in query.recentProgress:
            progress = json.loads(report.json)
            if progress["batchId"] < self.batch_id:
                continue
            if progress["batchId"] > self.batch_id:
                rows += progress["numInputRows"]
                late += dropped_late(progress)
                self.batch_at = datetime.now(UTC)
            self.batch_id = progress["batchId"]
            self.rows_per_second = progress.get("processedRowsPerSecond")
            self.read = self.read | _offsets(progress["sources"][0].get("endOffset"))
            watermark = progress.get("eventTime", {}).get("watermark")
            if watermark and not watermark.startswith("1970-01-01T00:00:00"):
                self.watermark = datetime.fromisoformat(watermark)
        self.rows += rows
        self.dropped_late += late
        self.unwritten_rows += rows
        self.unwritten_late += late

    def update_lag(self, available: Mapping[TopicPartition, Offsets]) -> None:
        """Set the lag by what the topics hold now: a query that stands still falls behind."""
        self.lag = {p: max(0, o.high - max(o.low, self.read.get(p, 0))) for p, o in available.items()}
        self.lag_at = datetime.now(UTC)


def _offsets(value: Any) -> dict[TopicPartition, int]:
    return from_topics(json.loads(value) if isinstance(value, str) else value or {})


def metadata(status: Status, open_alerts: int | None = None) -> dict[str, Any]:
    """Return the metadata of a materialization of a query's tables, by a run of Dagster's or by the process."""
    values: dict[str, Any] = {
        "batch": status.batch_id,
        "rows": status.rows,
        "dropped_late": status.dropped_late,
        "lag": sum(status.lag.values()),
        "offsets_behind": to_json(status.lag),
    }
    if status.watermark:
        values["watermark"] = status.watermark.isoformat()
        values["freshness_seconds"] = round((datetime.now(UTC) - status.watermark).total_seconds(), 1)
    if status.latency_seconds is not None:
        values["latency_seconds"] = round(status.latency_seconds, 1)
    if open_alerts is not None:
        values["open_alerts"] = open_alerts
    return values


def last_owner(settings: Settings) -> str | None:
    """Return who wrote a status last; None before the first did.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        row = connection.execute(
            "SELECT owner FROM stream_status ORDER BY updated_at DESC LIMIT 1"
        ).fetchone()
    return row[0] if row else None


def write_statuses(
    settings: Settings, owner: str, statuses: Iterable[Status], due_seconds: float | None = None
) -> None:
    """Write the queries' rows. What is not known yet, such as the lag while Kafka is away, stays with its age.

    Args:
        settings: name the database.
        owner: who writes.
        statuses: of the queries.
        due_seconds: seconds within which the next report follows; one that does not come means that the owner hangs
            or is gone. None promises nothing, as at the end.

    Raises:
        PostgresError: the database cannot be reached.
    """
    statuses = list(statuses)
    due = timedelta(seconds=due_seconds) if due_seconds else None
    with explained(settings), connect(settings) as connection:
        for status in statuses:
            values = {"owner": owner, "due": due, "reason": status.error or status.fault, **vars(status)}
            connection.execute(_UPSERT, values | {"lag": json.dumps(to_json(status.lag))})
    for status in statuses:
        status.unwritten_rows = status.unwritten_late = 0


_UPSERT = """
INSERT INTO stream_status AS kept (query, owner, batch_id, batch_at, watermark, rows, dropped_late, lag, lag_at,
    latency_seconds, rows_per_second, error, due_at)
VALUES (%(query)s, %(owner)s, %(batch_id)s, %(batch_at)s, %(watermark)s, %(unwritten_rows)s, %(unwritten_late)s,
    %(lag)s, %(lag_at)s, %(latency_seconds)s, %(rows_per_second)s, %(reason)s, now() + %(due)s::interval)
ON CONFLICT (query) DO UPDATE SET owner = excluded.owner,
    batch_id = CASE WHEN excluded.batch_id < 0 THEN kept.batch_id ELSE excluded.batch_id END,
    batch_at = coalesce(excluded.batch_at, kept.batch_at),
    watermark = coalesce(excluded.watermark, kept.watermark),
    rows = kept.rows + excluded.rows,
    dropped_late = kept.dropped_late + excluded.dropped_late,
    lag = CASE WHEN excluded.lag_at IS NULL THEN kept.lag ELSE excluded.lag END,
    lag_at = coalesce(excluded.lag_at, kept.lag_at),
    latency_seconds = coalesce(excluded.latency_seconds, kept.latency_seconds),
    rows_per_second = excluded.rows_per_second, error = excluded.error, due_at = excluded.due_at, updated_at = now()
"""
