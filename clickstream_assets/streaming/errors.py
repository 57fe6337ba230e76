"""Why a streaming query ended, told from what Spark says: will a moment mend it, or must a person?"""

from __future__ import annotations

import re
from collections.abc import Callable

from clickstream_assets.engine import DataFrame
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import DataLossError, KafkaError
from clickstream_assets.stores.postgres.connection import PostgresError, Problem
from clickstream_assets.streaming.checkpoint import REBUILD, CheckpointError

TRANSIENT = (KafkaError, PostgresError, OSError)
"""Errors that may have passed when the query is started again; what is not, see `needs_person`."""
LOST_TO_WINDOWS = f"run {REBUILD} to take what is missing from the lake"
LOST_TO_LIVE_EVENTS = f"run {REBUILD} to begin anew with what Kafka has"
_MENDABLE = {Problem.UNREACHABLE, Problem.BUSY, Problem.TOO_SLOW}
# An executor or a Python worker that ended, and an owner before us whose query was still in its last batch.
_INTERRUPTED = re.compile(
    "ExecutorLostFailure|Lost executor|FetchFailed|Python worker (?:exited unexpectedly|failed to connect back)"
    "|CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming jobs detected"
)
_ERROR = re.compile(r"^\W*(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Exception|Error)): ?(.*)$")


class StreamError(RuntimeError):
    """A query ended for a reason that starting it again does not mend."""


class ServerAwayError(OSError):
    """A server that a query works with, or one of Spark's own processes, did not answer or is gone."""


class BatchError(RuntimeError):
    """What a batch failed with, in few words."""


def guarded(write: Callable[[DataFrame, int], None]) -> Callable[[DataFrame, int], None]:
    """Make a function for `foreachBatch` fail with few words.

    Spark searches the text of an error for signs of an interruption, with a regular expression that overflows its
    stack on a Java stack trace; the query then ends without an error.
    """

    def run(rows: DataFrame, batch_id: int) -> None:
        try:
            write(rows, batch_id)
        except Exception as error:
            raise BatchError("\n".join(_causes(f"{type(error).__name__}: {error}"))) from None

    return run


def _causes(text: str) -> list[str]:
    """Return the lines of a stack trace that name an error, at most the last ten."""
    lines = [line.strip()[:500] for line in text.splitlines() if _ERROR.search(line)]
    return lines[:2] + lines[2:][-8:]


def needs_person(error: BaseException) -> bool:
    """Whether an error stays until somebody does something."""
    if isinstance(error, PostgresError):
        return error.problem not in _MENDABLE
    return isinstance(error, DataLossError) or not isinstance(error, TRANSIENT)


def explain(error: BaseException, settings: Settings, loss: str = LOST_TO_WINDOWS) -> Exception:
    """Turn the error of a streaming query into one of ours, by its text: Py4J keeps little else.

    Args:
        error: what Spark ended it with.
        settings: for the message.
        loss: what to do for this query when Kafka has deleted records that it has not read.
    """
    if isinstance(error, (*TRANSIENT, CheckpointError)):
        return error
    text = str(error)
    if re.search(r"KAFKA_DATA_LOSS|failOnDataLoss|OffsetOutOfRange", text):
        return DataLossError(
            f"Kafka no longer has records of {settings.kafka_topic} that the stream has not read. Raise the topic's "
            f"retention, and {loss}; or set ALLOW_DATA_LOSS=true to go on without"
        )
    if _INTERRUPTED.search(text):
        return ServerAwayError(innermost(text))
    if re.search(r"STATE_STORE|STATEFUL_|StateSchema|CheckpointFileManager|IncompatibleCheckpoint", text):
        return CheckpointError(f"the stream's state cannot be used ({innermost(text)}); run {REBUILD}")
    if found := re.search(r"ElasticsearchError: (.+)", text):
        return ServerAwayError(found[1])
    if "org.apache.kafka" in text:
        return KafkaError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {innermost(text)}")
    return StreamError(innermost(text))


def innermost(text: str) -> str:
    """Return what the innermost error of a stack trace says, or the first line of another text."""
    errors = [match for match in map(_ERROR.match, text.splitlines()) if match]
    named = [match for match in errors if match[2].strip()]
    return f"{named[-1][1]}: {named[-1][2]}"[:500] if named else text.strip().partition("\n")[0][:500]
