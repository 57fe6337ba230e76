"""The live events: valid events straight from Kafka into Elasticsearch, one document per event id.

Of an id's records the first in Kafka's order is the document, whatever batches they come in. Spark's workers write
the documents, each those of the Kafka partitions that it reads, so nothing but ids and what Elasticsearch refuses comes
to the driver. A micro-batch may be repeated at any point: a document that is there stays as it is, and a refusal is
kept once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import ITEM_KEY, LIVE_EVENTS, LONG, RECORD_KEY, REJECTED_EVENTS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import SparkEngine
from clickstream_assets.engine.spark_private import QUERY_ID
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import (
    MAX_ID_BYTES,
    WORDS,
    Document,
    ElasticsearchError,
    ElasticsearchProblem,
    LiveEvents,
    Outcome,
    Written,
)
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.checkpoint import Checkpoint
from clickstream_assets.streaming.errors import guarded
from clickstream_assets.streaming.source import (
    NOBODY,
    Erased,
    erased_offsets,
    topic_records,
    valid_batches,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

QUERY = "live_events"
COLUMNS = (*LIVE_EVENTS.column_names, "kafka_timestamp", "key", "value")
"""Columns that the query needs of an event: those of a document, and the record's bytes in case it is refused."""
REJECTED_BY = "elasticsearch"

_MAX_REASON = 500
# Of a server that hangs, whoever drops old days, or looks how far it has come, does not wait for longer.
_LOOK_TIMEOUT_SECONDS = 10
_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(decimal_format="number")

_IDS = "document_ids"
_RESULTS = pa.schema(
    [
        *(field.with_nullable(True) for field in REJECTED_EVENTS.arrow),
        *(pa.field(written.value, LONG) for written in Written),
        pa.field(_IDS, pa.list_(pa.string())),
    ]
)
"""Rows that a worker returns: one per refused event, and one per batch of documents, with their number by outcome and
the ids of those that it wrote.
"""


def checkpoint_of(settings: Settings) -> Checkpoint:
    """Return the query's checkpoint. Without it, the query begins with the earliest record that Kafka has."""
    return Checkpoint(settings, QUERY, {"KAFKA_TOPIC": ",".join(sorted(settings.topics))})


def drop_old_days(settings: Settings) -> None:
    """Drop days past LIVE_EVENTS_RETENTION_DAYS; where that cannot be done, the log says why."""
    keep = settings.live_events_retention_days
    if not keep:
        return
    try:
        with closing(LiveEvents(settings, timeout=_LOOK_TIMEOUT_SECONDS)) as live:
            dropped = live.drop_days(keep, ShopClock(settings.shop_time_zone).today())
    except ElasticsearchError as error:
        # Nothing depends on it, and it is tried again: old days take space until then.
        _log.warning("live events older than LIVE_EVENTS_RETENTION_DAYS=%d stay for now: %s", keep, error)
    else:
        if dropped:
            _log.info("dropped %d days of live events, up to %s", len(dropped), dropped[-1])


def lost_since(settings: Settings) -> dict[TopicPartition, int] | None:
    """Return the offsets up to which Elasticsearch has the events, if the query has written more; None if it has not.

    As when Elasticsearch was put back to an earlier time, or lost what it had.

    Raises:
        ElasticsearchError: the server cannot be reached.
    """
    # In this order: a batch is done when Elasticsearch has kept its offsets.
    done = checkpoint_of(settings).committed_offsets()
    if not done:
        return None
    with closing(LiveEvents(settings, timeout=_LOOK_TIMEOUT_SECONDS)) as live:
        return _lost_since(live, settings, done)


def _lost_since(
    live: LiveEvents, settings: Settings, done: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int] | None:
    there = live.progress(settings.topics)
    return there if any(offset > there.get(p, 0) for p, offset in done.items()) else None


