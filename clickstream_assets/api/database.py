"""The API's connections to PostgreSQL: read-only, few, and without long waits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any, Self

import psycopg
from flask import current_app
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from clickstream_assets.api.outages import Outage
from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.postgres.connection import (
    KEEPALIVE,
    Connection,
    PostgresError,
    PostgresProblem,
    SilentError,
    connection_error,
    explained,
)

EXTENSION = "clickstream_database"
# That a process holds at most.
_CONNECTIONS = 4
# A request waits for a connection, sees whether that works, and asks: 5 s in all.
_WAIT_SECONDS = 2
_CHECK_SECONDS = 2
_REQUEST_SECONDS = 5.0
_STATEMENT_TIMEOUT = "3s"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The server itself would have ended the statement by then.
_PATIENCE_SECONDS = 3.5


class _Connection(Connection[DictRow]):
    """A connection of the pool. The pool only logs why it cannot be opened; `note` is told that, or None."""

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        note: Callable[[psycopg.OperationalError | None], None] = options.pop("note")
        try:
            connection = super().connect(conninfo, **options)
        except psycopg.OperationalError as error:
            note(error)
            raise
        note(None)
        return connection


class Database:
    """A pool of read-only connections, opened by the process that first asks for one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = Lock()
        self._pool: ConnectionPool[_Connection] | None = None
        self._outage = Outage()
        self._refusal: PostgresError | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Connection[DictRow]]:
        """Give a connection whose statements all see the tables at one moment, between two publications.

        Raises:
            PostgresError: PostgreSQL cannot be reached in time, or does not answer the query: after five seconds at
                the latest.
        """
        deadline = monotonic() + _REQUEST_SECONDS
        with self._outage.remembered(), explained(self.settings, DatabaseRole.API):
            try:
                with self._opened_pool().connection() as connection:
                    connection.patience_seconds, connection.deadline = _PATIENCE_SECONDS, deadline
                    yield connection
            except PoolTimeout:
                raise self._refusal or PostgresError(
                    PostgresProblem.TOO_SLOW,
                    f"all {_CONNECTIONS} connections of this process were in use for {_WAIT_SECONDS} s",
                ) from None

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._pool:
                self._pool.close()
            self._pool = None

    def _opened_pool(self) -> ConnectionPool[_Connection]:
        # Not in the constructor: gunicorn forks, and connections and the pool's threads do not survive that.
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.settings.conninfo_of(DatabaseRole.API),
                    connection_class=_Connection,
                    kwargs={
                        "row_factory": dict_row,
                        "connect_timeout": _WAIT_SECONDS,
                        "application_name": "clickstream-api",
                        "options": f"-c statement_timeout={_STATEMENT_TIMEOUT} -c TimeZone=UTC",
                        "note": self._note,
                        **KEEPALIVE,
                    },
                    configure=_leave_transactions_to_us,
                    check=self._check,
                    min_size=0,
                    max_size=_CONNECTIONS,
                    # One for each connection: where the server hangs, each is kept for as long as it may take.
                    num_workers=_CONNECTIONS,
                    timeout=_WAIT_SECONDS,
                    # Give up soon, so that the next request tries anew instead of waiting for a long backoff.
                    reconnect_timeout=1,
                    open=True,
                )
            return self._pool

    def _check(self, connection: _Connection) -> None:
        """Begin the transaction, and so see that a connection works: after a restart, or a hang, it does not show it.

        The pool ends the transaction when it takes the connection back.
        """
        connection.patience_seconds, connection.deadline = _CHECK_SECONDS, math.inf
        try:
            connection.execute(_BEGIN)
        except SilentError as error:
            self._note(error)
            raise

    def _note(self, error: psycopg.OperationalError | None) -> None:
        self._refusal = connection_error(error, self.settings, DatabaseRole.API) if error else None
        if self._refusal:
            self._outage.note(self._refusal)


def _leave_transactions_to_us(connection: _Connection) -> None:
    connection.autocommit = True


def database() -> Database:
    """Return the running application's database."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Database)
    return found
