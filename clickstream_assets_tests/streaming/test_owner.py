"""The owner of the streams: one process, until it ends, however it ends."""

import os
import socket
from collections.abc import Iterator

import psycopg
import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.streaming.owner import OwnedError, Presence, always_on, owner, ownership
from clickstream_assets_tests.databases import fresh_database, hanging, query

HOLDER = """
import threading
from clickstream_assets.settings import load_settings
from clickstream_assets.streaming.owner import ownership

with ownership(load_settings(), "stream"):
    print("held", flush=True)
    threading.Event().wait()
"""


PRESENT = """
import threading
from clickstream_assets.settings import load_settings
from clickstream_assets.streaming.owner import Presence

presence = Presence(load_settings(), "stream")
presence.show()
print("shown", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield own


def test_a_second_owner_learns_who_the_first_is(settings: Settings):
    assert owner(settings) is None
    with ownership(settings, "stream"):
        by_whom = r"run by clickstream stream, process \d+ on .* \(since "
        with pytest.raises(OwnedError, match=by_whom), ownership(settings, "run"):
            pass
        assert str(owner(settings)).startswith("clickstream stream, process ")
    assert owner(settings) is None
    with ownership(settings, "run"):
        assert str(owner(settings)).startswith("clickstream run")


def test_databases_have_owners_of_their_own(settings: Settings, postgres: Settings):
    with fresh_database(postgres) as other, ownership(settings, "a"), ownership(other, "b"):
        assert str(owner(other)).startswith("clickstream b")


def test_a_killed_owner_keeps_nothing(settings: Settings):
    with hanging(HOLDER, settings, "held"):
        assert owner(settings)
    while owner(settings):
        pass
    with ownership(settings, "next"):
        pass


def test_a_server_that_vanished_is_noticed_within_seconds(settings: Settings):
    with ownership(settings, "stream") as connection:
        row = connection.execute(
            "SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_count')"
        ).fetchone()
        assert row == ("5", "3")
        with socket.socket(fileno=os.dup(connection.fileno())) as client:
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [client.getsockopt(socket.IPPROTO_TCP, o) for o in options] == [5, 2, 3, 15_000]


def test_who_lost_the_lock_can_write_no_more(settings: Settings):
    with ownership(settings, "stream") as connection:
        query(
            settings,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'clickstream stream%'",
        )
        with ownership(settings, "next"), pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT")


def test_a_process_that_waits_is_seen_until_it_is_gone_and_again_when_the_database_is_back(
    settings: Settings,
):
    assert always_on(settings) is None
    with hanging(PRESENT, settings, "shown"), ownership(settings, "run"):
        assert str(always_on(settings)).startswith("clickstream stream, process ")
        assert str(owner(settings)).startswith("clickstream run, process ")
    while always_on(settings):
        pass
    first, second = Presence(settings, "stream"), Presence(settings, "stream")
    first.show()
    second.show()
    query(
        settings,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'clickstream stream%'",
    )
    while always_on(settings):
        pass
    first.show()
    assert always_on(settings)
    first.close()
    while always_on(settings):
        pass
