"""Servers that are stopped, so that their kernel takes connections and nothing answers: requests end, and soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle, islice

import pytest
import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.migrate import migrate
from clickstream_assets_tests.api.conftest import publish
from clickstream_assets_tests.api.served import Served, served
from clickstream_assets_tests.databases import PrivateServer, free_port, suspended, with_settings

CLIENTS = 40
# On a busy machine clients and server themselves may take long.
BOUNDS = pytest.mark.parametrize(
    ("seconds", "live_seconds"), [(30, 20), pytest.param(6, 1, marks=pytest.mark.long)]
)
ANSWERS = {
    "/sessions": (503, "postgres_silent"),
    "/api/recommend/u1": (503, "postgres_silent"),
    "/api/funnel": (503, "postgres_silent"),
    "/metrics": (200, None),
    "/health/ready": (503, "not_ready"),
}


@pytest.fixture(scope="module")
def database(private_postgres: PrivateServer) -> Settings:
    migrate(private_postgres.settings)
    publish(private_postgres.settings)
    # Where nobody listens, if a test asks for no other.
    return with_settings(private_postgres.settings, elasticsearch_url=f"http://127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def api(database: Settings) -> Iterator[Served]:
    with served(database) as api:
        yield api


def ask(api: Served, path: str, seconds: float) -> requests.Response:
    """Return the answer that came within so many seconds."""
    began = time.monotonic()
    answer = requests.get(f"{api.address}{path}", timeout=seconds)
    assert time.monotonic() - began < seconds, path
    return answer


def ask_at_once(api: Served, paths: list[str], seconds: float) -> list[requests.Response]:
    with ThreadPoolExecutor(len(paths)) as clients:
        return list(clients.map(lambda path: ask(api, path, seconds), paths))


@contextmanager
def alive(api: Served, seconds: float) -> Iterator[None]:
    """The process says that it is up all the time, each time within so many seconds."""
    stop = threading.Event()

    def look() -> int:
        times = 0
        while not stop.wait(0.05) or not times:
            assert ask(api, "/health/live", seconds).json() == {"status": "live"}
            times += 1
        return times

    with ThreadPoolExecutor(1) as other:
        looked = other.submit(look)
        try:
            yield
        finally:
            stop.set()
        assert looked.result()


def wait_until_all_are_answered(api: Served, paths: list[str]) -> None:
    """Every process of the server answers, and without anybody's doing."""
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(30),
        wait=wait_fixed(0.1),
        reraise=True,
    ):
        with attempt:
            assert {answer.status_code for answer in ask_at_once(api, paths, 30)} == {200}


@BOUNDS
@pytest.mark.parametrize("connected", [True, False], ids=["with open connections", "without"])
def test_forty_clients_of_a_hung_postgresql_are_answered(
    api: Served, private_postgres: PrivateServer, connected: bool, seconds: float, live_seconds: float
) -> None:
    if not connected:
        private_postgres.stop()
        private_postgres.start()
    paths = list(islice(cycle(ANSWERS), CLIENTS))
    if connected:
        wait_until_all_are_answered(api, paths)
    hung: AbstractContextManager[None] = private_postgres.hung()
    with hung, alive(api, live_seconds):
        # And those who ask again.
        for _ in range(2):
            for path, answer in zip(paths, ask_at_once(api, paths, seconds), strict=True):
                status, code = ANSWERS[path]
                assert answer.status_code == status, answer.text
                if path == "/metrics":
                    assert "clickstream_postgres_up 0.0" in answer.text
                    continue
                assert (answer.headers["Content-Type"], answer.headers["Retry-After"]) == (
                    "application/problem+json",
                    "5",
                )
                assert answer.json()["code"] in (code, "postgres_too_slow")
                assert "127.0.0.1" not in answer.text
    wait_until_all_are_answered(api, paths)


@BOUNDS
@pytest.mark.long
def test_forty_clients_of_a_hung_elasticsearch_are_answered(
    database: Settings, elasticsearch: Settings, stack: Stack, seconds: float, live_seconds: float
) -> None:
    [pid] = [server.pid for server in stack.status() if server.title == "Elasticsearch"]
    assert pid
    paths = list(islice(cycle(["/real-time-events", "/health/ready", "/sessions"]), CLIENTS))
    settings = with_settings(database, elasticsearch_url=elasticsearch.elasticsearch_url)
    with served(settings) as api:
        wait_until_all_are_answered(api, paths)
        with suspended(pid), alive(api, live_seconds):
            for path, answer in zip(paths, ask_at_once(api, paths, seconds), strict=True):
                if path == "/real-time-events":
                    assert (answer.status_code, answer.json()["code"]) == (503, "elasticsearch_silent")
                    assert answer.headers["Retry-After"] == "5"
                else:
                    assert answer.status_code == 200
                    assert path != "/health/ready" or answer.json()["status"] == "degraded"
        wait_until_all_are_answered(api, paths)
