"""Reading the topics of click events by exact offset ranges."""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING
from uuid import UUID

import pyarrow as pa

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine, SparkEngine
from clickstream_assets.engine.spark_private import TIMESTAMP_TOO_LARGE
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import (
    FIRST_MILLISECOND,
    TopicError,
    TopicReader,
    arrivals,
)
from clickstream_assets.stores.kafka.partition import TopicPartition, to_topics

if TYPE_CHECKING:
    from pyspark.sql import Column

    from clickstream_assets.stores.kafka.client_private import Records

# Producers' batches, of up to 1 MB by default and in memory at once.
_POLL_BATCHES = 16
_POLL_MILLISECONDS = 100
# From here on worker processes read. Two of them, on a busy machine, take two thirds to nine tenths of the time for
# 300,000 records.
_PARALLEL_RECORDS = 100_000
# So many offsets may be marks of transactions, that are no records.
_FIRST_RECORDS = 100
# Most that one of Spark's tasks reads.
_TASK_RECORDS = 200_000


class DataLossError(TopicError):
    """Kafka no longer has records that were never ingested."""

    retryable = False


class TimestampError(TopicError):
    """Spark's reader of Kafka stops at a record, whose timestamp is no time in milliseconds."""

    retryable = False


def timestamp_error(settings: Settings, fix: str) -> TimestampError:
    """Make the error; `fix` says how to go on."""
    return TimestampError(
        f"KAFKA_TOPIC={settings.kafka_topic!r}: a record's timestamp is no time in milliseconds, and Spark's reader of "
        f"Kafka stops at it. {fix}. So that no more of them come, have the sender set milliseconds, and the "
        "topic refuse what is in the future: message.timestamp.after.max.ms=3600000"
    )


@dataclass(frozen=True)
class Offsets:
    """What one Kafka partition holds: from `low`, up to but without `high`."""

    low: int
    high: int


@dataclass(frozen=True)
class OffsetRange:
    """Records of one Kafka partition: from `start`, up to but without `end`."""

    partition: TopicPartition
    start: int
    end: int

    def __len__(self) -> int:
        """Return the number of offsets."""
        return self.end - self.start


