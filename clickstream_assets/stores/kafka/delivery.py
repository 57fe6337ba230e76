"""Delivery of records while somebody waits for it: acknowledged by Kafka, or an error within seconds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from threading import Lock, Thread
from time import monotonic

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import ensure_topics, open_producer

# As long as others may wait for an answer at most, less what it takes to give one.
_SECONDS = 4.5
# A broker that does not answer one request is asked once more by then.
_BROKER_SECONDS = 2.0
_DELIVERY_SECONDS = 4.0
# Where nobody else sends at the time, it is what an event waits; where many do, a batch of theirs costs as one.
_LINGER_MS = 10

_log = logging.getLogger(__name__)


class KafkaProblem(StrEnum):
    """A kind of failure of Kafka, in words that do not reveal where it is."""

    UNREACHABLE = "Kafka cannot be reached"
    SILENT = "Kafka does not answer"
    TOO_LARGE = "a record is larger than Kafka takes"
    FAILED = "Kafka reported an error"


class UndeliveredError(ClickstreamError):
    """Records were not acknowledged; some or all of them may be in Kafka all the same.

    Attributes:
        problem: What is wrong, without host names or values.
    """

    def __init__(self, problem: KafkaProblem, detail: str) -> None:
        super().__init__(f"{problem}: {detail}", retryable=problem is not KafkaProblem.TOO_LARGE)
        self.problem = problem


class Delivery:
    """A producer that the threads of a process share.

    It is connected by `open`, or when the first of them has something to send. What is missing of the topics is made. A
    producer that could not deliver something is replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._opening: _Opening | None = None

    def open(self) -> None:
        """Begin to connect; what comes meanwhile waits for it."""
        self._opened()

    def deliver(self, records: Sequence[tuple[bytes | None, bytes]]) -> None:
        """Send records to the first topic, and wait until all replicas that are in sync have them.

        Args:
            records: each one's key and value.

        Raises:
            UndeliveredError: they have not within five seconds.
        """
        deadline = monotonic() + _SECONDS
        opening = self._opened()
        producer = opening.producer(deadline)
        try:
            topic = self._settings.first_topic
            sent = [producer.send(topic, value, key) for key, value in records]
            for future in sent:
                future.get(max(0.0, deadline - monotonic()))
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            raise UndeliveredError(KafkaProblem.TOO_LARGE, str(error)) from None
        except KafkaError as error:
            self._give_up(opening)
            problem = KafkaProblem.SILENT if isinstance(error, KafkaTimeoutError) else KafkaProblem.FAILED
            raise UndeliveredError(problem, str(error)) from None
        except Exception as error:
            # A fault of the client's own, of two threads at once perhaps: nobody knows then what Kafka has.
            _log.exception("kafka-python failed")
            self._give_up(opening)
            raise UndeliveredError(KafkaProblem.FAILED, repr(error)) from error

    def close(self) -> None:
        """Disconnect, once what was sent is delivered."""
        with self._lock:
            opening, self._opening = self._opening, None
        if opening and not opening.is_under_way:
            opening.close()
        elif opening:
            # Of nothing that was sent yet.
            Thread(target=opening.close, daemon=True).start()

    def _opened(self) -> _Opening:
        with self._lock:
            if self._opening is None or self._opening.has_failed:
                self._opening = _Opening(self._settings)
            return self._opening

    def _give_up(self, opening: _Opening) -> None:
        """Have the next records delivered by a new producer.

        After batches that were given up because a broker was silent, kafka-python 3.0.12 keeps those that come later
        for ever, when the broker answers again, too.
        """
        with self._lock:
            if self._opening is not opening:
                return
            self._opening = None
        # Whoever waits for an answer does not wait for that.
        Thread(target=opening.close, daemon=True).start()


class _Opening:
    """A producer that is being connected, by a thread of its own: nobody waits for longer than they can."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._producer: KafkaProducer | None = None
        self._error: ClickstreamError | None = None
        self._thread = Thread(target=self._open, daemon=True)
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        """True while it is not known whether there will be a producer."""
        return self._thread.is_alive()

    @property
    def has_failed(self) -> bool:
        """True if there will be no producer."""
        return self._producer is None and not self.is_under_way

    def producer(self, deadline: float) -> KafkaProducer:
        """Return the producer once it is connected.

        Raises:
            UndeliveredError: it is not by the deadline.
        """
        self._thread.join(max(0.0, deadline - monotonic()))
        if self._producer is not None:
            return self._producer
        if self.is_under_way:
            raise UndeliveredError(KafkaProblem.SILENT, "no broker answered in time")
        # Without an error of ours, the thread has died of a fault, and has said so.
        problem = KafkaProblem.UNREACHABLE if self._error else KafkaProblem.FAILED
        raise UndeliveredError(problem, str(self._error))

    def close(self) -> None:
        """Disconnect."""
        self._thread.join()
        try:
            self._stack.close()
        except ClickstreamError as error:
            _log.warning("%s", error)

    def _open(self) -> None:
        try:
            ensure_topics(self._settings)
            patience = min(self._settings.kafka_timeout_seconds, _BROKER_SECONDS)
            impatient = self._settings.model_copy(update={"kafka_timeout_seconds": patience})
            self._producer = self._stack.enter_context(
                open_producer(impatient, _DELIVERY_SECONDS, _LINGER_MS)
            )
        except ClickstreamError as error:
            self._error = error
