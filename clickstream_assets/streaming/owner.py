"""The owner of the streams: one process at a time, by a lock in PostgreSQL.

The lock belongs to the connection that the windows are written with. Whoever loses the connection loses the lock, and
can write no more; a dead owner keeps nothing.

An always-on process comes before runs of Dagster's. It shows that it is there by another lock, which it has while it
waits too, and runs give way to it.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.pq import TransactionStatus

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained

# Any number will do, as long as nobody else takes it: "clickwin" in ASCII.
_LOCK = 0x636C69636B77696E
# The same: "clickone".
_PRESENCE_LOCK = 0x636C69636B6F6E65
# A machine that vanished says no goodbye: the server finds out after about this long, as `connect` does here.
_KEEPALIVE = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}


class OwnedError(ClickstreamError):
    """Another process runs the streams; the message says which."""

    retryable = True


@contextmanager
def ownership(settings: Settings, role: str) -> Iterator[psycopg.Connection]:
    """Own the streams until the block ends or the connection breaks.

    Args:
        settings: name the database.
        role: of this process, for others to read.

    Yields:
        The connection to write with.

    Raises:
        OwnedError: another process owns them.
        PostgresError: the database cannot be reached.
    """
    connection = connect(settings, autocommit=True)
    try:
        with explained(settings):
            _introduce(connection, role)
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if row != (True,):
            holder = owner(settings)
            raise OwnedError(f"the streams are run by {holder or 'another process, which has just ended'}")
        try:
            yield connection
        finally:
            # A server that is busy ends a closed connection in its own time; who comes next need not wait for it. One
            # that broke, or is in the middle of something, gives the lock up with itself.
            if connection.info.transaction_status is TransactionStatus.IDLE:
                with explained(settings):
                    connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    finally:
        connection.close()


class Presence:
    """Sign to others that an always-on process is there, whether it owns the streams or waits.

    Args:
        settings: name the database.
        role: of this process, for others to read.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._role = role
        self._connection: psycopg.Connection | None = None

    def show(self) -> None:
        """Give the sign, or see that it is still given.

        Raises:
            PostgresError: the database cannot be reached.
        """
        with explained(self._settings):
            if self._connection:
                try:
                    self._connection.execute("SELECT")
                except psycopg.Error:
                    self.close()
                else:
                    return
            self._connection = connect(self._settings, autocommit=True)
            _introduce(self._connection, self._role)
            # Shared: several processes may wait for their turn.
            self._connection.execute("SELECT pg_advisory_lock_shared(%s)", (_PRESENCE_LOCK,))

    def close(self) -> None:
        """Take the sign back."""
        if self._connection:
            self._connection.close()
        self._connection = None


def _introduce(connection: psycopg.Connection, role: str) -> None:
    name = f"clickstream {role}, process {os.getpid()} on {socket.gethostname()}"
    for setting, value in {"application_name": name[:63], **_KEEPALIVE}.items():
        connection.execute("SELECT set_config(%s, %s, false)", (setting, value))


def owner(settings: Settings) -> str | None:
    """Return which process runs the streams; None if none does.

    Raises:
        PostgresError: the database cannot be reached.
    """
    return _holder(settings, _LOCK)


def always_on(settings: Settings) -> str | None:
    """Return an always-on process that is there, whether it runs the streams or waits; None if there is none.

    Raises:
        PostgresError: the database cannot be reached.
    """
    return _holder(settings, _PRESENCE_LOCK)


def _holder(settings: Settings, lock: int) -> str | None:
    holder = (
        "SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (classid::bigint << 32) + objid::bigint = %s ORDER BY backend_start LIMIT 1"
    )
    with explained(settings), connect(settings) as connection:
        row = connection.execute(holder, (lock,)).fetchone()
    return f"{row[0]} (since {row[1]:%Y-%m-%d %H:%M:%S %Z})" if row else None