def start(session: SparkSession, settings: Settings, trigger: dict[str, Any]) -> StreamingQuery:
    """Start the query; `trigger` goes to `DataStreamWriter.trigger`, such as `{"availableNow": True}`.

    It ends with an error when Elasticsearch is away for longer than ELASTICSEARCH_PATIENCE_SECONDS; started
    again, it goes on where it was, or where Elasticsearch is, if that has less.

    Raises:
        CheckpointError: the checkpoint is of other topics.
        PostgresError: the database cannot be reached, which knows whose records are left out.
    """
    checkpoint = checkpoint_of(settings)
    topics = Topics(settings)
    checkpoint.open(topics.ids())
    begin = None
    # Where it is away, the first batch finds out.
    with suppress(ElasticsearchError):
        begin = lost_since(settings)
    if begin is not None:
        _log.warning(
            "Elasticsearch has the live events up to offsets %s alone, and had more: those after are written again",
            begin,
        )
        checkpoint.remove()
        checkpoint.open(topics.ids())
        # Spark wants every partition; what Kafka has deleted since stays lost.
        begin = {p: max(begin.get(p, o.low), o.low) for p, o in topics.offsets().items()}
    return (
        topic_records(session, settings, begin)
        .writeStream.queryName(QUERY)
        .foreachBatch(guarded(partial(_write, settings=settings, erased=erased_offsets(settings))))
        .option("checkpointLocation", checkpoint.path)
        .trigger(**trigger)
        .start()
    )


def _write(records: DataFrame, batch_id: int, settings: Settings, erased: Erased) -> None:
    """Write a micro-batch of `topic_records`."""
    from pyspark import StorageLevel
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema

    checkpoint = checkpoint_of(settings)
    planned = checkpoint.planned_batch(batch_id)
    with closing(LiveEvents(settings)) as live:
        live.prepare()
        there = (
            _lost_since(live, settings, checkpoint.planned_batch(batch_id - 1).offsets) if batch_id else None
        )
        if there is not None:
            # What this batch writes must not hide that.
            raise ElasticsearchError(
                ElasticsearchProblem.UNHEALTHY,
                f"ELASTICSEARCH_ALIAS={settings.elasticsearch_alias} has the events up to offsets {there} alone, and "
                "had more; those after are written again",
            )
        # As in `source`.
        results = records.mapInArrow(writer(settings, erased), from_arrow_schema(_RESULTS))  # type: ignore[arg-type]
        results = results.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            batches = results.where(F.col(_IDS).isNotNull()).select(_IDS, *Written).toArrow()
            # Workers do not know of each other: of ids that were written twice, each has its own documents.
            live.settle(_repeated(pc.list_flatten(batches[_IDS])))
            totals = {written.value: pc.sum(batches[written]).as_py() or 0 for written in Written}
            if totals[Written.REFUSED]:
                refused = results.where(F.col("rule").isNotNull()).drop(_IDS, *Written)
                _keep(refused, batch_id, settings)
            live.keep_progress(planned.offsets)
        finally:
            results.unpersist()
        _log.info("micro-batch %d in Elasticsearch: %s", batch_id, totals)


def _keep(refused: DataFrame, batch_id: int, settings: Settings) -> None:
    """Add the events that Elasticsearch refused to `rejected_events`."""
    from pyspark.sql import functions as F

    session = refused.sparkSession
    lake = Lake(settings.lake, SparkEngine(lambda: session))
    # A checkpoint that is made anew begins with batch 0 and the first record again.
    kept = lake.read(REJECTED_EVENTS).where(F.col("rejected_by") == REJECTED_BY)
    new = refused.join(kept.select(*ITEM_KEY), on=list(ITEM_KEY), how="left_anti")
    query_id = session.sparkContext.getLocalProperty(QUERY_ID)
    lake.append_batch(REJECTED_EVENTS, new, batch_id + 1, app=f"{QUERY} {query_id}")


