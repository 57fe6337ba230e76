"""Source of the streams: a Spark session of their own, and the topics' valid events."""

import gc
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import EVENTS, MONEY_TYPES, RAW_EVENTS
from clickstream_assets.engine import DataFrame, SparkEngine, SparkSession
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, to_topics
from clickstream_assets.stores.kafka.topic import arrival_columns
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.erasures import places_after

# Fewer than Spark's hundred: what is kept is only read again after a crash, and that goes one batch back.
_BATCHES_KEPT = 20
_STATE_MEMORY_MB = 128


def streaming_session(settings: Settings) -> SparkSession:
    """Start Spark in this process, or join it, and return a session with the streams' own configuration.

    It is a classic one even where SPARK_REMOTE names a Connect server: a batch's rows are written on a connection of
    this process, which cannot be shipped. Where it is local, it has more threads than cores: those of the live events
    can be waiting for Elasticsearch, and must not keep the windows from going on.
    """
    from clickstream_assets.engine import spark_session

    # PySpark would take the variable for a wish to use Connect, whatever it is asked for.
    os.environ.pop("SPARK_REMOTE", None)
    master = settings.spark_master or f"local[{(os.cpu_count() or 1) + settings.stream_shuffle_partitions}]"
    classic = settings.model_copy(
        update={"spark_remote": None, "spark_master": master, "spark_cores_max": settings.stream_cores_max}
    )
    return configured(SparkEngine(lambda: spark_session(classic)).session, settings)


def configured(session: SparkSession, settings: Settings) -> SparkSession:
    """Return another session on the same Spark that keeps the streams' state in RocksDB."""
    own = session.newSession()
    state = "spark.sql.streaming.stateStore"
    configuration = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": settings.stream_shuffle_partitions,
        "spark.sql.streaming.minBatchesToRetain": _BATCHES_KEPT,
        f"{state}.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        # A batch writes what it changed; whole copies of the state are made in the background.
        f"{state}.rocksdb.changelogCheckpointing.enabled": "true",
        # To count rows it would read each key before it is written, and nobody asks for the number.
        f"{state}.rocksdb.trackTotalNumberOfRows": "false",
        f"{state}.rocksdb.boundedMemoryUsage": "true",
        f"{state}.rocksdb.maxMemoryUsageMB": _STATE_MEMORY_MB,
    }
    for name, value in configuration.items():
        own.conf.set(name, str(value))
    return own


@cache
def _spare_the_collector() -> None:
    """Keep imported modules out of garbage collections, once in a process.

    Spark's workers collect after each task, however small: 50 ms for 100,000 objects that all stay.
    """
    gc.collect()
    gc.freeze()


Erased: TypeAlias = Mapping[tuple[str, int], pa.Array]
"""Offsets of erased records, by topic and partition."""
NOBODY: Erased = MappingProxyType({})


def valid_batches(
    batches: Iterator[pa.RecordBatch],
    rules: ValidationRules,
    columns: tuple[str, ...],
    erased: Erased = NOBODY,
) -> Iterator[pa.RecordBatch]:
    """Parse records and keep the valid events; runs on Spark's workers.

    Args:
        batches: RAW_EVENTS rows.
        rules: of valid events.
        columns: which of PARSED, and LINE_COPIES, both or neither; fewer are faster.
        erased: records that are left out.
    """
    _spare_the_collector()
    lines: Counter[tuple[Any, ...]] = Counter()
    kept = (_without(batch, erased) for batch in batches) if erased else batches
    for batch in parse_batches(kept, rules):
        events = batch.filter(pc.is_null(batch.column("rule")))
        if set(LINE_COPIES) <= set(columns):
            for field, copies in zip(_LINE_COPY_FIELDS, _line_copies(events, lines), strict=True):
                events = events.append_column(field, copies)
        yield events.select(list(columns))


def _without(batch: pa.RecordBatch, erased: Erased) -> pa.RecordBatch:
    """Leave out the records at some offsets."""
    for (topic, partition), offsets in erased.items():
        is_there = pc.and_(
            pc.and_(pc.equal(batch.column("topic"), topic), pc.equal(batch.column("partition"), partition)),
            pc.is_in(batch.column("offset"), offsets),
        )
        batch = batch.filter(pc.invert(is_there))
    return batch


def erased_offsets(settings: Settings) -> Erased:
    """Return where the records of erased persons are in the topics, of those that Kafka may have still.

    Raises:
        PostgresError: the database cannot be reached.
    """
    places = [its for its in places_after(settings, 0).values() if its.num_rows]
    if not places:
        return {}
    grouped = pa.concat_tables(places).group_by(["topic", "partition"]).aggregate([("offset", "distinct")])
    return {
        (row["topic"], row["partition"]): pa.array(row["offset_distinct"], pa.int64())
        for row in grouped.to_pylist()
    }


