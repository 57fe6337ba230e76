"""Reading the topic of click events by exact offset ranges."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DataFrame, Engine, SparkEngine
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.login import LoginWatch, unreachable

if TYPE_CHECKING:
    from confluent_kafka import Consumer

_CHUNK_RECORDS = 16_384
_CHUNK_SECONDS = 0.1
# Until some have been seen: the largest that brokers take by default.
_RECORD_BYTES = 1_000_000
# Most that one of Spark's tasks reads.
_TASK_RECORDS = 200_000


class KafkaError(ClickstreamError):
    """Kafka cannot give what was asked; the message names the setting and the fix."""

    retryable = True


class TopicNotFoundError(KafkaError):
    """The topic is not there (yet)."""

    retryable = False


class DataLossError(KafkaError):
    """Kafka no longer has records that were never ingested."""

    retryable = False


@dataclass(frozen=True)
class Offsets:
    """What one Kafka partition holds: from `low`, up to but without `high`."""

    low: int
    high: int


@dataclass(frozen=True)
class OffsetRange:
    """Records of one Kafka partition: from `start`, up to but without `end`."""

    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        """Return the number of offsets."""
        return self.end - self.start


def plan_ranges(
    ingested: Mapping[int, int], available: Mapping[int, Offsets], limit: int, allow_data_loss: bool = False
) -> list[OffsetRange]:
    """Decide which records to read next, at most `limit` of them, an even share of each partition.

    Args:
        ingested: per partition the next offset to ingest; a partition that is not there starts at its lowest.
        available: what Kafka holds.
        limit: most records to read.
        allow_data_loss: go on where Kafka has deleted records that were never ingested.

    Returns:
        The ranges, none of them empty, by partition.

    Raises:
        DataLossError: there are such records and `allow_data_loss` is not set, or the topic was made anew.
    """
    lost = deleted_records(ingested, available)
    if lost and not allow_data_loss:
        counts = ", ".join(f"{count:,} of partition {partition}" for partition, count in sorted(lost.items()))
        raise DataLossError(
            f"Kafka has deleted records that were never ingested: {counts}. Raise the topic's retention; to go on "
            "without them set ALLOW_DATA_LOSS=true"
        )
    shrunk = {p: o for p, o in available.items() if ingested.get(p, 0) > o.high}
    if shrunk:
        partition, offsets = min(shrunk.items())
        raise DataLossError(
            f"partition {partition} of the topic ends at offset {offsets.high:,}, before offset "
            f"{ingested[partition]:,}, up to which it was ingested: the topic was deleted and made anew. Use "
            "another KAFKA_TOPIC or another LAKE_PATH for the new topic"
        )
    waiting = {
        partition: OffsetRange(partition, max(ingested.get(partition, 0), offsets.low), offsets.high)
        for partition, offsets in available.items()
    }
    ranges = []
    # The smallest first: what it leaves of its share goes to the others.
    todo = sorted((r for r in waiting.values() if len(r)), key=len)
    for index, waiting_range in enumerate(todo):
        share = min(len(waiting_range), limit // (len(todo) - index))
        limit -= share
        if share:
            ranges.append(
                OffsetRange(waiting_range.partition, waiting_range.start, waiting_range.start + share)
            )
    return sorted(ranges, key=lambda r: r.partition)


def deleted_records(ingested: Mapping[int, int], available: Mapping[int, Offsets]) -> dict[int, int]:
    """Return how many records Kafka has deleted that were never ingested, per partition that has any."""
    return {p: o.low - ingested[p] for p, o in available.items() if p in ingested and o.low > ingested[p]}


class Topic:
    """The topic of click events."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.kafka_topic
        self._settings = settings
        self._servers = settings.kafka_bootstrap_servers
        self._timeout = settings.kafka_timeout_seconds
        self._batch_bytes = settings.ingest_batch_bytes

    def _consumer(self, login: LoginWatch | None = None) -> Consumer:
        from confluent_kafka import Consumer

        return Consumer(
            {
                **self._settings.kafka_client_options,
                **({"error_cb": login} if login else {}),
                # Required by the client; offsets are the lake's business and never committed.
                "group.id": "clickstream_assets",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 4_194_304,
                # The default prefetch of 64 MB a partition would be most of a small machine's memory.
                "queued.max.messages.kbytes": 16_384,
                # Once it is full no more is fetched for this long: by default a second, of which it is empty for most.
                "fetch.queue.backoff.ms": 10,
                "log_level": 2,
            }
        )

    def offsets(self) -> dict[int, Offsets]:
        """Ask Kafka what each partition holds.

        Raises:
            KafkaError: no broker answers in time, or there is no such topic.
        """
        from confluent_kafka import KafkaException, TopicPartition

        login = LoginWatch()
        consumer = self._consumer(login)
        try:
            topic = consumer.list_topics(self.name, timeout=self._timeout).topics[self.name]
            if topic.error or not topic.partitions:
                raise TopicNotFoundError(
                    f"KAFKA_TOPIC={self.name!r}: {self._servers} has no such topic. Events sent with "
                    "`clickstream simulate` or `clickstream replay` make it, or make it yourself"
                )
            return {
                partition: Offsets(
                    *consumer.get_watermark_offsets(TopicPartition(self.name, partition), self._timeout)
                )
                for partition in sorted(topic.partitions)
            }
        except KafkaException as error:
            consumer.poll(0)
            raise KafkaError(unreachable(self._settings, error.args[0].str(), login)) from error
        finally:
            consumer.close()

    def read(self, engine: Engine, ranges: list[OffsetRange], batch: int) -> DataFrame:
        """Read these ranges as RAW_EVENTS rows of an ingest batch.

        Where their records are large, DuckDB, which has them in memory, reads the beginning of each range (or nothing
        of some), at least one record, until it has INGEST_BATCH_BYTES.

        Raises:
            KafkaError: a range cannot be read to its end.
        """
        if isinstance(engine, SparkEngine):
            return self._read_spark(engine, ranges, batch)
        return engine.from_arrow(pa.Table.from_batches(self._read_batches(ranges, batch), RAW_EVENTS.arrow))

    def _read_spark(self, engine: SparkEngine, ranges: list[OffsetRange], batch: int) -> DataFrame:
        from pyspark.sql import functions as F

        records = (
            engine.session.read.format("kafka")
            .options(**self._settings.kafka_spark_options)
            .option("assign", json.dumps({self.name: [r.partition for r in ranges]}))
            .option("startingOffsets", json.dumps({self.name: {str(r.partition): r.start for r in ranges}}))
            .option("endingOffsets", json.dumps({self.name: {str(r.partition): r.end for r in ranges}}))
            .option("failOnDataLoss", "true")
            # As librdkafka does by default: records of a transaction that was aborted are no records.
            .option("kafka.isolation.level", "read_committed")
            # Else it is one task a Kafka partition: on two cores, three take as long as four.
            .option("maxRecordsPerPartition", _TASK_RECORDS)
            .load()
        )
        return records.select(
            "topic",
            "partition",
            "offset",
            F.lit(batch).cast("long").alias("batch"),
            F.col("timestamp").alias("kafka_time"),
            "key",
            "value",
        )

    def _read_batches(self, ranges: list[OffsetRange], batch: int) -> Iterator[pa.RecordBatch]:
        from confluent_kafka import TopicPartition

        unread = {r.partition: r for r in ranges}
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(self.name, r.partition, r.start) for r in ranges])
            heard = time.monotonic()
            count = size = 0
            while unread and size < self._batch_bytes:
                # Returns early only when the chunk is full, so the wait is what the last chunk costs.
                average = size / count if count else _RECORD_BYTES
                wanted = min(_CHUNK_RECORDS, max(1, int((self._batch_bytes - size) / average)))
                messages = consumer.consume(wanted, timeout=_CHUNK_SECONDS)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._timeout:
                    waiting = ", ".join(str(partition) for partition in sorted(unread))
                    raise KafkaError(
                        f"KAFKA_BOOTSTRAP_SERVERS={self._servers}: partitions {waiting} of topic {self.name} gave "
                        f"nothing for {self._timeout:g} s"
                    )
                records = []
                for message in messages:
                    if message.error() is None:
                        unread_range = unread.get(message.partition())
                        if unread_range and message.offset() < unread_range.end:
                            records.append(message)
                    else:
                        self._check(message.error())
                if records:
                    data = self._to_arrow(records, batch)
                    count += len(records)
                    size += data.nbytes
                    yield data
                # By position, not by records seen: a range can end in records that are never shown, such as a
                # transaction's markers.
                done = [
                    position.partition
                    for position in consumer.position([TopicPartition(self.name, p) for p in unread])
                    if position.offset >= unread[position.partition].end
                ]
                for partition in done:
                    del unread[partition]
                if done and unread:
                    consumer.incremental_unassign([TopicPartition(self.name, p) for p in done])
        finally:
            consumer.close()

    def _check(self, error: Any) -> None:
        from confluent_kafka import KafkaError as ClientError

        if error.code() in (
            ClientError._PARTITION_EOF,
            ClientError._ALL_BROKERS_DOWN,
            ClientError._TRANSPORT,
        ):
            # Not final: the next poll goes on, or runs into the time-out.
            return
        raise KafkaError(f"reading topic {self.name}: {error.str()}")

    def _to_arrow(self, messages: list[Any], batch: int) -> pa.RecordBatch:
        count = len(messages)
        columns = {
            "topic": pa.array([self.name] * count, pa.string()),
            "partition": pa.array([m.partition() for m in messages], pa.int32()),
            "offset": pa.array([m.offset() for m in messages], pa.int64()),
            "batch": pa.array([batch] * count, pa.int64()),
            "kafka_time": pa.array([m.timestamp()[1] * 1000 for m in messages], pa.int64()).cast(
                RAW_EVENTS.arrow.field("kafka_time").type
            ),
            "key": pa.array([m.key() for m in messages], pa.binary()),
            "value": pa.array([m.value() for m in messages], pa.binary()),
        }
        return pa.RecordBatch.from_arrays(
            [columns[field.name] for field in RAW_EVENTS.arrow], schema=RAW_EVENTS.arrow
        )