def plan_ranges(
    ingested: Mapping[TopicPartition, int],
    available: Mapping[TopicPartition, Offsets],
    limit: int,
    allow_data_loss: bool = False,
    setting: str = "KAFKA_TOPIC",
) -> list[OffsetRange]:
    """Decide which records to read next, at most `limit` of them, an even share of each partition of each topic.

    Args:
        ingested: per partition the next offset to ingest; a partition that is not there starts at its lowest.
        available: what Kafka holds.
        limit: most records to read.
        allow_data_loss: go on where Kafka has deleted records that were never ingested.
        setting: the setting that names the topics.

    Returns:
        The ranges, none of them empty, by partition.

    Raises:
        DataLossError: there are such records and `allow_data_loss` is not set, or a topic was made anew.
    """
    lost = deleted_records(ingested, available)
    if lost and not allow_data_loss:
        counts = ", ".join(f"{count:,} of {_worded(partition)}" for partition, count in sorted(lost.items()))
        raise DataLossError(
            f"Kafka has deleted records that were never ingested: {counts}. Raise the topic's retention; to go on "
            "without them set ALLOW_DATA_LOSS=true"
        )
    shrunk = {p: o for p, o in available.items() if ingested.get(p, 0) > o.high}
    if shrunk:
        partition, offsets = min(shrunk.items())
        raise DataLossError(
            f"{_worded(partition)} ends at offset {offsets.high:,}, before offset {ingested[partition]:,}, up to which "
            f"it was ingested: the topic was deleted and made anew. Name another topic in {setting}, or use another "
            "LAKE_PATH for the new topic"
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


def _worded(partition: TopicPartition) -> str:
    return f"partition {partition.partition} of topic {partition.topic}"


def deleted_records(
    ingested: Mapping[TopicPartition, int], available: Mapping[TopicPartition, Offsets]
) -> dict[TopicPartition, int]:
    """Return how many records Kafka has deleted that were never ingested, per partition that has any."""
    return {p: o.low - ingested[p] for p, o in available.items() if p in ingested and o.low > ingested[p]}


def waiting_offsets(
    ingested: Mapping[TopicPartition, int],
    available: Mapping[TopicPartition, Offsets],
    allow_data_loss: bool = False,
) -> int:
    """Return by how many offsets the topics and what was ingested of them differ.

    Records that were lost count too, and a partition that ends too early: the run fails and says what happened. Where
    losses are allowed they do not, as no run could ever bring them in.
    """
    waiting = 0
    for partition, there in available.items():
        start = ingested.get(partition, there.low)
        waiting += abs(there.high - (max(start, there.low) if allow_data_loss else start))
    return waiting


def arrival_columns(timestamp: Column, read: Column) -> tuple[Column, Column]:
    """Return the columns `kafka_time` and `kafka_timestamp` of records on Spark.

    A sender sets the timestamp, so it can be in another unit or of a clock that is wrong: it is believed up to the time
    of the reading.
    """
    from pyspark.sql import functions as F

    first = F.timestamp_millis(F.lit(FIRST_MILLISECOND))
    came = timestamp.between(first, read)
    return (
        F.when(came, timestamp).otherwise(read).alias("kafka_time"),
        F.when(~came, F.unix_millis(timestamp)).alias("kafka_timestamp"),
    )


def _shared(ranges: list[OffsetRange], processes: int) -> list[list[OffsetRange]]:
    """Share ranges out to processes, about as many records to each.

    A range stays whole: were its end read and its beginning left to the next batch, the lake would take it for read.
    """
    shares: list[list[OffsetRange]] = [[] for _ in range(min(processes, len(ranges)))]
    for largest in sorted(ranges, key=len, reverse=True):
        min(shares, key=lambda share: sum(map(len, share))).append(largest)
    return shares


def _read(settings: Settings, batch: int, room: int, ranges: list[OffsetRange]) -> pa.Table:
    return pa.Table.from_batches(Topics(settings).read_here(ranges, batch, room), RAW_EVENTS.arrow)


class Topics(TopicReader):
    """The topics of click events, or those that are named, read as one by offsets; arguments as of `TopicReader`."""

    def __init__(
        self, settings: Settings, names: Iterable[str] | None = None, setting: str = "KAFKA_TOPIC"
    ) -> None:
        super().__init__(settings, names, setting)
        self._servers = settings.kafka_bootstrap_servers
        self._batch_bytes = settings.ingest_batch_bytes

    def offsets(self) -> dict[TopicPartition, Offsets]:
        """Ask Kafka what each partition of each topic holds.

        Raises:
            TopicError: no broker answers in time, or one of the topics is not there.
        """
        from kafka import TopicPartition as KafkaPartition

        with self.found() as (consumer, found):
            partitions = [KafkaPartition(*partition) for partition in found]
            timeout_ms = int(self._timeout * 1000)
            low = consumer.beginning_offsets(partitions, timeout_ms)
            high = consumer.end_offsets(partitions, timeout_ms)
            return {TopicPartition(*p): Offsets(low[p], high[p]) for p in partitions}

    def first_time(self, start: Mapping[TopicPartition, int]) -> datetime | None:
        """Return when the first record came from some offsets on, where there is one.

        Args:
            start: per partition the offset; a partition that is not there is read from its lowest.

        Raises:
            TopicError: as `offsets`, or the records cannot be read.
        """
        ranges = [
            OffsetRange(partition, first, min(held.high, first + _FIRST_RECORDS))
            for partition, held in self.offsets().items()
            if (first := max(held.low, start.get(partition, 0))) < held.high
        ]
        if not ranges:
            return None
        times = (time for rows in self.read_here(ranges, 0, self._batch_bytes) for time in rows["kafka_time"])
        return min((time.as_py() for time in times), default=None)

    def ids(self) -> dict[str, UUID | None]:
        """Ask for Kafka's id of each topic: one that is deleted and made anew has another. None before Kafka 2.8.

        Raises:
            TopicError: as `offsets`.
        """
        from clickstream_assets.stores.kafka.client_private import topic_id

        with self.found() as (consumer, _):
            return {name: topic_id(consumer, name) for name in self.names}

    def read(self, engine: Engine, ranges: list[OffsetRange], batch: int) -> DataFrame:
        """Read these ranges as RAW_EVENTS rows of an ingest batch.

        Where their records are large, DuckDB, which has them in memory, reads the beginning of each range (or nothing
        of some), at least one record, until it has INGEST_BATCH_BYTES.

        Raises:
            TopicError: a range cannot be read to its end.
        """
        if isinstance(engine, SparkEngine):
            return self._read_spark(engine, ranges, batch)
        read = partial(_read, self._settings.with_secrets("kafka_password"), batch)
        if isinstance(engine, DuckDBEngine) and sum(map(len, ranges)) >= _PARALLEL_RECORDS:
            shares = _shared(ranges, engine.processes)
            if len(shares) > 1:
                room = self._batch_bytes // len(shares)
                return engine.from_arrow(engine.call_in_processes(partial(read, room), shares))
        return engine.from_arrow(read(self._batch_bytes, ranges))

    def _read_spark(self, engine: SparkEngine, ranges: list[OffsetRange], batch: int) -> DataFrame:
        from pyspark.sql import functions as F

        starts = to_topics({r.partition: r.start for r in ranges})
        ends = to_topics({r.partition: r.end for r in ranges})
        assigned = {topic: list(map(int, partitions)) for topic, partitions in starts.items()}
        records = (
            engine.session.read.format("kafka")
            .options(**self._settings.kafka_spark_options)
            .option("assign", json.dumps(assigned))
            .option("startingOffsets", json.dumps(starts))
            .option("endingOffsets", json.dumps(ends))
            .option("failOnDataLoss", "true")
            # As `consumer` does.
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
            *arrival_columns(F.col("timestamp"), F.lit(datetime.now(UTC))),
            "key",
            "value",
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an error by which Spark cannot go on with what `read` returned into one of ours."""
        try:
            yield
        except Exception as error:
            if not TIMESTAMP_TOO_LARGE.search(str(error)):
                raise
            raise timestamp_error(
                self._settings,
                "Ingest it with COMPUTE_ENGINE=duckdb, which takes the time of the reading in its place",
            ) from error

    def read_here(self, ranges: list[OffsetRange], batch: int, room: int) -> Iterator[pa.RecordBatch]:
        """Read the ranges in this process, until it has `room` bytes; RAW_EVENTS rows of an ingest batch."""
        from kafka import TopicPartition as KafkaPartition

        from clickstream_assets.stores.kafka.client import unreachable_message
        from clickstream_assets.stores.kafka.client_private import poll_batches

        unread = {KafkaPartition(*r.partition): r for r in ranges}
        heard = time.monotonic()

        def explain(reason: str, refused: bool) -> TopicError:
            if refused:
                return TopicError(unreachable_message(self._settings, reason, refused))
            if time.monotonic() - heard < self._timeout:
                topics = ", ".join(sorted({partition.topic for partition in unread}))
                return TopicError(f"reading topic {topics}: {reason}")
            waiting = ", ".join(str(TopicPartition(*partition)) for partition in sorted(unread))
            return TopicError(
                f"KAFKA_BOOTSTRAP_SERVERS={self._servers}: partitions {waiting} gave nothing for "
                f"{self._timeout:g} s ({reason})"
            )

        with self.consumer(explain) as consumer:
            consumer.assign(list(unread))
            for partition, unread_range in unread.items():
                consumer.seek(partition, unread_range.start)
            while unread:
                polled = poll_batches(consumer, _POLL_MILLISECONDS, _POLL_BATCHES)
                if polled:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._timeout:
                    raise explain("the broker sent no records", False)
                for partition, found in polled.items():
                    data = self._to_arrow(unread[partition], found, batch)
                    if data.nbytes >= room:
                        # What comes after these is left to the next batch, so nothing more may be read.
                        yield data.slice(0, ceil(room * data.num_rows / data.nbytes))
                        return
                    room -= data.nbytes
                    yield data
                # By position, not by records seen: a range can end in records that are never shown, such as a
                # transaction's markers.
                for partition in [p for p in unread if consumer.position(p) >= unread[p].end]:
                    del unread[partition]
                    consumer.pause(partition)

    def _to_arrow(self, wanted: OffsetRange, found: list[Records], batch: int) -> pa.RecordBatch:
        offsets = list(chain.from_iterable(records.offsets for records in found))
        count = len(offsets)
        times, timestamps = arrivals(
            list(chain.from_iterable(records.times for records in found)), int(time.time() * 1000)
        )
        columns: dict[str, pa.Array] = {
            "topic": pa.repeat(pa.scalar(wanted.partition.topic), count),
            "partition": pa.repeat(pa.scalar(wanted.partition.partition, pa.int32()), count),
            "offset": pa.array(offsets, pa.int64()),
            "batch": pa.repeat(pa.scalar(batch, pa.int64()), count),
            "kafka_time": pa.array(times, pa.timestamp("ms", "UTC")).cast(
                RAW_EVENTS.arrow.field("kafka_time").type
            ),
            "kafka_timestamp": pa.array(timestamps, pa.int64()),
            "key": pa.array(chain.from_iterable(records.keys for records in found), pa.binary()),
            "value": pa.array(chain.from_iterable(records.values for records in found), pa.binary()),
        }
        data = pa.RecordBatch.from_arrays(
            [columns[field.name] for field in RAW_EVENTS.arrow], schema=RAW_EVENTS.arrow
        )
        start = bisect_left(offsets, wanted.start)
        return data.slice(start, bisect_left(offsets, wanted.end) - start)
