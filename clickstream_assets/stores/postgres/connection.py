"""Connections to the served tables' database, and errors that say which setting to mend."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import Row, TupleRow

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import DatabaseRole, Settings

T = TypeVar("T")

# A server's machine that vanished says no goodbye: found out after 11 s of silence, or 15 s after something was sent
# that it did not confirm, where the kernel alone would wait for 15 minutes and more.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class PostgresProblem(StrEnum):
    """A kind of failure of the database, in words that do not reveal where the database is."""

    UNREACHABLE = "PostgreSQL cannot be reached"
    SILENT = "PostgreSQL does not answer"
    PASSWORD = "PostgreSQL does not accept the user or the password"  # noqa: S105 - no password, but what to do without one
    DATABASE_MISSING = "the database does not exist"
    TABLE_MISSING = "a table is missing"
    TABLE_IN_THE_WAY = "a table of that name exists already"
    OTHER_VERSION = "another version of the product made the tables"
    DISK_FULL = "PostgreSQL's disk is full"
    NOT_ALLOWED = "the user may not do this"
    BUSY = "another transaction holds the table"
    TOO_SLOW = "PostgreSQL took too long"
    FAILED = "PostgreSQL reported an error"


_PASSING = {
    PostgresProblem.UNREACHABLE,
    PostgresProblem.SILENT,
    PostgresProblem.DISK_FULL,
    PostgresProblem.BUSY,
    PostgresProblem.TOO_SLOW,
}


class PostgresError(ClickstreamError):
    """PostgreSQL cannot do what is asked; the message names the setting or table, and the fix.

    Attributes:
        problem: What is wrong, without host names or values.
    """

    def __init__(self, problem: PostgresProblem, detail: str) -> None:
        super().__init__(f"{problem}: {detail}", retryable=problem in _PASSING)
        self.problem = problem


class SilentError(psycopg.OperationalError):
    """The server gave no sign of life in the time that it has for one."""


class Connection(psycopg.Connection[Row]):
    """A connection whose calls end although the server hangs: is stopped, or waits for a disk that answers nothing.

    Nothing else ends them then: the kernel of such a server answers for it, so that no keepalive fails, and
    `statement_timeout` is kept by the server itself. A connection that gave up is closed.

    Attributes:
        patience_seconds: silence after which a call asks `is_server_alive`.
        is_server_alive: whether the server answers others. If so, the call goes on: a statement may be long, or wait
            for a lock.
        deadline: the time, as of `time.monotonic`, at which any call ends.
    """

    patience_seconds: float = math.inf
    is_server_alive: Callable[[], bool] = staticmethod(lambda: False)
    deadline: float = math.inf
    _end: psycopg.OperationalError | None = None

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Run one of psycopg's generators, as every call does.

        Raises:
            SilentError: the server hangs; it may carry out what it was sent, once it goes on.
            QueryCanceled: it is past the deadline.
        """
        if self._end:
            raise self._end
        return super().wait(self._watched(gen), *args, **kwargs)

    def _watched(self, gen: PQGen[T]) -> PQGen[T]:
        heard = monotonic()
        try:
            waits_for = next(gen)
            while True:
                # Nothing is ready after psycopg's interval, a tenth of a second.
                ready = yield waits_for
                now = monotonic()
                if now > self.deadline:
                    self._give_up(
                        psycopg.errors.QueryCanceled("there was no time left to wait for the answer")
                    )
                if ready:
                    heard = now
                elif now - heard > self.patience_seconds:
                    if not self.is_server_alive():
                        self._give_up(SilentError(f"no answer for {self.patience_seconds:g} s"))
                    heard = monotonic()
                waits_for = gen.send(ready)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def _give_up(self, error: psycopg.OperationalError) -> None:
        # Also what psycopg does next with it, such as to end a transaction, gets this error and not one that follows.
        self._end = error
        self.close()
        raise error


