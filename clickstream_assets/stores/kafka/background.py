"""Records that are sent to a topic without anybody waiting for it: what cannot be sent is counted, and gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import Empty, Full, Queue
from threading import Lock, Thread
from time import monotonic

from kafka import KafkaProducer
from kafka.errors import KafkaError

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import ensure_topics, open_producer

Record = tuple[bytes, bytes]

# Of some 500 bytes each: 5 MB, and a second or more of all that a process answers.
_WAITING = 10_000
_AT_ONCE = 1_000
_LINGER_MS = 20
# In which what waits when the process ends is sent.
_CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Background:
    """A thread that sends records to a topic; whoever has some neither waits nor fails.

    It begins with the first record, in the process that has it. What comes while 10,000 records wait, because Kafka is
    away or slow, is not sent. A producer that could not deliver something is replaced.

    Args:
        settings: name the broker.
        topic: where to; it is made if it is missing.
        count: gets how many more records Kafka has, and how many were not sent or may not have come; in any thread.
    """

    def __init__(self, settings: Settings, topic: str, count: Callable[[int, int], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._count = count
        self._waiting: Queue[Record | None] = Queue(_WAITING)
        self._lock = Lock()
        self._thread: Thread | None = None
        self._is_closing = False
        self._open = ExitStack()
        self._producer: KafkaProducer | None = None
        self._is_away = False

    def send(self, key: bytes, value: bytes) -> None:
        """Have a record sent; returns at once."""
        try:
            self._waiting.put_nowait((key, value))
        except Full:
            self._count(0, 1)
            return
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = Thread(target=self._run, name=f"records for {self._topic}", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Send what waits, for some seconds at most, and disconnect."""
        with self._lock:
            thread, self._is_closing = self._thread, True
        if thread:
            with suppress(Full):
                self._waiting.put_nowait(None)
            thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._send(batch)
        self._disconnect()

    def _next_batch(self) -> list[Record] | None:
        """Wait for records; return those that there are, or None once it is closed and none is left."""
        batch: list[Record] = []
        with suppress(Empty):
            record = None if self._is_closing and self._waiting.empty() else self._waiting.get()
            if record is None:
                return None
            while record is not None:
                batch.append(record)
                record = self._waiting.get_nowait() if len(batch) < _AT_ONCE else None
        return batch

    def _send(self, batch: list[Record]) -> None:
        try:
            producer = self._connected()
            deadline = monotonic() + 3 * self._settings.kafka_timeout_seconds
            sent = [producer.send(self._topic, value, key) for key, value in batch]
        except (ClickstreamError, KafkaError) as error:
            self._fail(len(batch), str(error))
            return
        except Exception as error:
            # A fault of the client's own; answers go on.
            _log.exception("kafka-python failed")
            self._fail(len(batch), repr(error))
            return
        failures = []
        for future in sent:
            try:
                future.get(max(0.0, deadline - monotonic()))
            except KafkaError as error:
                failures.append(str(error) or type(error).__name__)
        self._count(len(batch) - len(failures), len(failures))
        if failures:
            self._fail(0, failures[0])
        else:
            self._is_away = False

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            ensure_topics(self._settings)
            patience = 3 * self._settings.kafka_timeout_seconds
            self._producer = self._open.enter_context(open_producer(self._settings, patience, _LINGER_MS))
        return self._producer

    def _fail(self, lost: int, problem: str) -> None:
        if not self._is_away:
            # Once for an outage, and not for each batch.
            _log.warning("records for the topic %s are not sent: %s", self._topic, problem)
        self._is_away = True
        if lost:
            self._count(0, lost)
        self._disconnect()

    def _disconnect(self) -> None:
        self._producer = None
        try:
            self._open.close()
        except ClickstreamError as error:
            _log.info("%s", error)
