"""Connections to the served tables' database, and errors that say which setting to mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5
# A server's machine that vanished says no goodbye: found out after 11 s of silence, or 15 s after something was sent
# that it did not confirm, where the kernel alone would wait for 15 minutes and more.
_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class PostgresProblem(StrEnum):
    """A kind of failure of the database, in words that do not reveal where the database is."""

    UNREACHABLE = "PostgreSQL cannot be reached"
    PASSWORD = "PostgreSQL does not accept the user or the password"
    DATABASE_MISSING = "the database does not exist"
    TABLE_MISSING = "a table is missing"
    TABLE_IN_THE_WAY = "a table of that name exists already"
    OTHER_VERSION = "another version of the product made the tables"
    DISK_FULL = "PostgreSQL's disk is full"
    NOT_ALLOWED = "the user may not do this"
    BUSY = "another transaction holds the table"
    TOO_SLOW = "PostgreSQL took too long"
    FAILED = "PostgreSQL reported an error"


_PASSING = {PostgresProblem.UNREACHABLE, PostgresProblem.BUSY, PostgresProblem.TOO_SLOW}


class PostgresError(ClickstreamError):
    """PostgreSQL cannot do what is asked; the message names the setting or table, and the fix.

    Attributes:
        problem: What is wrong, without host names or values.
    """

    def __init__(self, problem: PostgresProblem, detail: str) -> None:
        super().__init__(f"{problem}: {detail}", retryable=problem in _PASSING)
        self.problem = problem


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection to the served tables' database.

    Raises:
        PostgresError: naming the POSTGRES_* setting and the fix.
    """
    try:
        return psycopg.connect(
            settings.postgres_conninfo,
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name="clickstream",
            **_KEEPALIVE,
        )
    except psycopg.OperationalError as error:
        raise _connection_error(error, settings) from None


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn the errors of the statements inside into `PostgresError`."""
    try:
        yield
    except psycopg.Error as error:
        raise _statement_error(error, settings) from error


def _connection_error(error: psycopg.OperationalError, settings: Settings) -> PostgresError:
    # libpq reports a refused connection as text alone, without an SQLSTATE; whether a password was asked
    # for is a flag that does not depend on the server's language.
    text = str(error)
    asked_for_password = error.pgconn is not None and (
        error.pgconn.needs_password or error.pgconn.used_password
    )
    if f'database "{settings.postgres_db}" does not exist' in text:
        return PostgresError(
            PostgresProblem.DATABASE_MISSING,
            f"POSTGRES_DB={settings.postgres_db} is not on {_server(settings)}; create it "
            f"(`createdb {settings.postgres_db}`), or set POSTGRES_DB to one that is there",
        )
    if f'role "{settings.postgres_user}" does not exist' in text or (
        asked_for_password and "authentication failed" in text
    ):
        return PostgresError(
            PostgresProblem.PASSWORD,
            f"{_server(settings)} refused POSTGRES_USER={settings.postgres_user} with this "
            "POSTGRES_PASSWORD; set both to a role of that server",
        )
    if asked_for_password and not settings.postgres_password.get_secret_value():
        return PostgresError(
            PostgresProblem.PASSWORD,
            f"{_server(settings)} asks for a password and POSTGRES_PASSWORD is empty; set it",
        )
    return PostgresError(
        PostgresProblem.UNREACHABLE,
        f"no connection to {_server(settings)} ({_first_line(text)}); start it (`clickstream stack up` "
        "starts a local one), or set POSTGRES_HOST and POSTGRES_PORT to where it is",
    )


def _statement_error(error: psycopg.Error, settings: Settings) -> PostgresError:
    message = error.diag.message_primary or _first_line(str(error))
    where = f"{settings.postgres_db} on {_server(settings)}"
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            return PostgresError(
                PostgresProblem.TABLE_MISSING, f"{message}, in {where}; run `clickstream prepare`"
            )
        case psycopg.errors.DuplicateTable():
            return PostgresError(
                PostgresProblem.TABLE_IN_THE_WAY,
                f"{message}, in {where}, and `clickstream prepare` did not make it; "
                "rename it, or set POSTGRES_DB to another database",
            )
        case psycopg.errors.DiskFull():
            return PostgresError(
                PostgresProblem.DISK_FULL,
                f"{message}, on {_server(settings)}; free space there. Nothing was changed",
            )
        case psycopg.errors.InsufficientPrivilege():
            return PostgresError(
                PostgresProblem.NOT_ALLOWED,
                f"{message}, in {where}; grant it to POSTGRES_USER={settings.postgres_user}",
            )
        case psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return PostgresError(
                PostgresProblem.BUSY,
                f"{message}, in {where}; nothing was changed, so try again once it has ended",
            )
        case psycopg.errors.QueryCanceled():
            return PostgresError(
                PostgresProblem.TOO_SLOW, f"{message}, in {where}; see what else the server is doing"
            )
        case psycopg.OperationalError():
            return PostgresError(
                PostgresProblem.UNREACHABLE,
                f"the connection to {_server(settings)} broke ({message}); try again once the server is back",
            )
        case _:
            return PostgresError(PostgresProblem.FAILED, f"{message} (SQLSTATE {error.sqlstate}), in {where}")


def _server(settings: Settings) -> str:
    return f"POSTGRES_HOST={settings.postgres_host} POSTGRES_PORT={settings.postgres_port}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