def connect(
    settings: Settings, *, autocommit: bool = False, role: DatabaseRole = DatabaseRole.PIPELINE
) -> Connection[TupleRow]:
    """Open a connection to the served tables' database, as a role.

    Its calls take as long as their statements do, but not longer than about twice POSTGRES_TIMEOUT_SECONDS if the
    server hangs.

    Raises:
        PostgresError: naming the POSTGRES_* setting and the fix.
    """
    try:
        connection = _connect(settings, "clickstream", autocommit, role)
    except psycopg.OperationalError as error:
        raise connection_error(error, settings, role) from None
    connection.patience_seconds = settings.postgres_timeout_seconds
    connection.is_server_alive = partial(_answers, settings, role)
    return connection


def _connect(settings: Settings, name: str, autocommit: bool, role: DatabaseRole) -> Connection[TupleRow]:
    return Connection.connect(
        settings.conninfo_of(role),
        autocommit=autocommit,
        connect_timeout=math.ceil(settings.postgres_timeout_seconds),
        application_name=name,
        **KEEPALIVE,
    )


def _answers(settings: Settings, role: DatabaseRole) -> bool:
    """Return whether the server answers a new connection, be it with a refusal."""
    try:
        with _connect(settings, "clickstream, whether it answers", True, role) as connection:
            connection.patience_seconds = settings.postgres_timeout_seconds
            connection.execute("SELECT")
    except (psycopg.errors.ConnectionTimeout, SilentError):
        return False
    except psycopg.OperationalError:
        # Too many connections, or shutting down. Where nobody listens any more, the old connection breaks by itself.
        return True
    return True


@contextmanager
def explained(settings: Settings, role: DatabaseRole = DatabaseRole.PIPELINE) -> Iterator[None]:
    """Turn the errors of a role's statements inside into `PostgresError`."""
    try:
        yield
    except psycopg.Error as error:
        raise _statement_error(error, settings, role) from error


def connection_error(
    error: psycopg.OperationalError, settings: Settings, role: DatabaseRole
) -> PostgresError:
    """Return the error of ours for a connection that could not be opened as a role."""
    login = settings.login(role)
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
    if f'role "{login.user}" does not exist' in text or (
        asked_for_password and "authentication failed" in text
    ):
        return PostgresError(
            PostgresProblem.PASSWORD,
            f"{_server(settings)} refused {login.setting}_USER={login.user} with this {login.setting}_PASSWORD; "
            + (
                "set both to a role of that server"
                if login.role is DatabaseRole.OWNER
                else "run `clickstream prepare` with both, which makes the role"
            ),
        )
    if asked_for_password and not login.password.get_secret_value():
        return PostgresError(
            PostgresProblem.PASSWORD,
            f"{_server(settings)} asks for a password and {login.setting}_PASSWORD is empty; set it",
        )
    if isinstance(error, (psycopg.errors.ConnectionTimeout, SilentError)):
        return _silent(settings, _first_line(text))
    return PostgresError(
        PostgresProblem.UNREACHABLE,
        f"no connection to {_server(settings)} ({_first_line(text)}); start it (`clickstream stack up` "
        "starts a local one), or set POSTGRES_HOST and POSTGRES_PORT to where it is",
    )


def _statement_error(error: psycopg.Error, settings: Settings, role: DatabaseRole) -> PostgresError:
    login = settings.login(role)
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
                f"{message}, in {where}; "
                + (
                    f"grant it to POSTGRES_USER={login.user}"
                    if login.role is DatabaseRole.OWNER
                    else f"run `clickstream prepare`, which grants {login.setting}_USER={login.user} what it needs"
                ),
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
        case SilentError():
            return _silent(settings, message)
        case psycopg.OperationalError():
            return PostgresError(
                PostgresProblem.UNREACHABLE,
                f"the connection to {_server(settings)} broke ({message}); try again once the server is back",
            )
        case _:
            return PostgresError(PostgresProblem.FAILED, f"{message} (SQLSTATE {error.sqlstate}), in {where}")


def _silent(settings: Settings, what: str) -> PostgresError:
    return PostgresError(
        PostgresProblem.SILENT,
        f"{what}, to {_server(settings)}; see whether its process is stopped or waits for its disk, and whether a "
        "firewall drops what is sent there",
    )


def _server(settings: Settings) -> str:
    return f"POSTGRES_HOST={settings.postgres_host} POSTGRES_PORT={settings.postgres_port}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
