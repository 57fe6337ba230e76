"""Trackers of others, from npm and unchanged, in Node and in Chromium: what a shopper did is in `events`, once."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import psutil
import pytest
import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.engine import DuckDBEngine, SparkEngine
from clickstream_assets.keys import Scope
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets.streaming.live_events import start
from clickstream_assets.streaming.source import configured
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.api.served import Served, served
from clickstream_assets_tests.databases import free_port, fresh_database, suspended, with_settings
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import new_topic
from clickstream_assets_tests.web import Answer, Request, web_server

pytestmark = pytest.mark.long

SCRIPTS = Path(__file__).parent / "trackers"
KEY = "shop-1"
PATIENCE_SECONDS = 300
# Each page's call of its opening, and two clicks a round.
ROUNDS = 3
OUTAGE_SECONDS = 60


@pytest.fixture(scope="module")
def trackers() -> Path:
    """Return the folder with the trackers of `package.json`, which npm has put there once."""
    if not (npm := shutil.which("npm")):
        pytest.skip("npm is missing, so no tracker of others is tried")
    manifest = (SCRIPTS / "package.json").read_bytes()
    folder = Settings(_env_file=None).jars_path / f"trackers-{sha256(manifest).hexdigest()[:12]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_bytes(manifest)
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        installed = subprocess.run(install, capture_output=True, text=True, timeout=600)
        if installed.returncode:
            pytest.skip(f"npm could not install the trackers: {installed.stderr[-300:]}")
        (folder / "installed").touch()
    for script in SCRIPTS.iterdir():
        shutil.copy(script, folder)
    return folder


@pytest.fixture(scope="module")
def shop(trackers: Path) -> Iterator[str]:
    """Serve the shop's page; gives its address."""
    bundle = trackers / "page.bundle.js"
    esbuild = ["node", str(trackers / "node_modules/esbuild/bin/esbuild"), "page.js", "--bundle"]
    subprocess.run([*esbuild, f"--outfile={bundle}", "--log-level=error"], cwd=trackers, check=True)
    files = {
        "/": Answer(200, (SCRIPTS / "page.html").read_bytes(), {"Content-Type": "text/html"}),
        "/page.bundle.js": Answer(200, bundle.read_bytes(), {"Content-Type": "text/javascript"}),
    }

    def answer(request: Request) -> Answer:
        return files.get(urlsplit(request.path).path, Answer(404))

    with web_server(answer) as server:
        yield server.url


@pytest.fixture(scope="module")
def chromium() -> str:
    if not (found := shutil.which("chromium")):
        pytest.skip("Chromium is missing, so no tracker is tried in a browser")
    return found


