"""Parts of kafka-python that we use and it does not document, read from version 3.0.12.

Its consumer makes three objects of each record, which takes four times as long as reading a batch of records into
lists; and it only logs why a connection failed. A test asks for each part, so it fails at an upgrade that changes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    CorruptRecordError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient


class WatchedClient(KafkaNetClient):
    """The connections of a consumer, a producer or an admin client; remembers why one failed."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.failure: BaseException | None = None
        connect = self._manager.get_connection
        watched: WeakSet[Any] = WeakSet()

        def connect_and_watch(*arguments: Any, **options: Any) -> Any:
            connection = connect(*arguments, **options)
            # While a broker hangs, the same one is asked for hundreds of times.
            if connection in watched:
                return connection
            watched.add(connection)
            connection.init_future.add_errback(self._note)
            close = connection.close

            def note_and_close(error: BaseException | None = None) -> None:
                # A broker that refuses a login hangs up; where that is seen first, the refusal comes only here.
                self._note(error)
                close(error)

            connection.close = note_and_close
            made = connection.connection_made

            def made_and_heard_out(transport: Any) -> None:
                _hear_out(transport)
                made(transport)

            connection.connection_made = made_and_heard_out
            return connection

        self._manager.get_connection = connect_and_watch

    @property
    def refused(self) -> bool:
        """Whether a broker refused the login."""
        return isinstance(self.failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError)

    def _note(self, error: BaseException | None) -> None:
        # The client tries again until its time is up, and the last attempt is cut short.
        if error and not self.refused:
            self.failure = error


def _hear_out(transport: Any) -> None:
    """Have a transport hand on what came together with the end of its connection: it would drop that.

    Such is the refusal of a login, on a machine that is too busy to read it before the broker hangs up.
    """
    receive = transport._sock_recv

    def receive_all() -> tuple[bytes, BaseException | None]:
        received, error = receive()
        # The end is still there for the next time.
        return received, None if received else error

    transport._sock_recv = receive_all


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Close a producer, though its broker hangs.

    Its own `close` waits for ever for the last answers, or with a limit leaves its thread at work on connections. Of a
    broker that died it may wait for a batch that it has forgotten, and that no time limit ends.
    """
    try:
        producer.close(timeout=seconds)
    except KafkaTimeoutError:
        producer._sender.force_close()
        producer._sender.join(seconds)
        producer.close(timeout=seconds)
    producer._sender.join(seconds)


class Records(NamedTuple):
    """A batch of records as the broker keeps it, in order of offset, an item per record."""

    offsets: list[int]
    times: list[int]
    """Milliseconds since 1970, as the topic's timestamp type has it."""
    keys: list[bytes | None]
    values: list[bytes | None]


def poll_batches(consumer: KafkaConsumer, timeout_ms: int, batches: int) -> dict[Any, list[Records]]:
    """Call a consumer's `poll` for at most so many batches of records in place of records.

    Control batches and aborted transactions are left out, as `poll` does. The first batch of a position may begin
    before it.
    """
    consumer._fetcher.PartitionRecords = _Partition
    polled = consumer.poll(timeout_ms, max_records=batches)
    return {partition: [batch.value for batch in found] for partition, found in polled.items()}


def topic_id(consumer: KafkaConsumer, name: str) -> UUID | None:
    """Return Kafka's id of a topic whose partitions were just asked for; None of a broker before 2.8."""
    found: UUID | None = consumer._client.cluster.topic_id(name)
    return found if found and found.int else None


class _Partition(Fetcher.PartitionRecords):
    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        return super()._unpack_records(tp, _Batches(records), *deserializers)


class _Batches:
    def __init__(self, records: Any) -> None:
        self._records = records

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        is_control = batch is not None and batch.magic == 2 and batch.is_control_batch
        return batch if batch is None or is_control else _Batch(batch)


class _Batch:
    """A batch that iterates over itself as if it were one record, with the offset of its last one."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        if self._batch.magic == 2:
            records, last = _decode(self._batch), self._batch.last_offset
        else:
            rows = [(r.offset, r.timestamp, r.key, r.value) for r in self._batch]
            records, last = Records(*map(list, zip(*rows, strict=True))), rows[-1][0]
        yield SimpleNamespace(
            offset=last,
            timestamp=None,
            timestamp_type=None,
            key=None,
            value=records,
            headers=[],
            checksum=None,
            size_in_bytes=self._batch.size_in_bytes,
            validate_crc=lambda: True,
        )


def _decode(batch: Any) -> Records:
    """Decode a batch of Kafka's message format 2: https://kafka.apache.org/documentation/#record.

    Numbers of one byte and lengths of two, which nearly all are, are decoded in place: a call costs as much as that.
    """
    batch._maybe_uncompress()
    data, position = bytes(batch._buffer), batch._pos
    base, first = batch.base_offset, batch.first_timestamp
    offsets, times, keys, values = records = Records([], [], [], [])
    for _ in range(batch.records_count):
        length, position = _varint(data, position)
        end = position + length
        position += 1  # attributes, of which there are none yet
        byte = data[position]
        if byte < 0x80:
            number, position = (byte >> 1) ^ -(byte & 1), position + 1
        else:
            number, position = _varint(data, position)
        times.append(first + number)
        byte = data[position]
        if byte < 0x80:
            number, position = byte >> 1, position + 1
        else:
            number, position = _varint(data, position)
        offsets.append(base + number)
        for column in (keys, values):
            byte = data[position]
            position += 1
            if byte < 0x80:
                length = (byte >> 1) ^ -(byte & 1)
            elif (second := data[position]) < 0x80:
                length = byte & 0x7F | second << 7
                length, position = (length >> 1) ^ -(length & 1), position + 1
            else:
                length, position = _varint(data, position - 1)
            if length < 0:
                column.append(None)
            else:
                column.append(data[position : position + length])
                position += length
        # Headers come last and are nobody's here.
        if position > end:
            raise CorruptRecordError(f"a record at offset {offsets[-1]} is longer than it says")
        position = end
    if position != len(data):
        raise CorruptRecordError(
            f"the batch at offset {base} ends in {len(data) - position} bytes of no record"
        )
    if batch.timestamp_type == batch.LOG_APPEND_TIME:
        times[:] = [batch.max_timestamp] * len(times)
    return records


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    number = byte & 0x7F
    shift = 7
    while byte >= 0x80:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), position
