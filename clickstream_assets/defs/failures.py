"""Which errors a run tries again, and which need a person first."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from deltalake.exceptions import CommitFailedError

from clickstream_assets.recommender.evaluation import GateError
from clickstream_assets.reports.mail import MailError
from clickstream_assets.settings import SettingsError
from clickstream_assets.stores.kafka.topic import DataLossError, KafkaError
from clickstream_assets.stores.lake import LakeError
from clickstream_assets.stores.postgres.connection import PostgresError
from clickstream_assets.stores.postgres.reports import NoReportError
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.errors import StreamError

IO_ERRORS = (KafkaError, PostgresError, CommitFailedError, OSError)
"""A server or a disk that does not answer for a moment, or another writer that was first."""
PERSON_NEEDED = (
    CheckpointError,
    DataLossError,
    GateError,
    LakeError,
    MailError,
    NoReportError,
    SettingsError,
    StreamError,
)
"""What stays until somebody changes something; the message says what."""
MAX_RETRIES = 3
RETRY_SECONDS = 3


@contextmanager
def explained_errors(max_retries: int = MAX_RETRIES, seconds: float = RETRY_SECONDS) -> Iterator[None]:
    """Try again what a moment may mend; end the run with the message alone where only a person can.

    `max_retries` and `seconds` say how often, and how long a moment is.

    Any other exception is a fault of ours and fails the run at once, with its traceback.
    """
    try:
        yield
    except PERSON_NEEDED as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except IO_ERRORS as error:
        raise dg.RetryRequested(max_retries=max_retries, seconds_to_wait=seconds) from error
