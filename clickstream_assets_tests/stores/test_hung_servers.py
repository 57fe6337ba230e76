"""Kafka and Elasticsearch that are stopped, so that their kernel takes connections and nothing answers: calls end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
from kafka import KafkaProducer

from clickstream_assets.errors import ClickstreamError, InputError
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import ElasticsearchError, ElasticsearchProblem, LiveEvents
from clickstream_assets.stores.kafka.client_private import close_producer
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.producer import KafkaSink, ensure_topics
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets.streaming.alert_index import AlertIndex
from clickstream_assets_tests.databases import suspended, with_settings
from clickstream_assets_tests.stores.test_elasticsearch import document
from clickstream_assets_tests.topics import first, new_topic, send

PATIENCE = 2
# As long as a sink tries, and as much again for a machine that is busy.
ENOUGH_SECONDS = 60


@contextmanager
def hung(stack: Stack, title: str) -> Iterator[None]:
    [pid] = [server.pid for server in stack.status() if server.title == title]
    assert pid
    with suspended(pid):
        yield


def failures_of(calls: list[Callable[[], Any]]) -> list[ClickstreamError]:
    """Return the errors that calls end with, made at once."""

    def failure(call: Callable[[], Any]) -> ClickstreamError:
        with pytest.raises(ClickstreamError) as caught:
            call()
        return caught.value

    began = time.monotonic()
    with ThreadPoolExecutor(len(calls)) as threads:
        found = list(threads.map(failure, calls))
    assert time.monotonic() - began < ENOUGH_SECONDS
    return found


def test_calls_to_a_hung_kafka_end_and_another_try_succeeds(kafka: Settings, stack: Stack) -> None:
    settings = with_settings(new_topic(kafka), kafka_timeout_seconds=PATIENCE)
    send(settings, {0: [b"one"]})
    topics = Topics(settings)

    def read() -> list[bytes]:
        batches = topics.read_here([OffsetRange(first(settings), 0, 1)], batch=1, room=1_000_000)
        return [value.as_py() for rows in batches for value in rows["value"]]

    sink = KafkaSink(settings)
    sink.send(None, b"two")
    sink.flush()

    def send_more() -> None:
        with sink:
            sink.send(None, b"three")

    calls: list[Callable[[], Any]] = [
        topics.offsets,
        topics.ids,
        read,
        lambda: ensure_topics(settings),
        send_more,
    ]
    with hung(stack, "Kafka"):
        failures = failures_of(calls)
    assert [type(error) for error in failures] == [TopicError] * 3 + [InputError] * 2
    assert all("KAFKA_BOOTSTRAP_SERVERS=" in str(error) for error in failures)
    assert read() == [b"one"]
    assert topics.offsets()[first(settings)].high >= 2
    with KafkaSink(settings) as another:
        another.send(None, b"four")


def test_a_producer_is_closed_although_a_batch_never_ends(kafka: Settings, stack: Stack) -> None:
    topic = new_topic(kafka).kafka_topic
    # As the batch that the client forgets when its broker dies: it expires long after anybody waits for it.
    producer = KafkaProducer(bootstrap_servers=kafka.kafka_bootstrap_servers, delivery_timeout_ms=600_000)
    producer.send(topic, b"one").get(60)
    with hung(stack, "Kafka"):
        lost = producer.send(topic, b"two")
        began = time.monotonic()
        close_producer(producer, PATIENCE)
        assert time.monotonic() - began < ENOUGH_SECONDS
    assert lost.failed()
    assert not producer._sender.is_alive()


def test_calls_to_a_hung_elasticsearch_end_and_another_try_succeeds(
    elasticsearch: Settings, stack: Stack
) -> None:
    settings = with_settings(
        elasticsearch, elasticsearch_alias="live_of_a_hung_server", elasticsearch_patience_seconds=PATIENCE
    )
    patient = LiveEvents(settings)
    patient.prepare()
    assert [outcome.written for outcome in patient.write([document("a")])] == ["created"]
    live = LiveEvents(settings, timeout=PATIENCE)
    calls: list[Callable[[], Any]] = [
        live.check,
        live.prepare,
        lambda: live.write([document("b")]),
        lambda: live.settle(["a"]),
        lambda: live.search({"match_all": {}}, 10, 0),
        lambda: live.drop_days(1, date(2024, 5, 31)),
        AlertIndex(settings).check,
    ]
    with hung(stack, "Elasticsearch"):
        for error in failures_of(calls):
            assert isinstance(error, ElasticsearchError)
            assert error.problem is ElasticsearchProblem.SILENT
            assert error.retryable
            assert "ELASTICSEARCH_URL=" in str(error)
    # Though what was sent is carried out as well, once the server goes on.
    patient.write([document("b")])
    patient.prepare()
    assert sorted(event["event_id"] for event in patient.search({"match_all": {}}, 10, 0)) == ["a", "b"]
    patient.client.indices.delete(index=live.index(date(2024, 5, 31)))
