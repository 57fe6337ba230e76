"""`clickstream stream` as a process: killed again and again, or left without its servers, its tables end the same."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import dagster as dg
import pytest
from elasticsearch import ApiError
from elasticsearch.helpers import scan
from tenacity import wait_exponential

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.defs.stream_reports import reporter
from clickstream_assets.engine import SparkEngine, SparkSession
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.partition import to_json
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets.streaming import live_events, waits
from clickstream_assets.streaming import process as process_module
from clickstream_assets.streaming.alert_index import AlertIndex
from clickstream_assets.streaming.checkpoint import Checkpoint, CheckpointError
from clickstream_assets.streaming.errors import StreamError
from clickstream_assets.streaming.owner import OwnedError, ownership
from clickstream_assets.streaming.process import Supervisor, run_live_events
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.source import configured
from clickstream_assets.streaming.status import last_owner
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.conftest import FOR_A_FEW_ROWS
from clickstream_assets_tests.databases import fresh_database, query, with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.outages import stack_of_its_own
from clickstream_assets_tests.streaming.streams import Shop, click, indexed_alerts, new_shop
from clickstream_assets_tests.topics import keyed

COMMAND = [str(Path(sys.executable).with_name("clickstream")), "stream"]
START = at("2024-05-01 12:00")
PATIENCE_SECONDS = 240
STAGES = ("counting", "writing documents", "recovering", "starting")
"""Stages of a process's life in which it is killed."""
QUICK: dict[str, Any] = {
    "views_threshold": 20,
    "stream_trigger_seconds": 0.5,
    "stream_lake_seconds": 1,
    # On a busy machine a process can take longer than that to start, and the clock would close its windows.
    "stream_idle_seconds": 0,
    "kafka_timeout_seconds": 4,
    "elasticsearch_patience_seconds": 2,
}