LINE_COPIES = ("user_line_copy", "visitor_line_copy")
"""Numbers, from 1, of an order line among a user's, and a visitor's, that are the same and of the same moment, in the
order that they come; 1 where the event has no such id (`identities`).

By them the stream tells the units of an order, sent in a record each, from a thank-you page that is loaded again, as
the batch does by their time: what is sent again at another time has the numbers of the first ones.
"""
_LINE_COPY_FIELDS = [pa.field(name, pa.int64()) for name in LINE_COPIES]
_IDS = ("user_id", "anonymous_id", "session_id")
_SAME_LINE = ("event_type", "order_id", "order_line", "product_id", "price", "event_time")


def _line_copies(events: pa.RecordBatch, lines: Counter[tuple[Any, ...]]) -> list[pa.Array]:
    copies = [[1] * events.num_rows for _ in LINE_COPIES]
    is_line = pc.and_(
        pc.is_in(events.column("event_type"), pa.array(sorted(MONEY_TYPES))),
        pc.is_valid(events.column("order_id")),
    )
    rows = pc.indices_nonzero(is_line)
    sent = events.take(rows)
    ids = zip(*(sent.column(name).to_pylist() for name in _IDS), strict=True)
    columns = [sent.column(name).to_pylist() for name in _SAME_LINE]
    # A missing quantity is one.
    columns.append(pc.fill_null(sent.column("quantity"), 1).to_pylist())
    for row, (user, visitor, session), *line in zip(rows.to_pylist(), ids, *columns, strict=True):
        others = ("anonymous_id", visitor) if visitor or user else ("session_id", session)
        for its_copies, (kind, identity) in zip(copies, (("user_id", user), others), strict=True):
            if identity:
                key = (kind, identity, *line)
                lines[key] += 1
                its_copies[row] = lines[key]
    return [pa.array(its_copies, pa.int64()) for its_copies in copies]


def classified_offsets(lake: Lake, topics: Collection[str]) -> dict[TopicPartition, int]:
    """Return, per partition of some topics, the offset up to which the lake's events hold it.

    Records of `raw_events` that are not yet classified do not count: their events are nowhere yet.
    """
    # In this order: records that are classified meanwhile are left out.
    batch = lake.snapshot(EVENTS).batch
    held = lake.snapshot(RAW_EVENTS).up_to_batch(batch).maximum("offset", by=("topic", "partition"))
    return {TopicPartition(*key): offset + 1 for key, offset in held.items() if key[0] in topics}


def topic_records(
    session: SparkSession, settings: Settings, starting_offsets: Mapping[TopicPartition, int] | None = None
) -> DataFrame:
    """Stream the topics' records: RAW_EVENTS rows of no ingest batch.

    Args:
        session: a classic one, as `streaming_session` returns it.
        settings: name the topics.
        starting_offsets: where a query without a checkpoint begins, per partition (default: the earliest record).
    """
    from pyspark.sql import functions as F

    starting = json.dumps(to_topics(starting_offsets)) if starting_offsets else "earliest"
    return (
        session.readStream.format("kafka")
        .options(**settings.kafka_spark_options)
        .option("subscribe", ",".join(settings.topics))
        .option("startingOffsets", starting)
        .option("failOnDataLoss", str(not settings.allow_data_loss).lower())
        .option("maxOffsetsPerTrigger", settings.stream_batch_records)
        # Records of a transaction that was aborted are no records.
        .option("kafka.isolation.level", "read_committed")
        # A broker that is away is noticed by the batch after this long, not after a minute.
        .option("kafka.default.api.timeout.ms", int(settings.kafka_timeout_seconds * 1000))
        .option("kafka.request.timeout.ms", int(settings.kafka_timeout_seconds * 500))
        .load()
        .select(
            "topic",
            "partition",
            "offset",
            F.lit(0).cast("long").alias("batch"),
            # The same when a batch is run again after a crash: the checkpoint keeps it.
            *arrival_columns(F.col("timestamp"), F.current_timestamp()),
            "key",
            "value",
        )
    )


def valid_events(
    session: SparkSession,
    settings: Settings,
    columns: tuple[str, ...],
    starting_offsets: Mapping[TopicPartition, int] | None = None,
) -> DataFrame:
    """Stream the topics' valid events; other records are left to the batch side.

    Args:
        session: as for `topic_records`.
        settings: name the topics and the rules of valid events.
        columns: as for `valid_batches`.
        starting_offsets: as for `topic_records`.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    parsed = pa.schema([*PARSED, *_LINE_COPY_FIELDS])
    schema = pa.schema([parsed.field(name) for name in columns])
    records = topic_records(session, settings, starting_offsets)
    parse = parser(settings, columns, erased_offsets(settings))
    # Its type takes any iterable; what Spark calls it with is an iterator.
    return records.mapInArrow(parse, from_arrow_schema(schema))  # type: ignore[arg-type]


def parser(
    settings: Settings, columns: tuple[str, ...], erased: Erased = NOBODY
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return `valid_batches` as it goes to Spark's workers, which get no settings."""
    return partial(valid_batches, rules=ValidationRules.of(settings), columns=columns, erased=dict(erased))
