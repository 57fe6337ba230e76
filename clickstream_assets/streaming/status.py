"""How the streams are doing, for everybody to read: a row per query in `stream_status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Offsets
from clickstream_assets.stores.postgres.connection import connect, explained

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery


@dataclass
class Status:
    """What a run of a query has done so far."""

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
    """What it was stopped by, until it comes on again."""
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
                late += _dropped_late(progress)
            self.batch_id = progress["batchId"]
            self.rows_per_second = progress.get("processedRowsPerSecond")
            self.read = self.read | _offsets(progress["sources"][0].get("endOffset"))
            watermark = progress.get("eventTime", {}).get("watermark")
            if watermark and not watermark.startswith("1970-01-01T00:00:00"):
                self.watermark = datetime.fromisoformat(watermark)
        self.rows += rows
        self.dropped_late += late
        return rows, late

    def compare(self, available: Mapping[int, Offsets]) -> None:
        """Work out the lag from what the topic holds now: a query that stands still falls behind."""
        self.lag = {p: max(0, o.high - max(o.low, self.read.get(p, 0))) for p, o in available.items()}


def _dropped_late(progress: dict[str, Any]) -> int:
    # The operators are listed from the last to the first; the first drops an event before any other sees it.
    dedupes = [o for o in progress["stateOperators"] if o["operatorName"] == "dedupeWithinWatermark"]
    return dedupes[-1]["numRowsDroppedByWatermark"] if dedupes else 0


def _offsets(value: Any) -> dict[int, int]:
    by_topic = json.loads(value) if isinstance(value, str) else value or {}
    return {int(p): offset for offsets in by_topic.values() for p, offset in offsets.items()}


def write_status(
    settings: Settings, status: Status, owner: str, rows: int, late: int, latency_seconds: float | None
) -> None:
    """Add what is new to the query's row.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        _write(connection, status, owner, rows, late, latency_seconds)


def _write(
    connection: psycopg.Connection,
    status: Status,
    owner: str,
    rows: int,
    late: int,
    latency_seconds: float | None,
) -> None:
    connection.execute(
        "INSERT INTO stream_status AS kept (query, owner, batch_id, watermark, rows, dropped_late, lag, "
        "latency_seconds, rows_per_second, error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (query) DO UPDATE SET owner = excluded.owner, batch_id = excluded.batch_id, "
        "watermark = coalesce(excluded.watermark, kept.watermark), rows = kept.rows + excluded.rows, "
        "dropped_late = kept.dropped_late + excluded.dropped_late, lag = excluded.lag, "
        "latency_seconds = coalesce(excluded.latency_seconds, kept.latency_seconds), "
        "rows_per_second = excluded.rows_per_second, error = excluded.error, updated_at = now()",
        (
            status.query,
            owner,
            status.batch_id,
            status.watermark,
            rows,
            late,
            json.dumps(status.lag),
            latency_seconds,
            status.rows_per_second,
            status.error,
        ),
    )