def writer(
    settings: Settings, erased: Erased = NOBODY
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return `write_events` as it goes to Spark's workers: of all secrets it needs Elasticsearch's alone."""
    own = settings.with_secrets("elasticsearch_api_key")
    return partial(write_events, settings=own, erased=dict(erased))


def write_events(
    batches: Iterator[pa.RecordBatch], settings: Settings, erased: Erased
) -> Iterator[pa.RecordBatch]:
    """Write the valid events of a part of the topic: RAW_EVENTS rows in Kafka's order in, `_RESULTS` batches out.

    A query that begins anew reads records of persons who were erased since: these are left out.
    """
    with closing(LiveEvents(settings)) as live:
        for events in valid_batches(batches, ValidationRules.of(settings), COLUMNS, erased):
            firsts = _firsts(events)
            kept = _kept(firsts, live, settings)
            documents = to_documents(kept)
            outcomes = live.write(documents)
            for number, outcome in enumerate(outcomes):
                if outcome.written is Written.REFUSED:
                    yield _refusal(kept.slice(number, 1), outcome)
            yield _summary(documents, outcomes, too_old=firsts.num_rows - kept.num_rows)


def _kept(events: pa.RecordBatch, live: LiveEvents, settings: Settings) -> pa.RecordBatch:
    """Leave out events of days past their retention: each such day would be an index, of which a node bears 1,000."""
    keep = settings.live_events_retention_days
    if not keep or not events.num_rows:
        return events
    days, today = events.column("event_date"), ShopClock(settings.shop_time_zone).today()
    if pc.min(days).as_py() >= today - timedelta(days=keep):
        # Whatever the newest day is, these are kept: most batches need not ask.
        return events
    first = live.first_kept(keep, today, pc.unique(days).to_pylist())
    return events.filter(pc.greater_equal(days, first))


def _firsts(events: pa.RecordBatch) -> pa.RecordBatch:
    """Return the first event of each id, the newest days first: a request goes to few indices also in a replay."""
    numbered = pa.table(
        {"event_id": events.column("event_id"), "row": pa.array(range(events.num_rows), pa.int64())}
    )
    firsts = numbered.group_by("event_id").aggregate([("row", "min")])["row_min"].combine_chunks()
    return events.take(firsts).sort_by([("event_date", "descending"), ("offset", "ascending")])


def _refusal(event: pa.RecordBatch, outcome: Outcome) -> pa.RecordBatch:
    (record,) = event.select(
        [*ITEM_KEY, "items", "kafka_time", "kafka_timestamp", "key", "value"]
    ).to_pylist()
    rule = f"{outcome.error}: {outcome.reason}"[:_MAX_REASON]
    return _results({"batch": 0, **record, "rule": rule, "rejected_by": REJECTED_BY})


def _summary(documents: Sequence[Document], outcomes: Sequence[Outcome], too_old: int) -> pa.RecordBatch:
    counts = Counter(outcome.written for outcome in outcomes)
    counts[Written.TOO_OLD] = too_old
    written = [
        document.id
        for document, outcome in zip(documents, outcomes, strict=True)
        if outcome.written in (Written.CREATED, Written.REPLACED)
    ]
    return _results({_IDS: written, **{written.value: counts[written] for written in Written}})


def _repeated(ids: pa.ChunkedArray) -> list[str]:
    counts = pc.value_counts(ids)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()


def _results(row: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([row], schema=_RESULTS)


def to_documents(batch: pa.RecordBatch) -> list[Document]:
    """Make documents of COLUMNS of valid events."""
    days = batch.column("event_date").to_pylist()
    records = zip(*(batch.column(name).to_pylist() for name in RECORD_KEY), strict=True)
    columns = [_encodable(name, batch.column(name)) for name in LIVE_EVENTS.column_names]
    sources = zip(*columns, _words(batch).to_pylist(), strict=True)
    return [
        # The id is the first column.
        Document(id=_document_id(source[0]), day=day, record=record, source=_encoder.encode(_Source(*source)))
        for source, day, record in zip(sources, days, records, strict=True)
    ]


_Source = msgspec.defstruct(
    "_Source", [(name, Any, None) for name in (*LIVE_EVENTS.column_names, WORDS)], omit_defaults=True
)
"""A document, without the fields that the event does not have."""


def _encodable(name: str, column: pa.Array) -> list[Any]:
    """Return a column's values for the encoder: times as text, which Arrow makes faster than objects."""
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    values = column.to_pylist()
    if name == "properties":
        # They are JSON already.
        return [None if value is None else msgspec.Raw(value) for value in values]
    return values


def _document_id(event_id: str) -> str:
    encoded = event_id.encode()
    return event_id if len(encoded) <= MAX_ID_BYTES else blake2b(encoded, digest_size=16).hexdigest()


def _words(batch: pa.RecordBatch) -> pa.Array:
    category = batch.column("product_category")
    # The analyzer takes electronics.smartphone for one word.
    texts = (
        category,
        pc.replace_substring(category, ".", " "),
        # PyArrow 26 leaves out a row of which all texts are null, as a page view's are.
        pc.fill_null(batch.column("query"), ""),
        *(batch.column(name) for name in ("product_id", "brand")),
    )
    return pc.binary_join_element_wise(*texts, " ", null_handling="skip")
