"""Topics of one's own on the running broker, filled as other people's producers would fill them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypeVar
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import Retrying, stop_after_delay, wait_fixed

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets_tests.databases import with_settings

Value = bytes | None
T = TypeVar("T")


def first(settings: Settings, partition: int = 0) -> TopicPartition:
    """A partition of the first topic."""
    return TopicPartition(settings.first_topic, partition)


def keyed(settings: Settings, by_number: Mapping[int, T]) -> dict[TopicPartition, T]:
    """What is by the number of a partition of the first topic, by the partition."""
    return {first(settings, number): value for number, value in by_number.items()}


def new_topic(settings: Settings, partitions: int = 1, config: Mapping[str, str] | None = None) -> Settings:
    """Make a topic, with options of Kafka's; returns the settings that name it."""
    name = f"events-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.create_topics([NewTopic(name, partitions, config=dict(config or {}))])[name].result()
    return with_settings(settings, kafka_topic=name)


def make_anew(settings: Settings, partitions: int = 1, topic: str | None = None) -> None:
    """Delete a topic, the first if none is named, and make another of its name."""
    name = topic or settings.first_topic
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([name])[name].result()
    # The broker answers before it is gone.
    for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            admin.create_topics([NewTopic(name, partitions)])[name].result()


def delete_records(settings: Settings, topic: str, partition: int, before: int) -> None:
    """Do what retention does."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    (deleted,) = admin.delete_records([Place(topic, partition, before)]).values()
    assert deleted.result().low_watermark == before


def send(
    settings: Settings,
    values: Mapping[int, Iterable[Value]],
    key: bytes | None = None,
    sent_at: datetime | int | None = None,
    topic: str | None = None,
) -> None:
    """Send values to partitions, in order, of the first topic or another.

    `sent_at` is the records' timestamp, also as Kafka has it (default: now).
    """
    timestamp = int(sent_at.timestamp() * 1000) if isinstance(sent_at, datetime) else sent_at or 0
    producer = Producer(_producer_config(settings))
    for partition, records in values.items():
        for value in records:
            producer.produce(
                topic or settings.first_topic, value, key, partition=partition, timestamp=timestamp
            )
            producer.poll(0)
    assert producer.flush(30) == 0


class Transactions:
    """A producer that sends to partition 0 in transactions."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.first_topic
        # A fresh broker's coordinator is still loading, which the client tells at a low level and tries again.
        config = _producer_config(settings) | {"transactional.id": settings.first_topic, "log_level": 2}
        self._producer = Producer(config)
        self._producer.init_transactions()

    def begin(self, *values: Value) -> None:
        """Send records that no reader is to see yet."""
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(self._topic, value, partition=0)
        assert self._producer.flush(30) == 0

    def commit(self, *values: Value) -> None:
        """Send records and commit them; the marker takes one more offset."""
        self.begin(*values)
        self._producer.commit_transaction()

    def abort(self) -> None:
        """End what `begin` began; the marker takes one more offset."""
        self._producer.abort_transaction()


def _producer_config(settings: Settings) -> dict[str, object]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "message.max.bytes": 10_000_000,
        "linger.ms": 0,
        # A topic that was just made refuses some requests at first, and what is sent again must not change places.
        "enable.idempotence": True,
    }
