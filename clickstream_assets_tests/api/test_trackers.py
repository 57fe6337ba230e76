"""Trackers of others, from npm and unchanged, in Node and in Chromium: what a shopper did is in `events`, once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets_tests.api.served import Served, served
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import new_topic
from clickstream_assets_tests.web import Answer, Request, web_server

pytestmark = pytest.mark.long

SCRIPTS = Path(__file__).parent / "trackers"
KEY = "shop-1"
PATIENCE_SECONDS = 300
# Each page's call of its opening, and two clicks a round.
ROUNDS = 3


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
        "COLLECTOR_WRITE_KEYS": KEY,
        "COLLECTOR_ALLOWED_ORIGINS": "*",
    }


def test_trackers_need_a_new_address_and_nothing_else(
    trackers: Path, chromium: str, shop: str, kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
) -> None:
    topic = new_topic(kafka, partitions=3)
    with served(Settings(_env_file=None), **variables(topic)) as api:
        for library in ("segment", "rudderstack", "posthog"):
            with sending(trackers, library, api, 7, 10):
                pass
        ids = [
            *called(trackers, chromium, shop, api, "standard", topic),
            *called(trackers, chromium, shop, api, "batching", topic),
        ]
    ingestion = Ingestion.of(with_settings(topic, lake_path=str(tmp_path / "lake")), duckdb_engine)
    ingestion.run()
    contents = ingestion.contents()
    assert contents["rejected_events"] == contents["conflicting_events"] == []
    events = contents["events"]
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
