"""Servers that do not answer: what to say meanwhile to requests that would else wait for them one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from clickstream_assets.stores.elasticsearch import ElasticsearchError
from clickstream_assets.stores.kafka.delivery import UndeliveredError
from clickstream_assets.stores.postgres.connection import PostgresError

# The requests of the next second ask the server again, so that it is seen soon when it answers.
_SECONDS = 1.0

ServerError = PostgresError | ElasticsearchError | UndeliveredError


class Outage:
    """Remembers for a second that a server did not answer.

    A request that finds out has waited for seconds. Those that have queued behind it get the same error at once.
    """

    def __init__(self) -> None:
        self._error: ServerError | None = None
        self._until = 0.0

    def note(self, error: ServerError) -> None:
        """Remember an error, if it is that the server does not answer."""
        if error.problem.name == "SILENT":
            self._error, self._until = error, monotonic() + _SECONDS

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Ask the server inside, unless it did not answer just now.

        Raises:
            PostgresError, ElasticsearchError, UndeliveredError: the remembered error.
        """
        if self._error and monotonic() < self._until:
            raise self._error.with_traceback(None)
        try:
            yield
        except (PostgresError, ElasticsearchError, UndeliveredError) as error:
            self.note(error)
            raise
