"""Records that are sent in the background, while Kafka is there, away, and there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka import background
from clickstream_assets.stores.kafka.background import Background
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets_tests.databases import with_settings


class Sent:
    """A topic of one's own, and what was counted of the records for it."""

    def __init__(self, settings: Settings) -> None:
        self.topic = f"shown-{uuid4().hex[:12]}"
        self.settings = with_settings(settings, kafka_exposures_topic=self.topic, kafka_topic_partitions=1)
        self.sent = self.lost = 0
        self.background = Background(self.settings, self.topic, self._count)

    def _count(self, sent: int, lost: int) -> None:
        self.sent += sent
        self.lost += lost

    def send(self, *values: bytes) -> None:
        for value in values:
            self.background.send(b"key", value)

    def wait(self, sent: int, lost: int) -> None:
        for attempt in Retrying(
            retry=retry_if_exception_type(AssertionError),
            stop=stop_after_delay(30),
            wait=wait_fixed(0.02),
            reraise=True,
        ):
            with attempt:
                assert (self.sent, self.lost) == (sent, lost)

    def there(self) -> list[bytes]:
        topic = Topics(self.settings, [self.topic], "KAFKA_EXPOSURES_TOPIC")
        ranges = [OffsetRange(p, o.low, o.high) for p, o in topic.offsets().items() if o.high > o.low]
        return [row["value"] for batch in topic.read_here(ranges, 1, 10**9) for row in batch.to_pylist()]


@pytest.fixture
def to(kafka: Settings) -> Iterator[Sent]:
    sent = Sent(kafka)
    yield sent
    sent.background.close()


def failing_once(work: Callable[..., Any]) -> Callable[..., Any]:
    failed: list[bool] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append(True)
            raise InputError("No Kafka broker answered")
        return work(*args, **kwargs)

    return call


def test_records_come_in_their_order_and_what_waits_at_the_end_too(to: Sent):
    to.send(*(str(number).encode() for number in range(2_500)))
    to.background.close()
    assert (to.sent, to.lost) == (2_500, 0)
    assert to.there() == [str(number).encode() for number in range(2_500)]
    # Nothing was ever sent, so there is nothing to wait for.
    Background(to.settings, to.topic, lambda *_: None).close()


def test_what_comes_while_kafka_is_away_is_counted_and_what_comes_after_it_arrives(
    to: Sent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(background, "ensure_topics", failing_once(background.ensure_topics))
    to.send(b"lost")
    to.wait(0, 1)
    to.send(b"first")
    to.wait(1, 1)
    # A producer that does not take a record is replaced.
    monkeypatch.setattr(
        background.KafkaProducer, "send", failing_once(background.KafkaProducer.send), raising=True
    )
    to.send(b"lost too")
    to.wait(1, 2)
    to.send(b"second")
    to.wait(2, 2)
    assert to.there() == [b"first", b"second"]
    assert [record.levelname for record in caplog.records if "are not sent" in record.message] == [
        "WARNING"
    ] * 2
