"""The live events: valid events straight from Kafka into Elasticsearch, one document per event id.

Of an id's records the first in Kafka's order is the document, whatever batches they come in. Spark's workers write
the documents, so nothing but what Elasticsearch refuses comes to the driver's lake. A micro-batch may be repeated at
any point: a document that is there stays as it is, and a refusal is kept once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from clickstream_assets.analytics.events import RECORD_ORDER
from clickstream_assets.analytics.schema import LIVE_EVENTS, LONG, RECORD_KEY, REJECTED_EVENTS
from clickstream_assets.elasticsearch import (
    MAX_ID_BYTES,
    WORDS,
    Document,
    ElasticsearchError,
    LiveEvents,
    Written,
)
from clickstream_assets.engine import SparkEngine
from clickstream_assets.lake import Lake
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.checkpoint import Checkpoint
from clickstream_assets.streaming.errors import guarded
from clickstream_assets.streaming.source import valid_events

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

QUERY = "live_events"
COLUMNS = (*LIVE_EVENTS.column_names, "key", "value")
"""What the query needs of an event: what a document holds, and the record's bytes in case it is refused."""
REJECTED_BY = "elasticsearch"

_MAX_REASON = 500
# Of a server that hangs, whoever drops old days does not wait for longer.
_RETENTION_TIMEOUT_SECONDS = 10
_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(decimal_format="number")

_RESULTS = pa.schema(
    [
        *(field.with_nullable(True) for field in REJECTED_EVENTS.arrow),
        *(pa.field(written.value, LONG) for written in Written),
    ]
)
"""What a partition gives back: a row per refused event, and one row with how many documents came to what."""


def checkpoint_of(settings: Settings) -> Checkpoint:
    """Return the query's checkpoint. Without it, the query begins with the earliest record that Kafka has."""
    return Checkpoint(settings, QUERY, {"KAFKA_TOPIC": settings.kafka_topic})


def drop_old_days(settings: Settings) -> None:
    """Drop the days that are past LIVE_EVENTS_RETENTION_DAYS; where that cannot be done, the log says why."""
    keep = settings.live_events_retention_days
    if not keep:
        return
    live = LiveEvents(settings, timeout=_RETENTION_TIMEOUT_SECONDS)
    try:
        dropped = live.drop_days(keep, datetime.now(UTC).date())
    except ElasticsearchError as error:
        # Nothing depends on it, and it is tried again: old days take space until then.
        _log.warning("live events older than LIVE_EVENTS_RETENTION_DAYS=%d stay for now: %s", keep, error)
    else:
        if dropped:
            _log.info("dropped %d days of live events, up to %s", len(dropped), dropped[-1])
    finally:
        live.close()


def start(session: SparkSession, settings: Settings, trigger: dict[str, Any]) -> StreamingQuery:
    """Start the query; `trigger` is of `DataStreamWriter.trigger`, such as `{"availableNow": True}`.

    It ends with an error when Elasticsearch is away for longer than ELASTICSEARCH_PATIENCE_SECONDS; started
    again, it goes on where it was.

    Raises:
        CheckpointError: the checkpoint is of another topic.
    """
    checkpoint = checkpoint_of(settings)
    checkpoint.open()
    return (
        valid_events(session, settings, COLUMNS)
        .writeStream.queryName(QUERY)
        .foreachBatch(guarded(Sink(settings).write))
        .option("checkpointLocation", checkpoint.path)
        .trigger(**trigger)
        .start()
    )


