from typing import Any
from uuid import uuid4

import pytest

from clickstream_assets.settings import Settings


@pytest.fixture
def offline_settings(tmp_path):
    """Settings whose broker does not exist; the daily files are in the test's own folder."""
    return Settings(
        kafka_bootstrap_servers="127.0.0.1:1",
        kafka_timeout_seconds=1,
        clickstream_home=tmp_path / "home",
        raw_logs_path=tmp_path / "raw_logs",
        _env_file=None,
    )


@pytest.fixture
def missing_topic(kafka, tmp_path):
    """Settings of the running stack with daily files of the test's own and a topic that does not exist."""
    own = {"kafka_topic": f"simulator-{uuid4().hex}", "raw_logs_path": tmp_path / "raw_logs"}
    return Settings(**kafka.model_dump() | own, _env_file=None)


@pytest.fixture
def own_topic(missing_topic):
    """The same, with the topic made: three partitions, and records of at most Kafka's default size."""
    from confluent_kafka.admin import AdminClient, NewTopic

    topic = NewTopic(missing_topic.kafka_topic, 3, config={"max.message.bytes": "1048588"})
    admin = AdminClient({"bootstrap.servers": missing_topic.kafka_bootstrap_servers})
    admin.create_topics([topic])[topic.topic].result()
    return missing_topic


@pytest.fixture
def consume(missing_topic):
    """Reads all that is in the topic, a list of records for each partition, with another client than ours."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    def read_all() -> dict[int, list]:
        name = missing_topic.kafka_topic
        consumer = Consumer(
            {
                "bootstrap.servers": missing_topic.kafka_bootstrap_servers,
                "group.id": "other",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        try:
            partitions = consumer.list_topics(name).topics[name].partitions
            records: dict[int, list[Any]] = {number: [] for number in sorted(partitions)}
            consumer.assign([TopicPartition(name, number, 0) for number in records])
            unread = set(records)
            while unread:
                message = consumer.poll(30)
                assert message, "the broker gives nothing"
                if message.error():
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    unread.remove(message.partition())
                else:
                    records[message.partition()].append(message)
            return records
        finally:
            consumer.close()

    return read_all
