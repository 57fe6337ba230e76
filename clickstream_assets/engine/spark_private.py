"""Parts of Spark that we use and it does not document, read from version 4.0.5: texts of errors, files of checkpoints.

Spark's errors cross from Java to Python as text, and Py4J and Connect raise different classes, so only names in
that text distinguish them. A test asks for each of these, so it fails at an upgrade that changes one.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

RECORDS_LOST = re.compile(r"KAFKA_DATA_LOSS|failOnDataLoss|OffsetOutOfRange")
"""Kafka has deleted records that a query has not read."""
INTERRUPTED = re.compile(
    "ExecutorLostFailure|Lost executor|FetchFailed|Python worker (?:exited unexpectedly|failed to connect back)"
    "|CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming jobs detected"
)
"""An executor or a Python worker ended, or the owner before us has a query that is still in its last batch."""
STATE_UNUSABLE = re.compile(r"STATE_STORE|STATEFUL_|StateSchema|CheckpointFileManager")
"""The state of a query is lost, or of another query."""
TIMESTAMP_TOO_LARGE = re.compile(r"ArithmeticException: long overflow[\s\S]*millisToMicros")
"""A record's timestamp in Kafka has no microseconds in 64 bits, and the connector cannot pass over the record."""
KAFKA_CLIENT = "org.apache.kafka"
"""Package of the Kafka client that reports an error."""

STORAGE_FAILED = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Permission denied|AccessDenied"
    r"|java\.io\.(?:IO|FileNotFound|EOF)Exception|java\.nio\.file\.\w+Exception|Mkdirs failed[^\n]*"
    # As delta-rs says it in a task, and as Hadoop's connector to S3 does.
    r"|OSError: [^\n]+|java\.net\.\w+Exception|s3a\.\w+Exception"
)
"""A disk or an object store did not take or give a file."""

OFFSETS, COMMITS = "offsets", "commits"
"""Folders of a checkpoint with a file per batch, named by its number: what it was to read, and that it is done."""
QUERY_ID = "sql.streaming.queryId"
"""Local property of Spark's context within a batch: the query's id, which is that of its checkpoint."""

_ERROR = re.compile(r"^\W*(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Exception|Error)): ?(.*)$")


def causes(text: str) -> list[str]:
    """Return the lines of a stack trace that name an error: the first two and the last eight."""
    lines = [line.strip()[:500] for line in text.splitlines() if _ERROR.search(line)]
    return lines[:2] + lines[2:][-8:]


def innermost(text: str) -> str:
    """Return what the innermost error of a stack trace says, or the first line of another text."""
    errors = [match for match in map(_ERROR.match, text.splitlines()) if match]
    named = [match for match in errors if match[2].strip()]
    return f"{named[-1][1]}: {named[-1][2]}"[:500] if named else text.strip().partition("\n")[0][:500]


def names_partition_of(text: str, topic: str) -> bool:
    """Return whether an error names a partition of a topic, as Kafka's client writes it: `topic-0`."""
    return bool(re.search(rf"(?<![\w.-]){re.escape(topic)}-\d+(?![\w-])", text))


def parse_offsets(text: str) -> tuple[datetime | None, dict[str, dict[str, int]]]:
    """Read a file of `OFFSETS`: the watermark of the batch, and by topic up to which offset it reads each partition."""
    # A version, a line of metadata, and a line per source.
    _, metadata, offsets = text.splitlines()[:3]
    milliseconds = json.loads(metadata)["batchWatermarkMs"]
    watermark = datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    return watermark, json.loads(offsets) if offsets != "-" else {}


def dropped_late(progress: Mapping[str, Any]) -> int:
    """Return how many events came after the watermark, by a progress report of a query that drops duplicates."""
    # The operators are listed from the last to the first; the first drops an event before any other sees it.
    dedupes = [o for o in progress["stateOperators"] if o["operatorName"] == "dedupeWithinWatermark"]
    return dedupes[-1]["numRowsDroppedByWatermark"] if dedupes else 0
