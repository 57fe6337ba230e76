"""The API's connections to PostgreSQL: read-only, few, and without long waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from flask import current_app
from psycopg import Connection, IsolationLevel
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained

THREADS = 4
"""Requests that a worker process answers at once, and connections that it holds at most."""

EXTENSION = "clickstream_database"
_WAIT_SECONDS = 2.0
_STATEMENT_TIMEOUT = "3s"


class Database:
    """A pool of read-only connections, opened by the process that first asks for one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = Lock()
        self._pool: ConnectionPool[Connection[DictRow]] | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Connection[DictRow]]:
        """Give a connection whose statements all see the tables at one moment, between two publications.

        Raises:
            PostgresError: PostgreSQL cannot be reached in time, or does not answer the query.
        """
        with explained(self.settings):
            try:
                with self._opened_pool().connection() as connection:
                    yield connection
            except PoolTimeout:
                # The pool only logs why it cannot connect; one attempt of our own raises it.
                connect(self.settings).close()
                raise

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._pool:
                self._pool.close()
            self._pool = None

    def _opened_pool(self) -> ConnectionPool[Connection[DictRow]]:
        # Not in the constructor: gunicorn forks, and connections and the pool's threads do not survive that.
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.settings.postgres_conninfo,
                    connection_class=Connection[DictRow],
                    kwargs={
                        "row_factory": dict_row,
                        "connect_timeout": 2,
                        "application_name": "clickstream-api",
                        "options": f"-c statement_timeout={_STATEMENT_TIMEOUT} -c TimeZone=UTC",
                    },
                    configure=_read_snapshots,
                    # A server that was restarted has dropped our connections, and they do not show it.
                    check=ConnectionPool.check_connection,
                    min_size=0,
                    max_size=THREADS,
                    timeout=_WAIT_SECONDS,
                    # Give up soon, so that the next request tries anew instead of waiting for a long backoff.
                    reconnect_timeout=1,
                    open=True,
                )
            return self._pool


def _read_snapshots(connection: Connection[DictRow]) -> None:
    connection.read_only = True
    connection.isolation_level = IsolationLevel.REPEATABLE_READ


def database() -> Database:
    """Return the running application's database."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Database)
    return found
