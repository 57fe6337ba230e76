"""Errors of the streams: why a query ended, by what Spark says of it."""

import re
import tempfile
from collections.abc import Callable

from clickstream_assets.engine import DataFrame
from clickstream_assets.engine.spark_private import (
    INTERRUPTED,
    KAFKA_CLIENT,
    RECORDS_LOST,
    STATE_UNUSABLE,
    TIMESTAMP_TOO_LARGE,
    causes,
    innermost,
    names_partition_of,
)
from clickstream_assets.errors import ClickstreamError, DiskFullError
from clickstream_assets.files import NO_SPACE, room
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.topic import DataLossError, timestamp_error
from clickstream_assets.streaming.checkpoint import REBUILD, CheckpointError

LOST_TO_WINDOWS = f"run {REBUILD} to take what is missing from the lake"
LOST_TO_LIVE_EVENTS = f"run {REBUILD} to begin anew with what Kafka has"


class StreamError(ClickstreamError):
    """A query ended for a reason that starting it again does not mend."""


class ServerAwayError(ClickstreamError):
    """A server that a query works with, or one of Spark's own processes, did not answer or is gone."""

    retryable = True


class BatchError(ClickstreamError):
    """A batch failed; the message has the lines of the error that name its causes, and no others."""


def guarded(write: Callable[[DataFrame, int], None]) -> Callable[[DataFrame, int], None]:
    """Make a function for `foreachBatch` fail with few words.

    Spark searches the text of an error for signs of an interruption, with a regular expression that overflows its
    stack on a Java stack trace; the query then ends without an error.
    """

    def run(rows: DataFrame, batch_id: int) -> None:
        try:
            write(rows, batch_id)
        except Exception as error:
            raise BatchError("\n".join(causes(f"{type(error).__name__}: {error}"))) from None

    return run


def query_error(error: BaseException, settings: Settings, loss: str = LOST_TO_WINDOWS) -> BaseException:
    """Return the error of ours for what a query ended with, by its text: Py4J keeps little else.

    Args:
        error: what Spark ended it with; one of ours, or of the system, is returned as it is.
        settings: for the message.
        loss: what to do for this query when Kafka has deleted records that it has not read.
    """
    if isinstance(error, ClickstreamError):
        return error
    text = str(error)
    if NO_SPACE.search(text):
        # Before the state's errors: one that could not be written is as it was.
        rooms = (
            f"CHECKPOINT_PATH={room(settings.checkpoints)}",
            f"LAKE_PATH={room(settings.lake)}",
            f"TMPDIR={room(tempfile.gettempdir())}",
        )
        return DiskFullError(
            f"no space left on a disk of the streams ({innermost(text)}): {', '.join(rooms)}. Free some; they are "
            "started again"
        )
    if isinstance(error, OSError):
        return error
    if RECORDS_LOST.search(text):
        topics = [topic for topic in settings.topics if names_partition_of(text, topic)] or settings.topics
        return DataLossError(
            f"Kafka no longer has records of {', '.join(topics)} that the stream has not read. Raise the topic's "
            f"retention, and {loss}; or set ALLOW_DATA_LOSS=true to go on without"
        )
    if INTERRUPTED.search(text):
        return ServerAwayError(innermost(text))
    if STATE_UNUSABLE.search(text):
        return CheckpointError(f"the stream's state cannot be used ({innermost(text)}); run {REBUILD}")
    if found := re.search(r"ElasticsearchError: (.+)", text):
        return ServerAwayError(found[1])
    if found := re.search(r"PostgresError: (.+)", text):
        return ServerAwayError(found[1])
    if TIMESTAMP_TOO_LARGE.search(text):
        return timestamp_error(
            settings,
            f"Once it is ingested with COMPUTE_ENGINE=duckdb, {LOST_TO_WINDOWS}; live events go on when Kafka has "
            "deleted the record, by the topic's retention or kafka-delete-records.sh",
        )
    if KAFKA_CLIENT in text:
        return TopicError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {innermost(text)}")
    return StreamError(innermost(text))
