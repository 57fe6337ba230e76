"""Kafka, PostgreSQL and Elasticsearch killed or hung under load: no record is lost or doubled.

Events keep coming for a minute in which a server is away. Afterwards the topic, the lake, PostgreSQL's windows and
Elasticsearch's documents hold the same events.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
)
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.reconciliation import reconcile
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.outages import OUTAGES, outage, stack_of_its_own
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    documents,
    has_caught_up,
    has_documents,
    running,
    traffic,
    wait_until,
)
from clickstream_assets_tests.topics import keyed

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.spark, pytest.mark.timeout(2400)]
OUTAGE_SECONDS = 60
SECONDS_PER_EVENT = 0.05
# Tried again, ever later, each time up to the server's limit; and as much again for a machine that is busy.
RUN_SECONDS = 300
INGEST = """
import time
import dagster as dg
from clickstream_assets.definitions import defs
began = time.monotonic()
result = defs().resolve_job_def("ingest").execute_in_process(
    instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
)
print("succeeded" if result.success else "failed", "after", round(time.monotonic() - began), "s")
"""
NEEDS = {"Kafka": "KAFKA_BOOTSTRAP_SERVERS=", "PostgreSQL": "POSTGRES_HOST=", "Elasticsearch": None}
"""The setting that a run of `ingest` names when it fails without a server; Elasticsearch is none of its business."""


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with stack_of_its_own() as stack:
        yield stack


@contextmanager
def load(shop: Shop) -> Iterator[None]:
    """Send events all the time, of each user in order; Kafka has every one of them at the end."""
    stop = threading.Event()
    producer = Producer(
        {
            "bootstrap.servers": shop.settings.kafka_bootstrap_servers,
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "log_level": 2,
        }
    )

    def feed() -> None:
        for number in count():
            (event,) = traffic(number, 1)
            shop.sent.append(event)
            producer.produce(shop.settings.kafka_topic, json.dumps(event).encode(), event["user_id"].encode())
            producer.poll(0)
            if stop.wait(SECONDS_PER_EVENT):
                return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        assert producer.flush(120) == 0


def ends(shop: Shop) -> dict[TopicPartition, int]:
    return {partition: offsets.high for partition, offsets in Topics(shop.settings).offsets().items()}


def is_past(shop: Shop, offsets: dict[TopicPartition, int]) -> bool:
    """Return whether the stream has counted the topic up to these offsets."""
    progress = progress_of(shop.settings)
    return progress is not None and all(
        progress.offsets.get(partition, 0) >= end for partition, end in offsets.items()
    )


@contextmanager
def ingesting(shop: Shop, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of `ingest`, as Dagster makes one: in a process of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", INGEST], env=shop.environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def seconds_until(is_so: Callable[[], bool], log: Path) -> float:
    began = time.monotonic()
    wait_until(is_so, log)
    return round(time.monotonic() - began, 1)


def counts(shop: Shop) -> dict[str, int]:
    """Return how many records or events there are in each place."""
    tables = (RAW_EVENTS, EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS)
    rows = {table.name: shop.lake.snapshot(table).rows for table in tables}
    ((in_windows,),) = query(shop.settings, "SELECT sum(total_events)::bigint FROM product_windows")
    # An event is in each of the windows that slide over it.
    windows = shop.settings.window_duration // shop.settings.slide_duration
    return rows | {
        "topic": sum(ends(shop).values()),
        "in PostgreSQL's windows": in_windows / windows,
        "documents": len(documents(shop.settings)),
    }


@pytest.mark.parametrize("title", NEEDS)
@pytest.mark.parametrize("how", OUTAGES)
def test_a_server_that_is_away_for_a_minute_under_load_costs_no_record(
    own_stack: Stack, tmp_path: Path, title: str, how: str
):
    named: dict[str, Any] = {name.lower(): value for name, value in own_stack.env().items()}
    settings = Settings(_env_file=None, **named, postgres_timeout_seconds=3)
    prepare_servers(settings)
    log, run_log = tmp_path / "stream.log", tmp_path / "run.log"
    with new_shop(settings, tmp_path, partitions=3, **QUICK) as shop, running(shop, log) as process:
        with load(shop):
            wait_until(lambda: is_past(shop, keyed(shop.settings, {0: 10, 1: 10, 2: 10})), log)
            shop.ingest()
            began = time.monotonic()
            with ExitStack() as running_out:
                with outage(own_stack, title, how):
                    run = running_out.enter_context(ingesting(shop, run_log))
                    time.sleep(OUTAGE_SECONDS)
                    assert process.poll() is None, log.read_text()[-3000:]
                # Started again, or right after it went on.
                back = time.monotonic()
                healthy = seconds_until(partial(is_past, shop, ends(shop)), log)
                run.wait(RUN_SECONDS - (time.monotonic() - began))
            said = run_log.read_text()
            outcome = said.splitlines()[-1]
            if not outcome.startswith("succeeded"):
                assert outcome.startswith("failed"), said[-3000:]
                assert NEEDS[title], said[-3000:]
                assert NEEDS[title] in said
        caught_up = seconds_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        assert process.poll() is None
        shop.ingest()
        sent = len(shop.sent)
        assert len({event["event_id"] for event in shop.sent}) == sent
        assert counts(shop) == {
            "topic": sent,
            "raw_events": sent,
            "events": sent,
            "duplicate_events": 0,
            "conflicting_events": 0,
            "rejected_events": 0,
            "in PostgreSQL's windows": sent,
            "documents": sent,
        }
        found = reconcile(shop.settings, shop.lake, days=30)
        assert (found.differences, found.waiting) == ([], None)
        assert found.compared
    print(
        f"{title} {how} for {back - began:.0f} s: a run {outcome}; the stream was past what there was {healthy} s "
        f"after the server was back, and had all {sent:,} events {caught_up} s after the last"
    )
