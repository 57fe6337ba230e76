"""Sends records to the topic of click events, and makes the topic where it is missing."""

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from time import monotonic
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.login import LoginWatch, unreachable

# A batch far below the broker's default message.max.bytes (1,048,588), which counts whole batches.
_BATCH_BYTES = 262_144
# Only such records get a callback that knows their position: one for each event would halve the rate.
_LARGE_RECORD_BYTES = 8_192
# librdkafka's own limit; the broker's, which is lower, is the one that should answer.
_LARGEST_RECORD_BYTES = 64_000_000
_SENDS_BETWEEN_POLLS = 1_000


def ensure_topic(settings: Settings) -> bool:
    """Create the topic of click events if it is missing; whether it was.

    Raises:
        InputError: no broker answers within `kafka_timeout_seconds`, or the topic cannot be created.
    """
    login = LoginWatch()
    admin = AdminClient(_connection(settings) | {"error_cb": login})
    timeout = settings.kafka_timeout_seconds
    try:
        if settings.kafka_topic in admin.list_topics(timeout=timeout).topics:
            return False
    except KafkaException as error:
        admin.poll(0)
        raise InputError(unreachable(settings, error.args[0].str(), login)) from None
    # A replication factor of -1 is the broker's default.
    topic = NewTopic(settings.kafka_topic, settings.kafka_topic_partitions, -1)
    created = admin.create_topics([topic], operation_timeout=timeout)[settings.kafka_topic]
    try:
        created.result(timeout=timeout)
    except FutureTimeoutError:
        raise InputError(unreachable(settings, "creating the topic timed out", login)) from None
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise InputError(
            f"KAFKA_TOPIC={settings.kafka_topic}: the broker would not create it: {reason.str()}"
        ) from None
    return True


class KafkaSink:
    """Sends records to the topic of click events, each exactly once and a key's in order.

    The topic is created if it is missing. A record that the broker does not take within three times
    `kafka_timeout_seconds`, or refuses, is an error: of a later `send`, or at the latest of `flush`.

    Raises:
        InputError: no broker answers within `kafka_timeout_seconds`.
    """

    def __init__(self, settings: Settings) -> None:
        ensure_topic(settings)
        self._settings = settings
        self._topic = settings.kafka_topic
        self._patience = 3 * settings.kafka_timeout_seconds
        self._sent = 0
        self._failed = 0
        self._problem = ""
        self._reported: InputError | None = None
        self._producer = Producer(
            _connection(settings)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": _BATCH_BYTES,
                "message.max.bytes": _LARGEST_RECORD_BYTES,
                "delivery.timeout.ms": int(self._patience * 1000),
                # The partition that Java's and Python's other clients choose for the same key.
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "on_delivery": self._note_failure,
            }
        )

    @property
    def delivered(self) -> int:
        """Records that the broker has, once `flush` has returned."""
        return self._sent - self._failed

    def send(self, key: bytes | None, value: bytes) -> None:
        """Queue a record; waits while the queue is full.

        Raises:
            InputError: this record or an earlier one was not delivered.
        """
        if self._problem:
            self._reported = self._failure()
            raise self._reported
        self._sent += 1
        options: dict[str, Any] = {}
        if len(value) >= _LARGE_RECORD_BYTES:
            options["on_delivery"] = self._note_failure_of(self._sent)
        while True:
            try:
                self._producer.produce(self._topic, value, key, **options)
                break
            except BufferError:
                # Ends by itself: what cannot be delivered times out and makes room.
                self._producer.poll(0.05)
            except KafkaException as error:
                self._failed += 1
                self._problem = _refusal(error.args[0], len(value), self._sent)
                self._reported = self._failure()
                raise self._reported from None
        if self._sent % _SENDS_BETWEEN_POLLS == 0:
            self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has every record.

        Raises:
            InputError: some were not delivered; the message says how many, and why the first was not.
        """
        deadline = monotonic() + self._patience + self._settings.kafka_timeout_seconds
        while (waiting := self._producer.flush(1)) and monotonic() < deadline:
            pass
        if waiting:
            self._producer.purge()
            self._producer.flush(1)
        if self._problem:
            raise self._failure()

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush; after an error too, so that what was sent before it arrives."""
        try:
            self.flush()
        except InputError as undelivered:
            if error is None:
                raise
            # The error that is under way came first; this one must not hide it.
            if error is not self._reported:
                error.add_note(str(undelivered))

    def _note_failure(self, error: KafkaError | None, message: Message) -> None:
        self._note(error, message, None)

    def _note_failure_of(self, position: int) -> Callable[[KafkaError | None, Message], None]:
        return lambda error, message: self._note(error, message, position)

    def _note(self, error: KafkaError | None, message: Message, position: int | None) -> None:
        if error is None:
            return
        self._failed += 1
        self._problem = self._problem or _refusal(error, len(message.value() or b""), position)

    def _failure(self) -> InputError:
        return InputError(
            f"Kafka did not take {self._failed} of {self._sent} records for KAFKA_TOPIC={self._topic} at "
            f"KAFKA_BOOTSTRAP_SERVERS={self._settings.kafka_bootstrap_servers}: {self._problem}"
        )


def _connection(settings: Settings) -> dict[str, Any]:
    return {
        **settings.kafka_client_options,
        "client.id": "clickstream-simulator",
        "socket.timeout.ms": int(settings.kafka_timeout_seconds * 1000),
        # Its errors reach the user through ours; below 3 it would print them to stderr as well.
        "log_level": 2,
    }


def _refusal(error: KafkaError, size: int, position: int | None) -> str:
    which = f"record {position}" if position else "a record"
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return (
            f"{which} of {size} bytes is larger than the broker accepts; raise max.message.bytes of the "
            "topic, or leave the record out"
        )
    if error.code() == KafkaError._MSG_TIMED_OUT:
        return f"{which} was not acknowledged in time; see whether the broker still runs"
    return f"{which} of {size} bytes: {error.str()}"
