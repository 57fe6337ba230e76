import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import (
    PostgresError,
    PostgresProblem,
    connect,
    explained,
)
from clickstream_assets.stores.postgres.migrate import migrate
from clickstream_assets_tests.databases import PrivateServer, free_port, with_settings


@pytest.fixture(scope="module")
def settings(private_postgres: PrivateServer) -> Settings:
    """A server that asks for a password, which a local stack need not."""
    return private_postgres.settings


@pytest.mark.parametrize(
    ("changes", "problem", "message"),
    [
        (
            {"postgres_password": "wrong"},
            PostgresProblem.PASSWORD,
            r"POSTGRES_USER=owner .*POSTGRES_PASSWORD",
        ),
        ({"postgres_password": ""}, PostgresProblem.PASSWORD, "POSTGRES_PASSWORD is empty; set it"),
        ({"postgres_user": "nobody"}, PostgresProblem.PASSWORD, "POSTGRES_USER=nobody"),
        (
            {"postgres_db": "nowhere"},
            PostgresProblem.DATABASE_MISSING,
            r"POSTGRES_DB=nowhere .*`createdb nowhere`",
        ),
        (
            {"postgres_port": free_port()},
            PostgresProblem.UNREACHABLE,
            r"POSTGRES_PORT=\d+ .*Connection refused",
        ),
        (
            {"postgres_host": "no.such.host.invalid"},
            PostgresProblem.UNREACHABLE,
            "POSTGRES_HOST=no.such.host.invalid",
        ),
    ],
    ids=["wrong password", "no password", "unknown user", "no database", "nobody listens", "unknown host"],
)
def test_failed_connection_names_the_setting_and_the_fix(
    settings: Settings, changes: dict[str, object], problem: PostgresProblem, message: str
) -> None:
    with pytest.raises(PostgresError, match=message) as caught:
        connect(with_settings(settings, **changes))
    assert caught.value.problem is problem
    assert "a secret" not in str(caught.value)


def test_right_password_connects(settings: Settings) -> None:
    with connect(settings) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("clickstream",)


PATIENCE = 2
# A call, the question whether the server answers others, and a machine that is busy.
ENOUGH_SECONDS = 30


def _insert(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO numbers VALUES (1)")


def _copy(connection: psycopg.Connection) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
        while True:
            copy.write(b"2\n" * 100_000)


def _fetch(connection: psycopg.Connection) -> None:
    for _ in connection.cursor().stream("SELECT generate_series(1, 10000000)"):
        pass


def test_calls_to_a_hung_server_end_and_another_try_succeeds(private_postgres: PrivateServer) -> None:
    settings = with_settings(private_postgres.settings, postgres_timeout_seconds=PATIENCE)

    def failure(call: Callable[[], object]) -> PostgresError:
        with pytest.raises(PostgresError) as caught, explained(settings):
            call()
        return caught.value

    with connect(settings) as connection:
        connection.execute("CREATE TABLE numbers (number integer)")
    connections = [connect(settings, autocommit=True) for _ in range(3)]
    calls: list[Callable[[], object]] = [
        *(
            partial(use, connection)
            for use, connection in zip((_insert, _copy, _fetch), connections, strict=True)
        ),
        partial(connect, settings),
        partial(migrate, settings),
    ]
    with private_postgres.hung(), ThreadPoolExecutor(len(calls)) as threads:
        began = time.monotonic()
        failures = list(threads.map(failure, calls))
        assert time.monotonic() - began < ENOUGH_SECONDS
    assert {error.problem for error in failures} == {PostgresProblem.SILENT}
    assert all(error.retryable for error in failures)
    assert all(connection.closed for connection in connections)
    where = r"to POSTGRES_HOST=\S+ POSTGRES_PORT=\d+; see whether its process is stopped"
    for error, what in zip(
        failures, [*["no answer for 2 s"] * 3, *["connection timeout expired"] * 2], strict=True
    ):
        assert re.search(f"{what}, {where}", str(error))
    with connect(settings) as connection:
        connection.execute("INSERT INTO numbers VALUES (3)")
        # What was under way was undone, as its connection is closed.
        assert connection.execute("SELECT number FROM numbers").fetchall() == [(3,)]


def test_a_long_statement_and_a_wait_for_a_lock_go_on_as_long_as_the_server_answers_others(
    private_postgres: PrivateServer,
) -> None:
    settings = with_settings(private_postgres.settings, postgres_timeout_seconds=PATIENCE)
    lock = "SELECT pg_advisory_xact_lock(1)"

    def hold() -> None:
        with connect(settings) as connection:
            connection.execute(lock)
            holds.append(True)
            connection.execute("SELECT pg_sleep(%s)", (2.5 * PATIENCE,))

    holds: list[bool] = []
    with ThreadPoolExecutor(1) as other, connect(settings) as connection:
        held = other.submit(hold)
        while not holds and not held.done():
            time.sleep(0.01)
        began = time.monotonic()
        connection.execute(lock)
        assert time.monotonic() - began > PATIENCE
        assert held.result() is None
