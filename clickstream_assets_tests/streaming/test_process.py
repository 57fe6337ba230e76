"""`clickstream stream` as a process: killed again and again, or left without its servers, its tables end the same."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from clickstream_assets.analytics.schema import PRODUCT_WINDOWS
from clickstream_assets.elasticsearch import LiveEvents
from clickstream_assets.engine import SparkEngine
from clickstream_assets.kafka import Topic
from clickstream_assets.local.stack import Stack
from clickstream_assets.prepare import prepare_servers
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.sinks import ensure_topic
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.errors import StreamError
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.process import Supervisor
from clickstream_assets.streaming.source import configured
from clickstream_assets.streaming.store import progress_of
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import fresh_database, query, with_settings
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop

COMMAND = [str(Path(sys.executable).with_name("clickstream")), "stream"]
START = at("2024-05-01 12:00")
PATIENCE_SECONDS = 240
KILLS = 10
QUICK = {
    "views_threshold": 20,
    "stream_trigger_seconds": 0.5,
    "stream_lake_seconds": 1,
    "kafka_timeout_seconds": 4,
    "elasticsearch_patience_seconds": 2,
}


def wait_until(is_so: Callable[[], bool], log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()[-3000:] if log else "it took too long"
        time.sleep(0.05)


def traffic(first: int, number: int) -> list[dict[str, Any]]:
    """Events a second apart, in order: every other one a view of the product of the quarter of an hour."""
    events = []
    for i in range(first, first + number):
        product = f"hot{i // 900 % 2}" if i % 2 else f"p{i % 7}"
        kind = "purchase" if i % 61 == 0 else "view"
        moment = START + timedelta(seconds=i)
        events.append(click(moment, i, product_id=product, user_id=f"u{i % 50}", event_type=kind))
    return events


@contextmanager
def feeding(shop: Shop) -> Iterator[None]:
    """Send events all the time."""
    stop = threading.Event()

    def feed() -> None:
        for number in count():
            shop.send(traffic(number * 40, 40))
            if stop.wait(0.5):
                return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def running(shop: Shop, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, killed if it is still there at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            COMMAND, env=shop.environment(), stdout=output, stderr=output, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def counted_batches(shop: Shop) -> int:
    progress = progress_of(shop.settings)
    return progress.batch_id if progress else 0


def has_caught_up(shop: Shop) -> bool:
    progress = progress_of(shop.settings)
    ends = {partition: offsets.high for partition, offsets in Topic(shop.settings).offsets().items()}
    return progress is not None and progress.offsets == ends


def documents(settings: Settings) -> int:
    live = LiveEvents(settings)
    try:
        index = {"index": settings.elasticsearch_alias, "ignore_unavailable": True}
        live.client.indices.refresh(**index)
        return int(live.client.count(**index)["count"])
    finally:
        live.close()


def assert_undisturbed(shop: Shop, spark: SparkEngine) -> None:
    """The tables are those of one run over the same topic."""
    with fresh_database(shop.settings) as database:
        folder = Path(shop.settings.lake).parent / "undisturbed"
        settings = with_settings(
            database, lake_path=str(folder / "lake"), checkpoint_path=str(folder / "checkpoints")
        )
        other = Shop(settings, spark.session)
        other.run()
        assert shop.windows() == other.windows()
        assert shop.alerts() == other.alerts()
        assert other.alerts()
    opened = Counter(product for product, kind in shop.messages() if kind == "opened")
    assert opened == Counter(alert["product_id"] for alert in shop.alerts())


@pytest.mark.timeout(1800)
def test_a_stream_killed_again_and_again_ends_in_the_tables_of_an_undisturbed_one(
    settings_for_stack: Settings, spark_engine: SparkEngine, tmp_path: Path
):
    moments = random.Random(5)
    log = tmp_path / "log"
    with new_shop(settings_for_stack, tmp_path, **QUICK) as shop:
        with feeding(shop):
            for _ in range(KILLS):
                before = counted_batches(shop)
                with running(shop, log) as process:
                    wait_until(lambda before=before: counted_batches(shop) > before, log)
                    time.sleep(moments.uniform(0, 1.5))
                    process.kill()
        with running(shop, log) as process:
            wait_until(lambda: has_caught_up(shop) and documents(shop.settings) == len(shop.sent), log)
            # The windows that the last events close are closed by a batch without any.
            wait_until(lambda: any(row["is_final"] for row in shop.windows()), log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert_undisturbed(shop, spark_engine)


@pytest.fixture
def always_on(shop: Shop) -> Iterator[Callable[[], Thread]]:
    """Starts what `clickstream stream` runs, in a thread, which ends with the test."""
    assert shop.spark
    stop = threading.Event()
    session = configured(shop.spark, shop.settings)
    threads: list[Thread] = []

    def start() -> Thread:
        threads.append(Thread(target=Supervisor(shop.settings, lambda: session, stop).run))
        threads[-1].start()
        return threads[-1]

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def test_an_always_on_stream_waits_for_its_topic_and_for_its_turn(
    shop: Shop, always_on: Callable[[], Thread], caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    heartbeat = tmp_path / "heartbeat"

    def assert_beats() -> None:
        heartbeat.unlink(missing_ok=True)
        wait_until(heartbeat.exists)

    caplog.set_level(logging.INFO)
    topic = shop.settings.kafka_topic
    shop.settings = with_settings(
        shop.settings, kafka_topic=f"{topic}-later", stream_heartbeat_path=heartbeat, **QUICK
    )
    with ownership(shop.settings, "run"):
        always_on()
        wait_until(lambda: "the streams are run by clickstream run" in caplog.text)
        assert_beats()
    wait_until(lambda: "waiting for it" in caplog.text)
    assert_beats()
    ensure_topic(shop.settings)
    shop.send(traffic(0, 100))
    wait_until(lambda: has_caught_up(shop) and documents(shop.settings) == 100)
    statuses = "SELECT query, rows, lag FROM stream_status ORDER BY query"
    expected = [(name, 100, {"0": 0, "1": 0, "2": 0}) for name in ("live_events", "product_windows")]
    wait_until(lambda: query(shop.settings, statuses) == expected)
    wait_until(lambda: shop.copy(PRODUCT_WINDOWS) == shop.windows())
    assert_beats()


def test_a_heartbeat_that_cannot_be_shown_is_named_before_anything_is_done(tmp_path: Path):
    path = tmp_path / "nowhere" / "heartbeat"
    settings = Settings(_env_file=None, stream_heartbeat_path=path)

    def no_session() -> None:
        raise AssertionError("Spark was asked for")

    with pytest.raises(StreamError, match=f"STREAM_HEARTBEAT_PATH={path} cannot be written: No such file"):
        Supervisor(settings, no_session, threading.Event()).run()


def test_an_always_on_stream_ends_where_a_person_has_to_do_something(
    shop: Shop,
):
    shop.send(traffic(0, 10))
    shop.run()
    shop.settings = with_settings(shop.settings, slide_duration="2 minutes")
    assert shop.spark
    with pytest.raises(CheckpointError, match="SLIDE_DURATION is '120 seconds' and was '300 seconds'"):
        Supervisor(shop.settings, lambda: configured(shop.spark, shop.settings), threading.Event()).run()


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="clickstream-outages-") as home:
        stack = Stack(Path(home), Settings(_env_file=None).jars_path)
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


def stop_server(stack: Stack, title: str) -> None:
    (pid,) = [server.pid for server in stack.status() if server.title == title]
    assert pid
    os.kill(pid, signal.SIGINT if title == "PostgreSQL" else signal.SIGKILL)


@pytest.mark.timeout(1800)
def test_a_stream_outlives_its_servers(own_stack: Stack, spark_engine: SparkEngine, tmp_path: Path):
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in own_stack.env().items()})
    prepare_servers(settings)
    log = tmp_path / "log"
    signs = {
        "PostgreSQL": "the streams stopped: PostgreSQL cannot be reached",
        "Kafka": "the streams stopped: KAFKA_BOOTSTRAP_SERVERS",
        "Elasticsearch": "the live events stopped: ",
    }
    with new_shop(settings, tmp_path, **QUICK) as shop, running(shop, log) as process:
        sent = 0
        for title, sign in signs.items():
            shop.send(traffic(sent, 900))
            sent += 900
            wait_until(lambda: has_caught_up(shop), log)
            stop_server(own_stack, title)
            if title != "Kafka":
                shop.send(traffic(sent, 300))
                sent += 300
            if title == "Elasticsearch":
                # The windows go on meanwhile.
                wait_until(lambda: has_caught_up(shop), log)
            wait_until(lambda sign=sign: sign in log.read_text(), log)
            own_stack.up()
        wait_until(lambda: has_caught_up(shop) and documents(shop.settings) == len(shop.sent), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text()
        assert_undisturbed(shop, spark_engine)
