"""The owner of the streams: one process at a time, by a lock in PostgreSQL.

The lock belongs to the connection that the windows are written with. Whoever loses the connection loses the lock, and
can write no more; a dead owner keeps nothing.
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
            name = f"clickstream {role}, process {os.getpid()} on {socket.gethostname()}"
            for setting, value in {"application_name": name[:63], **_KEEPALIVE}.items():
                connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
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


def owner(settings: Settings) -> str | None:
    """Return which process runs the streams; None if none does.

    Raises:
        PostgresError: the database cannot be reached.
    """
    holder = (
        "SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (classid::bigint << 32) + objid::bigint = %s"
    )
    with explained(settings), connect(settings) as connection:
        row = connection.execute(holder, (_LOCK,)).fetchone()
    return f"{row[0]} (since {row[1]:%Y-%m-%d %H:%M:%S %Z})" if row else None