class Sink:
    """Where the query's micro-batches go."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def write(self, events: DataFrame, batch_id: int) -> None:
        """Write a micro-batch: COLUMNS of valid events."""
        from pyspark import StorageLevel
        from pyspark.sql import Window
        from pyspark.sql import functions as F
        from pyspark.sql.pandas.types import from_arrow_schema

        live = LiveEvents(self._settings)
        try:
            live.prepare()
            in_order = Window.partitionBy("event_id").orderBy(*RECORD_ORDER)
            firsts = events.withColumn("place", F.row_number().over(in_order)).where(F.col("place") == 1)
            # By day, so that a request goes to few indices even where history is replayed.
            results = (
                firsts.sortWithinPartitions("event_date")
                .mapInArrow(partial(write_documents, settings=self._settings), from_arrow_schema(_RESULTS))
                .persist(StorageLevel.MEMORY_AND_DISK)
            )
            try:
                (totals,) = results.agg(*(F.sum(written).alias(written) for written in Written)).collect()
                if totals[Written.REFUSED]:
                    self._keep(results.where(F.col("rule").isNotNull()), batch_id)
            finally:
                results.unpersist()
            _log.info("micro-batch %d in Elasticsearch: %s", batch_id, totals.asDict())
        finally:
            live.close()

    def _keep(self, refused: DataFrame, batch_id: int) -> None:
        """Add what Elasticsearch refused to `rejected_events`."""
        from pyspark.sql import functions as F

        session = refused.sparkSession
        lake = Lake(self._settings.lake, SparkEngine(lambda: session))
        # A checkpoint that is made anew begins with batch 0 and the first record again.
        kept = lake.read(REJECTED_EVENTS).where(F.col("rejected_by") == REJECTED_BY)
        new = refused.join(kept.select(*RECORD_KEY), on=list(RECORD_KEY), how="left_anti")
        query_id = session.sparkContext.getLocalProperty("sql.streaming.queryId")
        lake.append_batch(REJECTED_EVENTS, new, batch_id + 1, app=f"{QUERY} {query_id}")


def write_documents(batches: Iterator[pa.RecordBatch], settings: Settings) -> Iterator[pa.RecordBatch]:
    """Write a partition's events: batches of COLUMNS in, `_RESULTS` batches out."""
    counts: Counter[str] = Counter()
    live = LiveEvents(settings)
    try:
        for batch in batches:
            outcomes = live.write(to_documents(batch))
            counts.update(outcome.written for outcome in outcomes)
            refused = {
                number: f"{outcome.error}: {outcome.reason}"[:_MAX_REASON]
                for number, outcome in enumerate(outcomes)
                if outcome.written is Written.REFUSED
            }
            if refused:
                records = batch.select([*RECORD_KEY, "kafka_time", "key", "value"]).take(list(refused))
                yield _results(
                    {
                        "batch": 0,
                        **record,
                        "rule": rule,
                        "rejected_by": REJECTED_BY,
                    }
                    for record, rule in zip(records.to_pylist(), refused.values(), strict=True)
                )
    finally:
        live.close()
    yield _results([{written.value: counts[written] for written in Written}])


def _results(rows: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=_RESULTS)


def to_documents(batch: pa.RecordBatch) -> list[Document]:
    """Make documents of COLUMNS of valid events."""
    names = LIVE_EVENTS.column_names
    columns = [batch.column(name).to_pylist() for name in names]
    documents = []
    for values in zip(*columns, strict=True):
        source = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if "properties" in source:
            source["properties"] = msgspec.Raw(source["properties"].encode())
        source[WORDS] = _words(source)
        documents.append(
            Document(
                id=_document_id(source["event_id"]),
                day=source["event_date"],
                record=(source["topic"], source["partition"], source["offset"]),
                source=_encoder.encode(source),
            )
        )
    return documents


def _document_id(event_id: str) -> str:
    encoded = event_id.encode()
    return event_id if len(encoded) <= MAX_ID_BYTES else blake2b(encoded, digest_size=16).hexdigest()


def _words(source: dict[str, Any]) -> str:
    category = source.get("product_category", "")
    # The analyzer takes electronics.smartphone for one word.
    texts = (
        category,
        category.replace(".", " "),
        *(source.get(n, "") for n in ("query", "product_id", "brand")),
    )
    return " ".join(text for text in texts if text)
