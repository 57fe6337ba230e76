"""Load for faults: events that keep coming, a run that ingests them, and how far the stream is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from confluent_kafka import Producer

from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets_tests.streaming.streams import Shop
from clickstream_assets_tests.streaming.test_process import traffic

SECONDS_PER_EVENT = 0.05
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
