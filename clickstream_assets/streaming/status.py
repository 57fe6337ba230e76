"""Status of the streams, for everybody to read: a row per query in `stream_status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clickstream_assets.engine.spark_private import dropped_late
from clickstream_assets.settings import Settings
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
    read: dict[int, int] = field(default_factory=dict)
    """Per partition, the offset up to where its batches are done."""
    lag: dict[int, int] = field(default_factory=dict)
    """Per partition, records that are in Kafka and are in no batch that is done."""
    error: str | None = None
    """Reason that it stopped for, until a batch succeeds."""
    watermark: datetime | None = None
    rows_per_second: float | None = None

    def take_in(self, query: StreamingQuery) -> tuple[int, int]:
        """Take in what the query reports; returns the rows and late events that are new."""
        rows = late = 0
        for report in query.recentProgress:
            progress = json.loads(report.json)
            if progress["batchId"] < self.batch_id:
                continue
            if progress["batchId"] > self.batch_id:
                rows += progress["numInputRows"]
                late += dropped_late(progress)
            self.batch_id = progress["batchId"]
            self.rows_per_second = progress.get("processedRowsPerSecond")
            self.read = self.read | _offsets(progress["sources"][0].get("endOffset"))
            watermark = progress.get("eventTime", {}).get("watermark")
            if watermark and not watermark.startswith("1970-01-01T00:00:00"):
                self.watermark = datetime.fromisoformat(watermark)
        self.rows += rows
        self.dropped_late += late
        return rows, late

    def update_lag(self, available: Mapping[int, Offsets]) -> None:
        """Set the lag by what the topic holds now: a query that stands still falls behind."""
        self.lag = {p: max(0, o.high - max(o.low, self.read.get(p, 0))) for p, o in available.items()}


def _offsets(value: Any) -> dict[int, int]:
    by_topic = json.loads(value) if isinstance(value, str) else value or {}
    return {int(p): offset for offsets in by_topic.values() for p, offset in offsets.items()}


def metadata(
    status: Status, latency_seconds: float | None = None, open_alerts: int | None = None
) -> dict[str, Any]:
    """Return the metadata of a materialization of a query's tables, by a run of Dagster's or by the process."""
    values: dict[str, Any] = {
        "batch": status.batch_id,
        "rows": status.rows,
        "dropped_late": status.dropped_late,
        "lag": sum(status.lag.values()),
        "offsets_behind": {str(partition): count for partition, count in sorted(status.lag.items())},
    }
    if status.watermark:
        values["watermark"] = status.watermark.isoformat()
        values["freshness_seconds"] = round((datetime.now(UTC) - status.watermark).total_seconds(), 1)
    if latency_seconds is not None:
        values["latency_seconds"] = round(latency_seconds, 1)
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


def write_status(
    settings: Settings, status: Status, owner: str, rows: int, late: int, latency_seconds: float | None
) -> None:
    """Add what is new to the query's row.

    Raises:
        PostgresError: the database cannot be reached.
    """
    values = (
        *(status.query, owner, status.batch_id, status.watermark, rows, late, json.dumps(status.lag)),
        *(latency_seconds, status.rows_per_second, status.error),
    )
    with explained(settings), connect(settings) as connection:
        connection.execute(
            "INSERT INTO stream_status AS kept (query, owner, batch_id, watermark, rows, dropped_late, lag, "
            "latency_seconds, rows_per_second, error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (query) DO UPDATE SET owner = excluded.owner, batch_id = excluded.batch_id, "
            "watermark = coalesce(excluded.watermark, kept.watermark), rows = kept.rows + excluded.rows, "
            "dropped_late = kept.dropped_late + excluded.dropped_late, lag = excluded.lag, "
            "latency_seconds = coalesce(excluded.latency_seconds, kept.latency_seconds), "
            "rows_per_second = excluded.rows_per_second, error = excluded.error, updated_at = now()",
            values,
        )
