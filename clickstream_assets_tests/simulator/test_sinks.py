import random

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import KafkaSink, ensure_topics
from clickstream_assets_tests.databases import with_settings


def test_ensure_topic_creates_it_with_the_partitions_of_the_settings_once(missing_topic, consume):
    settings = Settings(**missing_topic.model_dump() | {"kafka_topic_partitions": 5}, _env_file=None)
    assert ensure_topics(settings) == [settings.kafka_topic]
    assert ensure_topics(settings) == []
    assert set(consume()) == set(range(5))


def test_records_arrive_once_and_in_order_for_each_key(own_topic, consume):
    sent = [(f"user_{number % 17}".encode(), b"%d" % number) for number in range(20_000)]
    with KafkaSink(own_topic) as sink:
        for key, value in sent:
            sink.send(key, value)
        sink.flush()
        assert sink.delivered == 20_000
    arrived = [(record.key(), record.value()) for records in consume().values() for record in records]
    assert len(arrived) == 20_000
    for key in {key for key, _ in sent}:
        assert [value for k, value in arrived if k == key] == [value for k, value in sent if k == key]


def test_a_key_goes_to_the_partition_that_other_clients_choose(own_topic, consume):
    from confluent_kafka import Producer

    keys = [f"user_{number}".encode() for number in range(50)]
    with KafkaSink(own_topic) as sink:
        for key in keys:
            sink.send(key, b"ours")
    servers = own_topic.kafka_bootstrap_servers
    # What Java's client chooses, and Python's: librdkafka's own choice is another.
    other = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    for key in keys:
        other.produce(own_topic.kafka_topic, key=key, value=b"theirs")
    other.flush()
    for records in consume().values():
        ours = {record.key() for record in records if record.value() == b"ours"}
        assert ours == {record.key() for record in records if record.value() == b"theirs"}


def test_a_record_without_a_key_arrives(own_topic, consume):
    with KafkaSink(own_topic) as sink:
        sink.send(None, b"no user")
    assert [(r.key(), r.value()) for records in consume().values() for r in records] == [(None, b"no user")]


def test_a_record_larger_than_the_broker_accepts_is_named_and_the_others_arrive(own_topic, consume):
    huge = random.Random(1).randbytes(2_000_000)
    sink = KafkaSink(own_topic)
    sink.send(b"user_1", b"first")
    sink.send(b"user_1", huge)
    with pytest.raises(InputError, match=r"record 2 of 2000000 bytes is larger than the broker accepts"):
        sink.flush()
    with pytest.raises(InputError, match=r"did not take 1 of 2 records"):
        sink.send(b"user_1", b"third")
    assert [r.value() for records in consume().values() for r in records] == [b"first"]


def test_a_record_too_large_for_any_broker_is_named_at_once(own_topic, consume):
    sink = KafkaSink(own_topic)
    sink.send(b"user_1", b"first")
    with pytest.raises(InputError, match=r"record 2 of 70000000 bytes is larger"):
        sink.send(b"user_1", bytes(70_000_000))
    with pytest.raises(InputError, match=r"did not take 1 of 2 records"):
        sink.flush()
    assert [r.value() for records in consume().values() for r in records] == [b"first"]


def send_and_fail(settings, error, large=b""):
    with KafkaSink(settings) as sink:
        sink.send(b"user_1", b"first")
        if large:
            sink.send(b"user_1", large)
        raise error


def test_an_error_of_the_caller_is_not_hidden_and_what_was_sent_before_it_arrives(own_topic, consume):
    error = RuntimeError("of the caller")
    with pytest.raises(RuntimeError, match="of the caller"):
        send_and_fail(own_topic, error)
    assert not hasattr(error, "__notes__")
    assert [r.value() for records in consume().values() for r in records] == [b"first"]


def test_an_undelivered_record_is_noted_with_the_error_of_the_caller(own_topic):
    error = RuntimeError("of the caller")
    with pytest.raises(RuntimeError, match="of the caller"):
        send_and_fail(own_topic, error, large=random.Random(1).randbytes(2_000_000))
    assert "record 2 of 2000000 bytes" in error.__notes__[0]


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_named_with_the_fix(offline_settings):
    with pytest.raises(InputError) as caught:
        KafkaSink(offline_settings)
    message = str(caught.value)
    assert "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 within 1 s" in message
    assert "clickstream stack up" in message


def test_a_topic_that_kafka_refuses_is_named(missing_topic):
    # As many as no broker makes at once.
    settings = with_settings(missing_topic, kafka_topic_partitions=10_001)
    with pytest.raises(
        InputError, match=f"KAFKA_TOPIC={settings.kafka_topic}: the broker would not create it: .+"
    ):
        ensure_topics(settings)
