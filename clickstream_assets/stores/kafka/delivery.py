"""Delivery of records while somebody waits for it: acknowledged by Kafka, or an error within seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from threading import Lock, Thread
from time import monotonic
from typing import Any

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
# A batch is ours already, of what came while the one before was on its way.
_LINGER_MS = 0

Record = tuple[bytes | None, bytes]

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
    """A producer that the requests of an event loop share.

    What comes while records are on their way is sent together once these have arrived: so many events, one waiting
    thread. It is connected by `open`, or when there is something to send. What is missing of the topics is made. A
    producer that could not deliver something is replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._opening: _Opening | None = None
        self._thread = ThreadPoolExecutor(1)
        self._next: _Batch | None = None
        self._sending: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to connect; what comes meanwhile waits for it."""
        self._opened()

    async def deliver(self, records: Sequence[Record]) -> None:
        """Send records to the first topic, and wait until all replicas that are in sync have them.

        Args:
            records: each one's key and value.

        Raises:
            UndeliveredError: they have not within five seconds.
        """
        if self._next is None:
            self._next = _Batch()
            self._next.timer = asyncio.get_running_loop().call_later(_SECONDS, self._give_up, self._next)
        batch = self._next
        places = range(len(batch.records), len(batch.records) + len(records))
        batch.records += records
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_batches())
        await batch.settled.wait()
        for place in places:
            if error := batch.errors.get(place):
                raise error.with_traceback(None)

    async def _send_batches(self) -> None:
        """Send what there is, a batch after the other."""
        while batch := self._next:
            self._next = None
            errors = await asyncio.get_running_loop().run_in_executor(self._thread, self._send, batch)
            batch.settle(errors)
        self._sending = None

    def _give_up(self, batch: _Batch) -> None:
        """Answer for a batch whose time is up; if it is not under way yet, it is not sent any more."""
        if batch is self._next:
            self._next = None
        silent = UndeliveredError(KafkaProblem.SILENT, "no broker answered in time")
        batch.settle(dict.fromkeys(range(len(batch.records)), silent))

    def _send(self, batch: _Batch) -> dict[int, UndeliveredError]:
        """Send a batch, in a thread; returns the errors by the places of the records that Kafka may not have."""
        opening = self._opened()
        errors: dict[int, UndeliveredError] = {}
        try:
            producer = opening.producer(batch.deadline)
            topic = self._settings.first_topic
            sent = [producer.send(topic, value, key) for key, value in batch.records]
            errors = _errors(sent, batch.deadline)
            self._send_alone(producer, batch, errors)
        except UndeliveredError as error:
            errors = dict.fromkeys(range(len(batch.records)), error)
        except KafkaError as error:
            errors = dict.fromkeys(range(len(batch.records)), _undelivered(error))
        except Exception as error:
            # A fault of the client's own: nobody knows then what Kafka has.
            _log.exception("kafka-python failed")
            failed = UndeliveredError(KafkaProblem.FAILED, repr(error))
            errors = dict.fromkeys(range(len(batch.records)), failed)
        if any(error.problem is not KafkaProblem.TOO_LARGE for error in errors.values()):
            self._replace(opening)
        return errors

    def _send_alone(
        self, producer: KafkaProducer, batch: _Batch, errors: dict[int, UndeliveredError]
    ) -> None:
        """Send what was refused for the size of all that came to Kafka together once more, each record alone.

        Only a record that is refused by itself is too large. Where time does not suffice to find out, nobody is told
        so: a tracker drops what is too large, and sends again what is not delivered.
        """
        refused = [place for place, error in errors.items() if error.problem is KafkaProblem.TOO_LARGE]
        if len(batch.records) == 1:
            return
        for number, place in enumerate(refused):
            if any(error.problem is not KafkaProblem.TOO_LARGE for error in errors.values()):
                # What is still on its way would go with it.
                late = UndeliveredError(KafkaProblem.SILENT, "records were not sent alone in time")
                errors.update(dict.fromkeys(refused[number:], late))
                return
            del errors[place]
            key, value = batch.records[place]
            sent = producer.send(self._settings.first_topic, value, key)
            errors.update((place, error) for error in _errors([sent], batch.deadline).values())

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

    def _replace(self, opening: _Opening) -> None:
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


class _Batch:
    """Records of several requests, which are sent together.

    Attributes:
        deadline: When their requests are answered at the latest, of the monotonic clock.
        timer: Answers for it then.
        errors: By the places of the records that Kafka may not have, once it is settled.
    """

    def __init__(self) -> None:
        self.deadline = monotonic() + _SECONDS
        self.timer: asyncio.TimerHandle | None = None
        self.records: list[Record] = []
        self.errors: dict[int, UndeliveredError] = {}
        self.settled = asyncio.Event()

    def settle(self, errors: dict[int, UndeliveredError]) -> None:
        """Have the requests answered, if they are not yet."""
        if not self.settled.is_set():
            self.errors = errors
            self.settled.set()
        if self.timer:
            # It would have the records stay.
            self.timer.cancel()


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
            # What comes in twice is known by its event id; what comes after a record that is too large must come in.
            self._producer = self._stack.enter_context(
                open_producer(impatient, _DELIVERY_SECONDS, _LINGER_MS, is_idempotent=False)
            )
        except ClickstreamError as error:
            self._error = error


def _errors(sent: Sequence[Any], deadline: float) -> dict[int, UndeliveredError]:
    """Wait for what was sent; returns the errors by the places of the records that Kafka may not have."""
    errors = {}
    for place, future in enumerate(sent):
        try:
            future.get(max(0.0, deadline - monotonic()))
        except KafkaError as error:
            errors[place] = _undelivered(error)
    return errors


def _undelivered(error: KafkaError) -> UndeliveredError:
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return UndeliveredError(KafkaProblem.TOO_LARGE, str(error))
    problem = KafkaProblem.SILENT if isinstance(error, KafkaTimeoutError) else KafkaProblem.FAILED
    return UndeliveredError(problem, str(error))