def wait_until(is_so: Callable[[], bool], log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()[-3000:] if log else "it took too long"
        time.sleep(0.05)


def traffic(first: int, number: int) -> list[dict[str, Any]]:
    """Events four seconds apart, in order: every other one of the product of the quarter of an hour."""
    events = []
    for i in range(first, first + number):
        product = f"hot{i // 225 % 2}" if i % 2 else f"p{i % 7}"
        kind = "purchase" if i % 61 == 0 else "view"
        moment = START + timedelta(seconds=4 * i)
        events.append(click(moment, i, product_id=product, user_id=f"u{i % 50}", event_type=kind))
    return events


def rough_traffic(chance: random.Random) -> Iterator[list[dict[str, Any]]]:
    """The same in pieces of 160 s: out of order, one event minutes late, and some that come again."""
    held: list[dict[str, Any]] = []
    for first in count(0, 40):
        fresh = traffic(first, 40)
        chance.shuffle(fresh)
        yield [*fresh[1:], *held, *chance.sample(fresh[1:], 2)]
        held = [fresh[0], *chance.sample(fresh[1:], 2)]


@contextmanager
def feeding(shop: Shop, chance: random.Random) -> Iterator[None]:
    """Send events all the time, to any partition."""

    def feed(stop: threading.Event) -> None:
        for events in rough_traffic(chance):
            partitions: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
            for event in events:
                partitions[chance.randrange(3)].append(event)
            for partition, part in partitions.items():
                shop.send(part, partition)
            if stop.wait(0.5):
                return

    with in_background(feed):
        yield


@contextmanager
def running(shop: Shop, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, killed if it is still there at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            COMMAND,
            env=shop.environment() | {"SPARK_CONFIG": json.dumps(FOR_A_FEW_ROWS)},
            stdout=output,
            stderr=output,
            cwd=log.parent,
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
    ends = {partition: offsets.high for partition, offsets in Topics(shop.settings).offsets().items()}
    return progress is not None and progress.offsets == ends


def documents(settings: Settings) -> list[tuple[str, str, dict[str, Any]]]:
    """Every document's id, day and content, in the order of ids."""
    live = LiveEvents(settings)
    index: dict[str, Any] = {"index": settings.elasticsearch_alias, "ignore_unavailable": True}
    try:
        live.client.indices.refresh(**index)
        return sorted(
            ((hit["_id"], hit["_index"][-10:], hit["_source"]) for hit in scan(live.client, **index)),
            key=lambda document: document[:2],
        )
    finally:
        live.close()


Answer = TypeVar("Answer")


def once_open(ask: Callable[[Settings], Answer], settings: Settings) -> Answer | None:
    """Return Elasticsearch's answer; None from an index that has just been made, until its shard has started."""
    try:
        return ask(settings)
    except ApiError as error:
        if error.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return None


def has_documents(shop: Shop) -> bool:
    """Return whether every id has its document."""
    found = once_open(documents, shop.settings)
    return found is not None and [d[0] for d in found] == sorted({e["event_id"] for e in shop.sent})


def has_closed(shop: Shop) -> bool:
    """Return whether the windows that the last events close are closed, which a batch without any does."""
    newest = max(datetime.fromisoformat(event["timestamp"]) for event in shop.sent)
    progress = progress_of(shop.settings)
    return bool(progress and progress.watermark == newest - shop.settings.watermark_delay)


@contextmanager
def undisturbed(shop: Shop, spark: SparkEngine) -> Iterator[Shop]:
    """Another stream over the same topic, with tables and documents of its own."""
    with fresh_database(shop.settings) as database:
        folder = Path(shop.settings.lake).parent / "undisturbed"
        settings = with_settings(
            database,
            lake_path=str(folder / "lake"),
            checkpoint_path=str(folder / "checkpoints"),
            elasticsearch_alias=f"live_{database.postgres_db[-12:]}",
            elasticsearch_alerts_index=f"alerts_{database.postgres_db[-12:]}",
        )
        other = Shop(settings, spark.session)
        other.run()
        yield other


def assert_equal(shop: Shop, other: Shop) -> None:
    """Compare what came of the topic in both: windows, alerts, notifications, documents."""
    assert other.spark
    run_live_events(other.settings, lambda: configured(other.spark, other.settings))
    assert shop.windows() == other.windows()
    assert shop.alerts() == other.alerts()
    assert other.alerts()
    assert indexed_alerts(shop.settings) == indexed_alerts(other.settings) == shop.alerts()
    opened = Counter(product for product, kind in shop.notifications() if kind == "opened")
    assert opened == Counter(alert["product_id"] for alert in shop.alerts())
    assert documents(shop.settings) == documents(other.settings)
    assert has_documents(other)


def wait_for_a_moment_to_kill(stage: str, shop: Shop, log: Path, chance: random.Random) -> None:
    """Wait until a process that was just started is anywhere in this stage of its life."""
    starts = log.read_text().count("the streams run")

    def number_of_documents() -> int:
        return len(once_open(documents, shop.settings) or [])

    batches, written = counted_batches(shop), number_of_documents()
    reached = {
        "starting": lambda: True,
        "recovering": lambda: log.read_text().count("the streams run") > starts,
        "counting": lambda: counted_batches(shop) > batches,
        "writing documents": lambda: number_of_documents() > written,
    }[stage]
    wait_until(reached, log)
    time.sleep(chance.uniform(0, 4 if stage == "starting" else 1.5))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fault("stream_killed")
def test_a_stream_killed_again_and_again_ends_in_the_tables_of_an_undisturbed_one(
    servers: Settings, spark_engine: SparkEngine, tmp_path: Path, fault: Fault
):
    """Whatever it is doing: starting, going on with the batch before, counting windows, or writing documents."""
    chance = random.Random(5)
    stages = [STAGES[number % len(STAGES)] for number in range(10)]
    chance.shuffle(stages)
    log = tmp_path / "log"
    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop:
        with feeding(shop, random.Random(6)):
            for stage in stages:
                with running(shop, log) as process:
                    wait_for_a_moment_to_kill(stage, shop, log, chance)
                    process.kill()
        fault.saw(f"{len(stages)} times exit code {process.returncode}")
        with running(shop, log) as process:
            with fault.until_healthy():
                wait_until(lambda: has_caught_up(shop) and has_closed(shop), log)
            with undisturbed(shop, spark_engine) as other:
                assert has_closed(Shop(other.settings, sent=shop.sent))
                too_late = [click(START, n, event_id=f"late{n}", product_id="too late") for n in range(5)]
                shop.send(too_late, partition=1)
                other.sent = shop.sent
                other.run()
                wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
                assert_equal(shop, other)
                assert not [row for row in shop.windows() if row["product_id"] == "too late"]
                shop.ingest()
                late = {event["event_id"] for event in too_late}
                of = (Part.TOPIC, Part.LAKE, Part.WINDOWS, Part.DOCUMENTS)
                fault.settle(take_account(shop.settings, shop.sent, of, absent={Part.WINDOWS: late}))


@pytest.fixture
def always_on(shop: Shop) -> Iterator[Callable[[], Thread]]:
    """Starts what `clickstream stream` runs, in a thread, which ends with the test."""
    assert shop.spark
    stop = threading.Event()
    session = configured(shop.spark, shop.settings)
    threads: list[Thread] = []

    def start() -> Thread:
        supervisor = Supervisor(shop.settings, lambda: session, stop, reporter(shop.settings))
        threads.append(Thread(target=supervisor.run))
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
    ensure_topics(shop.settings)
    shop.send(traffic(0, 100))
    wait_until(lambda: has_caught_up(shop) and has_documents(shop))
    statuses = "SELECT query, rows, lag FROM stream_status ORDER BY query"
    lag = to_json(keyed(shop.settings, dict.fromkeys(range(3), 0)))
    expected = [(name, 100, lag) for name in ("live_events", "product_windows")]
    wait_until(lambda: query(shop.settings, statuses) == expected)
    wait_until(lambda: shop.copy(PRODUCT_WINDOWS) == shop.windows())
    assert_beats()


@pytest.mark.long
def test_after_an_outage_of_the_database_the_process_comes_before_a_run(
    shop: Shop, always_on: Callable[[], Thread], monkeypatch: pytest.MonkeyPatch
):
    # As long as an outage takes it to wait, and longer.
    monkeypatch.setattr(waits, "RESTART", wait_exponential(multiplier=3))
    shop.settings = with_settings(shop.settings, **QUICK)
    shop.send(traffic(0, 50))
    always_on()
    wait_until(lambda: has_caught_up(shop))
    wait_until(lambda: last_owner(shop.settings) is not None)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'clickstream stream%'"
    assert query(shop.settings, ended) == [(True,), (True,)]
    shop.send(traffic(50, 50))
    with pytest.raises(OwnedError, match="the streams are left to clickstream stream, process"):
        shop.run()
    wait_until(lambda: has_caught_up(shop))
    assert last_owner(shop.settings) == "clickstream stream"


@pytest.mark.long
def test_neither_a_fault_of_live_events_nor_of_the_lake_stops_the_windows(
    shop: Shop,
    always_on: Callable[[], Thread],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setattr(waits, "SIDE_WORK", wait_exponential(multiplier=0.2, max=1))
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    shop.settings = with_settings(shop.settings, dagster_home=home, stream_report_seconds=0.5, **QUICK)
    instance = dg.DagsterInstance.from_config(str(home))

    def reported(asset: str) -> list[Any]:
        found = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
        return [
            r.asset_materialization.metadata["batch"].value
            for r in reversed(found)
            if r.asset_materialization
        ]

    def status() -> dict[Any, list[Any]]:
        rows = query(shop.settings, "SELECT query, (lag->>'0')::int, error FROM stream_status")
        return {name: rest for name, *rest in rows}

    Checkpoint(shop.settings, "live_events", {"KAFKA_TOPIC": "other"}).open({})
    shop.send(traffic(0, 100))
    always_on()
    wait_until(lambda: has_caught_up(shop) and status().get("product_windows") == [0, None])
    wait_until(lambda: "starting again in 1 s" in caplog.text)
    shop.send(traffic(100, 50))
    wait_until(lambda: status()["live_events"][0] == 150)
    assert "KAFKA_TOPIC is" in str(status()["live_events"][1])
    wait_until(lambda: len(reported("product_windows")) > 1)
    assert reported("live_events") == []

    lake, away, file = (Path(shop.settings.lake).with_suffix(suffix) for suffix in ("", ".away", ".file"))
    wait_until(lambda: shop.copy(PRODUCT_WINDOWS) == shop.windows())
    file.touch()
    lake.rename(away)
    file.rename(lake)
    shop.send(traffic(150, 50))
    wait_until(lambda: has_caught_up(shop) and "copies of windows and alerts wait: LAKE_PATH=" in caplog.text)
    lake.unlink()
    away.rename(lake)
    wait_until(lambda: shop.copy(PRODUCT_WINDOWS) == shop.windows())

    live_events.checkpoint_of(shop.settings).remove()
    wait_until(lambda: has_documents(shop) and status()["live_events"] == [0, None])
    wait_until(lambda: bool(reported("live_events")))
    # A batch is reported once, however long nothing comes after it.
    batches = reported("product_windows")
    assert batches == sorted(set(batches))
    assert "the streams stopped" not in caplog.text


@pytest.mark.long
def test_alerts_reach_elasticsearch_although_it_takes_nothing_for_a_while_or_loses_them(
    shop: Shop,
    always_on: Callable[[], Thread],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(waits, "SIDE_WORK", wait_exponential(multiplier=0.2, max=1))
    monkeypatch.setattr(process_module, "INDEX_SECONDS", 1)
    shop.settings = with_settings(shop.settings, **QUICK)
    index = AlertIndex(shop.settings)
    name = shop.settings.elasticsearch_alerts_index

    def are_there(alerts: int) -> bool:
        return len(shop.alerts()) == alerts and once_open(indexed_alerts, shop.settings) == shop.alerts()

    shop.send(traffic(0, 100))
    always_on()
    wait_until(lambda: are_there(1))
    # What Elasticsearch does itself when its disk is nearly full.
    block = "index.blocks.read_only_allow_delete"
    index.client.indices.put_settings(index=name, settings={block: True})
    shop.send(traffic(225, 100))
    wait_until(lambda: has_caught_up(shop) and "the alerts in Elasticsearch wait: " in caplog.text)
    assert len(shop.alerts()) == 2
    index.client.indices.put_settings(index=name, settings={block: None})
    wait_until(lambda: are_there(2))
    # Though no batch comes that changes them.
    index.client.indices.delete(index=name)
    wait_until(lambda: are_there(2))
    # After the cool-down.
    shop.send(traffic(1800, 100))
    wait_until(lambda: are_there(3))
    assert "the streams stopped" not in caplog.text
    assert "Traceback" not in caplog.text
    index.close()


def test_a_heartbeat_that_cannot_be_shown_is_named_before_anything_is_done(tmp_path: Path):
    path = tmp_path / "nowhere" / "heartbeat"
    settings = Settings(_env_file=None, stream_heartbeat_path=path)

    def no_session() -> SparkSession:
        raise AssertionError("Spark was asked for")

    with pytest.raises(StreamError, match=f"STREAM_HEARTBEAT_PATH={path} cannot be written: No such file"):
        Supervisor(settings, no_session, threading.Event()).run()


def test_an_always_on_stream_ends_where_a_person_has_to_do_something(
    shop: Shop,
):
    shop.stream(traffic(0, 10))
    shop.settings = with_settings(shop.settings, slide_duration="2 minutes")
    assert shop.spark
    with pytest.raises(CheckpointError, match="SLIDE_DURATION is '120 seconds' and was '300 seconds'"):
        Supervisor(shop.settings, lambda: configured(shop.spark, shop.settings), threading.Event()).run()


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with stack_of_its_own() as stack:
        yield stack


def stop_server(stack: Stack, title: str) -> None:
    (pid,) = [server.pid for server in stack.status() if server.title == title]
    assert pid
    os.kill(pid, signal.SIGINT if title == "PostgreSQL" else signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_stream_outlives_its_servers(own_stack: Stack, spark_engine: SparkEngine, tmp_path: Path):
    named: dict[str, Any] = {name.lower(): value for name, value in own_stack.env().items()}
    settings = Settings(_env_file=None, **named)
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
            wait_until(partial(lambda text: text in log.read_text(), sign), log)
            own_stack.up()
        wait_until(lambda: has_caught_up(shop) and has_closed(shop) and has_documents(shop), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text()
        with undisturbed(shop, spark_engine) as other:
            other.sent = shop.sent
            assert_equal(shop, other)
