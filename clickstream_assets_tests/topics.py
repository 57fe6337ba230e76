"""Topics of one's own on the running broker, filled as other people's producers would fill them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import Retrying, stop_after_delay, wait_fixed

from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import with_settings

Value = bytes | None


def new_topic(settings: Settings, partitions: int = 1, config: Mapping[str, str] | None = None) -> Settings:
    """Make a topic, with options of Kafka's; returns the settings that name it."""
    name = f"events-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.create_topics([NewTopic(name, partitions, config=dict(config or {}))])[name].result()
    return with_settings(settings, kafka_topic=name)


def make_anew(settings: Settings, partitions: int = 1) -> None:
    """Delete the topic, and make another of its name."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([settings.kafka_topic])[settings.kafka_topic].result()
    # The broker answers before it is gone.
    for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            topic = NewTopic(settings.kafka_topic, partitions)
            admin.create_topics([topic])[settings.kafka_topic].result()


def send(
    settings: Settings,
    values: Mapping[int, Iterable[Value]],
    key: bytes | None = None,
    sent_at: datetime | int | None = None,
) -> None:
    """Send values to partitions, in order; `sent_at` is the records' timestamp, also as Kafka has it (default: now)."""
    timestamp = int(sent_at.timestamp() * 1000) if isinstance(sent_at, datetime) else sent_at or 0
    producer = Producer(_producer_config(settings))
    for partition, records in values.items():
        for value in records:
            producer.produce(settings.kafka_topic, value, key, partition=partition, timestamp=timestamp)
            producer.poll(0)
    assert producer.flush(30) == 0


class Transactions:
    """A producer that sends to partition 0 in transactions."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.kafka_topic
        # A fresh broker's coordinator is still loading, which the client tells at a low level and tries again.
        config = _producer_config(settings) | {"transactional.id": settings.kafka_topic, "log_level": 2}
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
