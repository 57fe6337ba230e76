"""Sends records to the topics of click events, and makes those that are missing."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import (
    InvalidConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
)
from kafka.partitioner import DefaultPartitioner, murmur2
from kafka.producer.future import FutureRecordMetadata

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.client import open_client, unreachable_message
from clickstream_assets.stores.kafka.client_private import close_producer

# A batch far below the broker's default message.max.bytes (1,048,588), which counts whole batches.
_BATCH_BYTES = 262_144
# The broker's limit, which is lower, is the one that should answer.
_LARGEST_RECORD_BYTES = 64_000_000
# A record an hour ahead of the broker is refused where it is sent. Kafka's default from 4.0 on, and unknown before 3.6;
# without it the timestamps of a sender that counts in nanoseconds would come to readers, and stop Spark's.
_TOPIC_CONFIGS = {"message.timestamp.after.max.ms": "3600000"}
# Sent and not yet acknowledged; the client itself would queue without end.
_QUEUE_RECORDS = 20_000
_QUEUE_BYTES = 64_000_000


# Hashing a key takes Python a third of the time of sending its record, and shoppers come again.
_hash = lru_cache(maxsize=131_072)(murmur2)


class _Partitioner(DefaultPartitioner):
    """Partitions by key as Java's client does, remembering the hashes of keys."""

    def partition(self, topic: str, *record: Any) -> int:
        """Return the partition of a record, by its key if it has one."""
        _, serialized_key, _, _, cluster = record
        if serialized_key is None:
            return super().partition(topic, *record)
        partitions = sorted(cluster.partitions_for_topic(topic))
        return partitions[(_hash(serialized_key) & 0x7FFFFFFF) % len(partitions)]


