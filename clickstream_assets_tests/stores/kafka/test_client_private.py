"""kafka-python's undocumented parts that we use are as they were when they were read."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from kafka import KafkaConsumer, TopicPartition

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.client_private import poll_batches
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets_tests.databases import free_port
from clickstream_assets_tests.topics import Transactions, new_topic

Record = tuple[int, int, bytes | None, bytes | None]


def test_it_is_the_version_that_was_read():
    assert version("kafka-python") == "3.0.12", (
        "read stores/kafka/client_private.py against the new version, then raise this one"
    )


def fill(settings: Settings, codec: str = "none") -> None:
    """Records of all sizes of key, value, headers and step of time that are encoded differently."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "compression.type": codec,
            "linger.ms": 50,
            "partitioner": "consistent",
        }
    )
    start = 1_700_000_000_000
    sizes = [None, 0, 1, 63, 64, 8_191, 8_192, 200_000]
    for number, size in enumerate(sizes * 2):
        value = None if size is None else os.urandom(size)
        key = None if number % 3 else b"k" * (size or 0)
        headers: list[tuple[str, Any]] = [("name", b"x" * 300), ("none", None)] if number % 2 else []
        time = start + (-1) ** number * 10**number if number < 12 else start
        producer.produce(
            settings.kafka_topic, value, key, partition=0, headers=headers, timestamp=min(time, 2 * start)
        )
    assert producer.flush(30) == 0


def read(settings: Settings, start: int, by_batches: bool) -> tuple[list[Record], int]:
    """Read partition 0 from an offset by the client's own means or by ours; also where it then stands."""
    partition = TopicPartition(settings.kafka_topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    found: list[Record] = []
    try:
        consumer.assign([partition])
        consumer.seek(partition, start)
        (end,) = consumer.end_offsets([partition]).values()
        while consumer.position(partition) < end:
            if by_batches:
                for records in poll_batches(consumer, 100, 2).get(partition, []):
                    found += [row for row in zip(*records, strict=True) if row[0] >= start]
            else:
                rows = consumer.poll(100).get(partition, [])
                found += [(r.offset, r.timestamp, r.key, r.value) for r in rows]
        return found, consumer.position(partition)
    finally:
        consumer.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_hold_what_the_client_itself_makes_of_them(kafka: Settings, codec: str):
    settings = new_topic(kafka)
    fill(settings, codec)
    assert len(read(settings, 0, by_batches=True)[0]) == 16
    for start in (0, 5, 15):
        assert read(settings, start, by_batches=True) == read(settings, start, by_batches=False)


def test_times_of_the_broker_are_read_as_such(kafka: Settings):
    settings = new_topic(kafka)
    resource = ConfigResource(
        ResourceType.TOPIC, settings.kafka_topic, {"message.timestamp.type": "LogAppendTime"}
    )
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.alter_configs([resource])[resource].result(30)
    fill(settings)
    records, _ = read(settings, 0, by_batches=True)
    assert min(time for _, time, _, _ in records) > 1_750_000_000_000
    assert records == read(settings, 0, by_batches=False)[0]


def test_transactions_are_followed_as_the_client_itself_follows_them(kafka: Settings):
    settings = new_topic(kafka)
    transactions = Transactions(settings)
    transactions.begin(b"aborted", b"too")
    transactions.abort()
    transactions.commit(b"committed")
    transactions.begin(b"aborted at the end")
    transactions.abort()
    records, position = read(settings, 0, by_batches=True)
    assert ([(offset, value) for offset, _, _, value in records], position) == ([(3, b"committed")], 7)
    assert (records, position) == read(settings, 0, by_batches=False)


@pytest.mark.slow
def test_a_client_that_finds_no_broker_says_why_and_leaves_nothing_running():
    settings = Settings(
        _env_file=None, kafka_bootstrap_servers=f"127.0.0.1:{free_port()}", kafka_timeout_seconds=0.3
    )
    threads = threading.active_count()
    for _ in range(3):
        with pytest.raises(TopicError, match=r"within 0.3 s \(.*ECONNREFUSED\)"):
            Topics(settings).offsets()
    assert threading.active_count() == threads
