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
    from kafka.admin import KafkaAdminClient, NewTopic

    configs = {
        # kafka-python reads LZ4 only with one more package, so the broker is told to store it unpacked.
        "compression.type": "uncompressed",
        "max.message.bytes": "1048588",
    }
    topic = NewTopic(missing_topic.kafka_topic, 3, topic_configs=configs)
    admin = KafkaAdminClient(bootstrap_servers=missing_topic.kafka_bootstrap_servers.split(","))
    try:
        admin.create_topics([topic])
    finally:
        admin.close()
    return missing_topic


@pytest.fixture
def consume(missing_topic):
    """Reads all that is in the topic, a list of records for each partition, with another client than ours."""
    from kafka import KafkaConsumer, TopicPartition

    def read_all() -> dict[int, list]:
        servers = missing_topic.kafka_bootstrap_servers.split(",")
        consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, group_id=None)
        try:
            numbers = consumer.partitions_for_topic(missing_topic.kafka_topic)
            partitions = [TopicPartition(missing_topic.kafka_topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(partitions)
            records = {partition.partition: [] for partition in partitions}
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for partition, batch in consumer.poll(timeout_ms=1000).items():
                    records[partition.partition] += batch
            return records
        finally:
            consumer.close()

    return read_all