def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing, of events, products and exposures, and return which those were.

    Raises:
        InputError: no broker answers within `kafka_timeout_seconds`, or a topic cannot be created.
    """
    with open_explained(KafkaAdminClient, settings) as admin:
        missing = [name for name in settings.all_topics if admin.describe_topics([name])[0]["error_code"]]
        return [name for name in missing if _create(admin, name, settings)]


def _create(admin: KafkaAdminClient, name: str, settings: Settings) -> bool:
    """Create a topic; return whether it was still missing."""
    # Of a product the last record says all.
    own = {"cleanup.policy": "compact"} if name == settings.kafka_products_topic else {}
    for configs in (_TOPIC_CONFIGS | own, own):
        topic = {"num_partitions": settings.kafka_topic_partitions, "configs": configs}
        created = admin.create_topics({name: topic}, raise_errors=False)["topics"][0]
        if created["error_code"] != InvalidConfigurationError.errno:
            break
    if created["error_code"] == TopicAlreadyExistsError.errno:
        return False
    if created["error_code"]:
        others = {
            settings.kafka_products_topic: "KAFKA_PRODUCTS_TOPIC",
            settings.kafka_exposures_topic: "KAFKA_EXPOSURES_TOPIC",
        }
        setting = others.get(name, "KAFKA_TOPIC")
        raise InputError(f"{setting}={name}: the broker would not create it: {created['error_message']}")
    return True


class KafkaSink:
    """Sends records to the first topic of click events, or to the one that is named.

    Each is there exactly once, and a key's are in order.

    The topics are created if they are missing. A record that the broker does not take within three times
    `kafka_timeout_seconds`, or refuses, is an error: of a later `send`, or at the latest of `flush`.

    Raises:
        InputError: no broker answers within `kafka_timeout_seconds`.
    """

    def __init__(self, settings: Settings) -> None:
        ensure_topics(settings)
        self._settings = settings
        self._topic = settings.first_topic
        self._patience = 3 * settings.kafka_timeout_seconds
        self._sent = 0
        self._failed = 0
        self._problem = ""
        self._reported: InputError | None = None
        # Their place among all records, their size and outcome.
        self._queue: deque[tuple[int, int, FutureRecordMetadata]] = deque()
        self._queue_bytes = 0
        self._open = ExitStack()
        self._producer = self._open.enter_context(open_producer(settings, self._patience, linger_ms=20))

    @property
    def delivered(self) -> int:
        """Records that the broker has, once `flush` has returned."""
        return self._sent - self._failed

    def send(self, key: bytes | None, value: bytes, topic: str | None = None) -> None:
        """Queue a record, for another topic than the first where one is named; waits while the queue is full.

        Raises:
            InputError: this record or an earlier one was not delivered.
        """
        while self._queue and (
            self._queue[0][2].is_done
            or len(self._queue) >= _QUEUE_RECORDS
            or self._queue_bytes + len(value) > _QUEUE_BYTES
        ):
            # Ends by itself: what cannot be delivered times out.
            self._settle_first(monotonic() + self._patience + self._settings.kafka_timeout_seconds)
        if not self._problem:
            self._sent += 1
            try:
                future = self._producer.send(topic or self._topic, value, key)
                self._queue.append((self._sent, len(value), future))
                self._queue_bytes += len(value)
                return
            except KafkaError as error:
                self._note(error, self._sent, len(value))
        self._reported = self._failure()
        raise self._reported

    def flush(self) -> None:
        """Wait until the broker has every record.

        Raises:
            InputError: some were not delivered; the message says how many, and why the first was not.
        """
        deadline = monotonic() + self._patience + self._settings.kafka_timeout_seconds
        while self._queue:
            self._settle_first(deadline)
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
        finally:
            self._open.close()

    def _settle_first(self, deadline: float) -> None:
        position, size, future = self._queue.popleft()
        self._queue_bytes -= size
        try:
            future.get(max(0.0, deadline - monotonic()))
        except KafkaError as error:
            self._note(error, position, size)

    def _note(self, error: KafkaError, position: int, size: int) -> None:
        self._failed += 1
        self._problem = self._problem or _refusal(error, position, size)

    def _failure(self) -> InputError:
        return InputError(
            f"Kafka did not take {self._failed} of {self._sent} records for KAFKA_TOPIC={self._settings.kafka_topic} "
            f"at KAFKA_BOOTSTRAP_SERVERS={self._settings.kafka_bootstrap_servers}: {self._problem}"
        )


@contextmanager
def open_producer(
    settings: Settings, patience_seconds: float, linger_ms: int, *, is_idempotent: bool = True
) -> Iterator[KafkaProducer]:
    """Make a producer, and close it.

    Args:
        settings: the brokers, and how long each may take to answer.
        patience_seconds: how long it tries to deliver a record; longer than a broker may take.
        linger_ms: how long a batch of records waits for more.
        is_idempotent: each record comes in once, though it is sent again where an answer is lost. After a record that
            the broker refuses, kafka-python 3.0.12 has such a producer refuse all others.

    Raises:
        InputError: no broker answers within `kafka_timeout_seconds`.
    """
    with open_explained(
        KafkaProducer,
        settings,
        enable_idempotence=is_idempotent,
        # Else what is sent again comes behind what was sent after it.
        max_in_flight_requests_per_connection=5 if is_idempotent else 1,
        acks="all",
        compression_type="lz4",
        linger_ms=linger_ms,
        batch_size=_BATCH_BYTES,
        max_request_size=_LARGEST_RECORD_BYTES,
        # As it is to be longer than a request and its linger.
        delivery_timeout_ms=int(patience_seconds * 1000) + linger_ms,
        max_block_ms=int(settings.kafka_timeout_seconds * 1000),
        allow_auto_create_topics=False,
        metrics_enabled=False,
        partitioner=_Partitioner(),
    ) as producer:
        try:
            yield producer
        finally:
            close_producer(producer, settings.kafka_timeout_seconds)


def open_explained(kind: Any, settings: Settings, **options: Any) -> Any:
    """Make a client of kafka-python, and close it; that no broker answers is an `InputError`."""
    return open_client(
        kind,
        settings.kafka_timeout_seconds,
        lambda *reason: InputError(unreachable_message(settings, *reason)),
        **settings.kafka_client_options,
        client_id="clickstream-producer",
        request_timeout_ms=int(settings.kafka_timeout_seconds * 1000),
        **options,
    )


def _refusal(error: KafkaError, position: int, size: int) -> str:
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return (
            f"record {position} of {size} bytes is larger than the broker accepts; raise max.message.bytes of the "
            "topic, or leave the record out"
        )
    if isinstance(error, KafkaTimeoutError):
        return f"record {position} was not acknowledged in time; see whether the broker still runs"
    return f"record {position} of {size} bytes: {error}"