@contextmanager
def sending(trackers: Path, library: str, api: Served, events: int, milliseconds: int) -> Iterator[None]:
    """Have a library send events; at the end it has delivered all of them."""
    command = ["node", "send.mjs", library, api.address, KEY, str(events), str(milliseconds)]
    with subprocess.Popen(command, cwd=trackers, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, errors
        finally:
            process.kill()


def called(
    trackers: Path, chromium: str, shop: str, api: Served, strategy: str, topic: Settings
) -> list[str]:
    """Have somebody click in a page; returns the ids of the calls once Kafka has as many records more."""
    before = records_in(topic)
    query = urlencode({"host": urlsplit(api.address).netloc, "key": KEY, "strategy": strategy})
    command = ["node", "browse.mjs", chromium, f"{shop}/?{query}", str(ROUNDS), "50"]
    with subprocess.Popen(
        command, cwd=trackers, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin
            assert process.stdout
            ids: list[str] = json.loads(process.stdout.readline())
            # And the beacon.
            wait_until_records(topic, before + len(ids) + 1)
            process.communicate("close\n", timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()
    return ids


class Shopper:
    """Somebody who stays on a page and clicks, until they are told otherwise."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def pause(self) -> set[str]:
        """Click no more; returns the ids of all calls, once each was tried to be sent."""
        return self._told("pause")

    def go_on(self) -> None:
        """Open the shop's next page."""
        assert self._process.stdin
        print("next", file=self._process.stdin, flush=True)

    def leave(self) -> set[str]:
        """Close the page; returns the ids of the calls that were answered with 200."""
        return self._told("close")

    def _told(self, line: str) -> set[str]:
        assert self._process.stdin
        assert self._process.stdout
        print(line, file=self._process.stdin, flush=True)
        return set(json.loads(self._process.stdout.readline()))


@contextmanager
def shopper(trackers: Path, chromium: str, shop: str, api: Served, strategy: str) -> Iterator[Shopper]:
    query = urlencode({"host": urlsplit(api.address).netloc, "key": KEY, "strategy": strategy})
    command = ["node", "stay.mjs", chromium, f"{shop}/?{query}", "500"]
    with subprocess.Popen(
        command, cwd=trackers, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Shopper(process)
        finally:
            process.kill()


def ids_in(topic: Settings) -> set[str]:
    """Return the ids of Segment's calls in the topic."""
    topics = Topics(topic)
    ranges = [
        OffsetRange(partition, 0, held.high) for partition, held in topics.offsets().items() if held.high
    ]
    return {
        json.loads(value)["messageId"]
        for batch in topics.read_here(ranges, batch=1, room=1 << 30)
        for value in batch.column("value").to_pylist()
    }


def wait_until_ids(topic: Settings, ids: set[str]) -> None:
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(1),
        reraise=True,
    ):
        with attempt:
            assert ids - ids_in(topic) == set()


def records_in(topic: Settings) -> int:
    return sum(held.high for held in Topics(topic).offsets().values())


def wait_until_records(topic: Settings, number: int) -> None:
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(0.5),
        reraise=True,
    ):
        with attempt:
            assert records_in(topic) >= number


def variables(topic: Settings) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topic.kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic.kafka_topic,
        "API_KEYS": entry(KEY, Scope.COLLECT, Scope.READ),
        "COLLECTOR_ALLOWED_ORIGINS": "*",
    }


def shown(events: Iterable[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return who did what with which product, by the events' ids."""
    names = ("event_type", "user_id", "anonymous_id", "product_id")
    return {event["event_id"]: tuple(event[name] for name in names) for event in events}


def test_trackers_need_a_new_address_and_nothing_else(
    trackers: Path,
    chromium: str,
    shop: str,
    servers: Settings,
    duckdb_engine: DuckDBEngine,
    spark_engine: SparkEngine,
    tmp_path: Path,
) -> None:
    with fresh_database(servers) as database:
        topic = with_settings(
            new_topic(database, partitions=3),
            lake_path=str(tmp_path / "lake"),
            checkpoint_path=str(tmp_path / "checkpoints"),
            elasticsearch_alias=f"live_{uuid4().hex}",
        )
        with served(topic, **variables(topic), ELASTICSEARCH_ALIAS=topic.elasticsearch_alias) as api:
            for library in ("segment", "rudderstack", "posthog"):
                with sending(trackers, library, api, 7, 10):
                    pass
            ids = [
                *called(trackers, chromium, shop, api, "standard", topic),
                *called(trackers, chromium, shop, api, "batching", topic),
            ]
            query = start(configured(spark_engine.session, topic), topic, {"availableNow": True})
            query.awaitTermination()
            with closing(LiveEvents(topic)) as live:
                live.client.indices.refresh(index=topic.elasticsearch_alias)
            answer = requests.get(f"{api.address}/real-time-events?n=1000", auth=(KEY, ""), timeout=60)
    ingestion = Ingestion.of(topic, duckdb_engine)
    ingestion.run()
    contents = ingestion.contents()
    assert contents["rejected_events"] == contents["conflicting_events"] == []
    events = contents["events"]
    assert answer.status_code == 200
    assert shown(answer.json()["real_time_events"]) == shown(events)
    views = Counter(row["user_id"] for row in events if row["event_type"] == "view")
    assert views == {"segment-user": 7, "rudderstack-user": 7, "posthog-user": 7}
    assert len({row["product_id"] for row in events if row["event_type"] == "view"}) == 7
    # Programs of servers are not their shoppers'.
    assert not any(row["is_bot"] or row["user_agent"] for row in events if row["event_type"] == "view")
    by_page = {row["event_id"]: row for row in events if row["event_id"] in ids}
    assert Counter(row["event_type"] for row in by_page.values()) == {
        "page_view": 2,
        "add_to_cart": 4 * ROUNDS,
    }
    assert {row["price"] for row in by_page.values() if row["event_type"] == "add_to_cart"} == {12.5}
    assert all("Chrome" in row["user_agent"] for row in by_page.values())
    assert {row["event_id"] for row in events if row["event_type"] == "begin_checkout"} == {
        "beacon-standard",
        "beacon-batching",
    }


def test_nothing_that_was_acknowledged_is_lost_or_doubled_in_an_outage_and_the_rest_is_sent_again(
    trackers: Path,
    chromium: str,
    shop: str,
    kafka: Settings,
    stack: Stack,
    duckdb_engine: DuckDBEngine,
    tmp_path: Path,
) -> None:
    [kafka_pid] = [server.pid for server in stack.status() if server.title == "Kafka"]
    assert kafka_pid
    topic = new_topic(kafka, partitions=3)
    settings, given = (
        Settings(_env_file=None),
        variables(topic)
        | {
            "API_PORT": str(free_port()),
            "TMPDIR": str(tmp_path),
        },
    )
    with ExitStack() as apis:
        api = apis.enter_context(served(settings, **given))
        with (
            # So many that the last ones are sent when all is over.
            sending(trackers, "segment", api, 2 * OUTAGE_SECONDS, 1000),
            shopper(trackers, chromium, shop, api, "standard") as of_calls,
            shopper(trackers, chromium, shop, api, "batching") as of_batches,
        ):
            wait_until_records(topic, 20)
            with suspended(kafka_pid):
                time.sleep(OUTAGE_SECONDS)
            for process in [*psutil.Process(api.process.pid).children(), api.process]:
                process.kill()
            apis.enter_context(served(settings, **given))
            called = of_calls.pause() | of_batches.pause()
            # A page's tracker tries a call again after pauses that double without end, and keeps it in the browser for
            # the shop's next page. One that sends batches tries ten times, at most a minute apart; of what a page has
            # when it ends, the browser still sends 64 kB.
            of_calls.go_on()
            wait_until_ids(topic, called)
            acknowledged = of_calls.leave() | of_batches.leave()
    ingestion = Ingestion.of(with_settings(topic, lake_path=str(tmp_path / "lake")), duckdb_engine)
    ingestion.run()
    contents = ingestion.contents()
    assert contents["rejected_events"] == contents["conflicting_events"] == []
    events = Counter(row["event_id"] for row in contents["events"])
    assert set(events.values()) == {1}
    assert acknowledged
    assert acknowledged - set(events) == set()
    assert called - set(events) == set()
    views = Counter(row["user_id"] for row in contents["events"] if row["event_type"] == "view")
    assert views == {"segment-user": 2 * OUTAGE_SECONDS}
    # It was an outage: some came in twice.
    assert contents["duplicate_events"]
