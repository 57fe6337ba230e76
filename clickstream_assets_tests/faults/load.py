"""Load for faults: events that keep coming to Kafka or the collector, a run that ingests, and how far the stream is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import requests
from confluent_kafka import Producer

from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.faults.account import take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.streaming.streams import Shop
from clickstream_assets_tests.streaming.test_process import has_caught_up, has_documents, traffic, wait_until
from clickstream_assets_tests.topics import keyed

SECONDS_PER_EVENT = 0.05
STOPPED = r"the (streams|live events) stopped: .*?(?=; starting again)"
"""What the log of a stream says when one of its two parts waits."""
RUN = """
import sys
import time
import dagster as dg
from clickstream_assets.definitions import defs
began = time.monotonic()
result = defs().resolve_job_def(sys.argv[1]).execute_in_process(
    instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
)
print("succeeded" if result.success else "failed", "after", round(time.monotonic() - began), "s")
"""


@contextmanager
def load(shop: Shop, first: int = 0) -> Iterator[None]:
    """Send events all the time, of each user in order, from a number on; Kafka has every one of them at the end."""
    producer = Producer(
        {
            "bootstrap.servers": shop.settings.kafka_bootstrap_servers,
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "log_level": 2,
        }
    )

    def feed(stop: threading.Event) -> None:
        for number in count(first):
            (event,) = traffic(number, 1)
            shop.sent.append(event)
            producer.produce(shop.settings.kafka_topic, json.dumps(event).encode(), event["user_id"].encode())
            producer.poll(0)
            if stop.wait(SECONDS_PER_EVENT):
                return

    with in_background(feed):
        yield
    assert producer.flush(120) == 0


def flows(shop: Shop) -> bool:
    """Return whether the stream has counted something of each of three partitions."""
    return is_past(shop, keyed(shop.settings, {0: 10, 1: 10, 2: 10}))


def ends(shop: Shop) -> dict[TopicPartition, int]:
    """Return the ends of the topic's partitions."""
    return {partition: offsets.high for partition, offsets in Topics(shop.settings).offsets().items()}


def is_past(shop: Shop, offsets: dict[TopicPartition, int]) -> bool:
    """Return whether the stream has counted the topic up to these offsets."""
    progress = progress_of(shop.settings)
    return progress is not None and all(
        progress.offsets.get(partition, 0) >= end for partition, end in offsets.items()
    )


def settle(fault: Fault, shop: Shop, process: subprocess.Popen[bytes], log: Path) -> None:
    """See that the stream catches up without a new start, and count everything."""
    wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
    assert process.poll() is None
    shop.ingest()
    fault.settle(take_account(shop.settings, shop.sent))


@contextmanager
def ingesting(shop: Shop, log: Path, job: str = "ingest") -> Iterator[subprocess.Popen[bytes]]:
    """A run of `ingest`, or another job, as Dagster makes one: in a process of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, job], env=shop.environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


KEY, READER = "shop-1", "reader-1"


def collector(topic: Settings) -> dict[str, str]:
    """Return the variables of an API that collects events into a topic."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topic.kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic.kafka_topic,
        "API_KEYS": f"{entry(KEY, Scope.COLLECT, name='shop')},{entry(READER, Scope.READ, name='reader')}",
    }


class Tracker:
    """Sends events to a collector as trackers do: what it did not take is sent again, when it says so.

    Args:
        address: of the API.
    """

    def __init__(self, address: str) -> None:
        self._url = f"{address}/api/events"
        self.sent: list[dict[str, Any]] = []
        """What the collector said that it has."""
        self.refused: Counter[int] = Counter()
        """Statuses of the answers that were none of taking."""
        self.last_refusal = ""

    def send(self, events: list[dict[str, Any]]) -> None:
        """Send events until they are taken."""
        while True:
            answer = requests.post(self._url, json=events, auth=(KEY, ""), timeout=60)
            if answer.status_code == 200:
                self.sent += events
                return
            assert answer.status_code in (429, 503), answer.text
            self.refused[answer.status_code] += 1
            self.last_refusal = f"{answer.status_code} {answer.json()['detail']}"
            time.sleep(float(answer.headers["Retry-After"]))


@contextmanager
def collecting(address: str) -> Iterator[Tracker]:
    """A tracker that sends events all the time, some of which are taken already; all are at the end."""
    tracker = Tracker(address)

    def feed(stop: threading.Event) -> None:
        for number in count():
            tracker.send(traffic(number, 1))
            if stop.wait(SECONDS_PER_EVENT):
                return

    with in_background(feed) as background:
        wait_until(lambda: len(tracker.sent) >= 10 or background.is_over())
        yield tracker
