"""From Kafka to events, each record once, whatever happens on the way.

The lake itself says what was ingested. A batch of records is one commit to `raw_events`, with the next number; from
then on the batch never changes. The table that a record belongs to is a function of the batches up to its own, and each
of the four tables takes each batch once. So a run may be repeated, run twice at once, or be killed at any point: the
next one ends in the same tables.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    ERASED_RECORDS,
    EVENTS,
    INGEST_RULES,
    ITEM_KEY,
    RAW_EVENTS,
    RECORD_KEY,
    REJECTED_EVENTS,
    Table,
)
from clickstream_assets.catalogue.units import HOUR
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.ingest.pseudonyms import PseudonymsOf, with_pseudonyms
from clickstream_assets.ingest.repetitions import find_repetitions
from clickstream_assets.ingest.retention import check_bytes, empty_taken_in
from clickstream_assets.settings import EventDialect, Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import DataLossError, Offsets, Topics, deleted_records, plan_ranges
from clickstream_assets.stores.lake import Lake, LakeConflictError, Snapshot

ROWS_AT_ONCE = 5_000_000
"""Most records that are compared with their items at once: 300 MB of DuckDB's memory, whatever the lake holds."""
CLASSIFIED_TABLES = (EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS, ERASED_RECORDS)
"""The tables of which each record is in exactly one: `events`, the non-event tables, and what was taken out of them."""


@dataclass
class Landing:
    """Outcome of `land_records`."""

    records: int = 0
    """Records that came into `raw_events` meanwhile."""
    batch: int = 0
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    """Per partition the offset up to which the lake holds it."""
    lost: int = 0
    """Records that Kafka had deleted before they were ingested."""


def land_records(lake: Lake, topics: Topics, settings: Settings, table: Table = RAW_EVENTS) -> Landing:
    """Append the topics' new records to `raw_events`, or a table of the same columns, in batches.

    Args:
        lake: gets the records.
        topics: have the records; those that arrive while this runs are left to the next run.
        settings: say how many records are in a commit and in all at most, and whether records may be lost.
        table: where to.

    Raises:
        TopicError: Kafka does not answer, or no longer has records that were never ingested.
    """
    available = topics.offsets()
    landing = Landing()
    reading = _Reading(lake, topics, available, table)
    rows_before: int | None = None
    deleted: dict[TopicPartition, int] | None = None
    while True:
        # One snapshot for both: the batch's number claims exactly the offsets that follow it.
        snapshot = reading.snapshot()
        rows_before = snapshot.rows if rows_before is None else rows_before
        landing.records = snapshot.rows - rows_before
        landing.batch = snapshot.batch
        landing.offsets = reading.offsets(snapshot)
        deleted = deleted_records(landing.offsets, available) if deleted is None else deleted
        passed = {p for p, offset in landing.offsets.items() if p in deleted and offset > available[p].low}
        landing.lost = sum(deleted[partition] for partition in passed)
        limit = max(0, min(settings.ingest_batch, settings.ingest_run_records - landing.records))
        ranges = plan_ranges(landing.offsets, available, limit, settings.allow_data_loss, topics.setting)
        if not ranges:
            return landing
        batch = snapshot.batch + 1
        records = topics.read(lake.engine, ranges, batch)
        with topics.explained():
            if lake.engine.to_arrow(records.select("offset").limit(1)).num_rows:
                # Each of Spark's tasks reads one Kafka partition.
                lake.append_batch(table, records, batch, is_laid_out=True)
            else:
                # Markers and aborted records of transactions have offsets and are never shown, so no row says that
                # they were passed.
                reading.passed({r.partition: r.end for r in ranges})
        lake.engine.release(records)


@dataclass(frozen=True)
class Ingested:
    """Progress of the ingest of topics, as the lake has it."""

    landed: int = 0
    """Last batch of `raw_events`."""
    classified: int = 0
    """Last batch of `events`."""
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    """Per partition that is known, the next offset to ingest."""


def landed(
    lake: Lake, partitions: Iterable[TopicPartition], table: Table = RAW_EVENTS
) -> dict[TopicPartition, int]:
    """Return the next offset of each partition that a table of records knows, and change nothing there.

    Raises:
        LakeError: the lake cannot be read.
    """
    if not lake.exists(table):
        return {}
    marks = _Marks(partitions)
    return marks.offsets(lake.snapshot(table, marks=marks.names))


def ingested(lake: Lake, partitions: Iterable[TopicPartition]) -> Ingested:
    """Ask the lake how far it has the topics of these partitions, and change nothing there.

    Raises:
        LakeError: the lake cannot be read.
    """
    if not lake.exists(RAW_EVENTS):
        return Ingested()
    marks = _Marks(partitions)
    # In this order: what is classified meanwhile has landed.
    classified = lake.snapshot(EVENTS).batch if lake.exists(EVENTS) else 0
    snapshot = lake.snapshot(RAW_EVENTS, marks=marks.names)
    return Ingested(snapshot.batch, classified, marks.offsets(snapshot))


def refuse_topics_made_anew(lake: Lake, topics: Topics) -> None:
    """Refuse topics that are others than those of their names that the lake has records of.

    Raises:
        DataLossError: one is.
        TopicError: Kafka does not answer.
    """
    marks = _Marks(topics.offsets())
    if lake.exists(RAW_EVENTS):
        marks.checked_ids(lake.snapshot(RAW_EVENTS, marks=marks.names), topics)


class _Marks:
    """Names of what is kept of topics with `raw_events`: their ids, and per partition an offset that it was read up to.

    A topic that is deleted and made anew counts its offsets from 0 again, so the id is kept too.
    """

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        # A colon and a slash are in no topic's name, so none is taken for another's, or for the number of batches.
        self.of = {partition: f"topic:{partition}" for partition in partitions}
        self.ids = {topic: f"topic:{topic}" for topic, _ in self.of}

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.ids.values(), *self.of.values()]

    def checked_ids(self, snapshot: Snapshot, topics: Topics) -> dict[str, int]:
        """Return, by the mark, the ids of topics that have one.

        Raises:
            DataLossError: one is another than is kept.
        """
        found = {}
        for topic, topic_id in topics.ids().items():
            if topic_id is None:
                continue
            # As many of its bits as such a number has.
            mark, number = self.ids[topic], topic_id.int >> 65
            if snapshot.marks.get(mark, number) != number:
                raise DataLossError(
                    f"{topics.setting}: {topic!r} is another topic than the one that was ingested: it was deleted and "
                    "made anew. Name another topic in its place, or use another LAKE_PATH for the new topic"
                )
            found[mark] = number
        return found

    def offsets(self, snapshot: Snapshot) -> dict[TopicPartition, int]:
        """Return the next offset of each partition that is known: by rows, and by marks where no row says it."""
        offsets = {p: snapshot.marks[mark] for p, mark in self.of.items() if mark in snapshot.marks}
        for key, last in snapshot.maximum("offset", by=("topic", "partition")).items():
            partition = TopicPartition(*key)
            # Others are of topics that were taken away; their records stay.
            if partition.topic in self.ids:
                offsets[partition] = max(last + 1, offsets.get(partition, 0))
        return offsets


class _Reading:
    """Progress of topics in the lake, while they are read."""

    def __init__(
        self, lake: Lake, topics: Topics, available: Mapping[TopicPartition, Offsets], table: Table
    ) -> None:
        self._lake, self._table = lake, table
        self._marks = _Marks(available)
        snapshot = self.snapshot()
        known = self.offsets(snapshot)
        new = {self._marks.of[p]: offsets.low for p, offsets in available.items() if p not in known}
        ids = self._marks.checked_ids(snapshot, topics)
        new |= {mark: number for mark, number in ids.items() if mark not in snapshot.marks}
        if new:
            # Before anything is read: what Kafka deletes from now on is missed, whether a record of it was read or not.
            self._mark(new)

    def snapshot(self) -> Snapshot:
        """Read the metadata of the table, with what is kept there of the topics."""
        return self._lake.snapshot(self._table, marks=self._marks.names)

    def offsets(self, snapshot: Snapshot) -> dict[TopicPartition, int]:
        """Return the next offset of each partition that is known."""
        return self._marks.offsets(snapshot)

    def passed(self, ends: Mapping[TopicPartition, int]) -> None:
        """Keep that partitions were read up to these offsets without a row."""
        self._mark({self._marks.of[partition]: end for partition, end in ends.items()})

    def _mark(self, marks: Mapping[str, int]) -> None:
        # Another run that does the same at once is as good.
        with suppress(LakeConflictError):
            self._lake.mark(self._table, marks)


@dataclass(frozen=True)
class Classified:
    """The records of an ingest batch, each in exactly one of four tables."""

    events: DataFrame
    non_events: DataFrame
    """Records that are no events: few, and the rows of the three non-event tables."""

    @property
    def duplicates(self) -> DataFrame:
        """DUPLICATE_EVENTS rows."""
        F, _ = functions_of(self.non_events)
        is_duplicate = F.col("reason").isNotNull() & ~self._is_conflict
        return self.non_events.where(is_duplicate).select(*DUPLICATE_EVENTS.column_names)

    @property
    def conflicts(self) -> DataFrame:
        """CONFLICTING_EVENTS rows."""
        return self.non_events.where(self._is_conflict).select(*CONFLICTING_EVENTS.column_names)

    @property
    def rejected(self) -> DataFrame:
        """REJECTED_EVENTS rows."""
        F, _ = functions_of(self.non_events)
        rejected = self.non_events.where(F.col("rule").isNotNull()).withColumn("rejected_by", F.lit("ingest"))
        return rejected.select(*REJECTED_EVENTS.column_names)

    @property
    def _is_conflict(self) -> Any:
        F, _ = functions_of(self.non_events)
        return F.col("reason") == "other_payload"


def classify(parsed: DataFrame, repetitions: DataFrame) -> Classified:
    """Decide which table each PARSED record belongs to.

    Args:
        parsed: PARSED rows of an ingest batch.
        repetitions: the rows of `find_repetitions` among them.
    """
    F, _ = functions_of(parsed)
    with_reason = as_view(parsed.join(repetitions, on=list(ITEM_KEY), how="left"))
    is_event = F.col("rule").isNull() & F.col("reason").isNull()
    return Classified(with_reason.where(is_event).select(*EVENTS.column_names), with_reason.where(~is_event))


def classify_records(
    lake: Lake, rules: ValidationRules, pseudonyms_of: PseudonymsOf | None = None
) -> Counter[str]:
    """Write the records of all new batches to `events` and the three non-event tables, each to one of them.

    `events` takes a batch last: once it holds a batch, all four do. A batch that a killed run left half classified is
    finished by the rules that it was begun with, so a changed setting puts no record into two tables.

    By rules with pseudonyms the records lose their bytes once they are classified; a run that was killed before it came
    to that leaves it to the next.

    Args:
        lake: has the records, and gets the rows.
        rules: the rules of new batches.
        pseudonyms_of: gives the pseudonyms, where the rules want some.

    Returns:
        How many new records became `events`, `same_event`, `same_order_line`, `other_payload` and `rejected`.
    """
    engine = lake.engine
    newest = lake.snapshot(RAW_EVENTS)
    batches = range(lake.snapshot(EVENTS).batch + 1, newest.batch + 1)
    check_bytes(lake, RAW_EVENTS, batches)
    counts: Counter[str] = Counter()
    for batch, its_rules, as_sent in _parsed_batches(lake, newest.version, batches, rules):
        parsed = as_sent
        if its_rules.pseudonyms:
            assert pseudonyms_of is not None
            parsed = with_pseudonyms(engine, as_sent, pseudonyms_of)
            engine.release(as_sent)
        F, _ = functions_of(parsed)
        # First: it has Spark parse, and what comes next is then planned by the batch's real size.
        outcome = engine.to_arrow(
            parsed.select("event_date", "rule")
            .groupBy("event_date")
            .agg(
                F.count(F.lit(1)).cast("long").alias("records"),
                F.count("rule").cast("long").alias("rejected"),
            )
        )
        near = _days_around(outcome["event_date"].drop_null().to_pylist(), its_rules.event_id_days)
        events_before, duplicates_before = (
            lake.read(table, batches=(0, batch - 1), days=near) for table in (EVENTS, DUPLICATE_EVENTS)
        )
        repeated = find_repetitions(engine, parsed, events_before, duplicates_before, its_rules.event_id_days)
        found = Counter(repeated["reason"].to_pylist())
        found["rejected"] = sum(outcome["rejected"].to_pylist())
        repetitions = engine.from_arrow(repeated)
        classified = classify(parsed, repetitions)
        if found.total():
            # Computed once for the three tables; most small batches have none.
            classified = replace(classified, non_events=engine.persist(classified.non_events))
            if found["rejected"]:
                lake.append_batch(REJECTED_EVENTS, classified.rejected, batch)
            if found["same_event"] or found["same_order_line"]:
                lake.append_batch(DUPLICATE_EVENTS, classified.duplicates, batch)
            if found["other_payload"]:
                lake.append_batch(CONFLICTING_EVENTS, classified.conflicts, batch)
            engine.release(classified.non_events)
        lake.append_batch(EVENTS, classified.events, batch)
        found["events"] = sum(outcome["records"].to_pylist()) - found.total()
        counts += found
        for df in (repetitions, parsed):
            engine.release(df)
    if rules.pseudonyms:
        empty_taken_in(lake, RAW_EVENTS)
    return counts


def _days_around(days: Iterable[date], distance: int) -> set[date]:
    """Return days, and those that are at most so many days before or after one of them."""
    offsets = [timedelta(days=offset) for offset in range(-distance, distance + 1)]
    return {day + offset for day in days for offset in offsets}


def _parsed_batches(
    lake: Lake, version: int, batches: range, rules: ValidationRules
) -> Iterator[tuple[int, ValidationRules, DataFrame]]:
    """Parse the records of batches in order, each by its rules; while the caller has one, the next is being parsed.

    Both take about as long: parsing is Python's, in processes of its own on DuckDB, and the rest is the engine's.
    """
    engine = lake.engine
    erased = lake.snapshot(ERASED_RECORDS)

    def start(batch: int) -> tuple[ValidationRules, Callable[[], DataFrame]]:
        its_rules = _rules_of_batch(lake, batch, rules)
        parse = partial(parse_batches, rules=its_rules, keep_bytes=False)
        records = lake.read(RAW_EVENTS, version, batches=(batch, batch))
        if erased.rows:
            # They have a place already, where the other tables were put back to an earlier time.
            gone = lake.read(ERASED_RECORDS, erased.version, (*RECORD_KEY, "batch"), batches=(batch, batch))
            gone = as_view(gone.select(*RECORD_KEY).distinct())
            records = as_view(records.join(gone, on=list(RECORD_KEY), how="left_anti"))
        return its_rules, engine.start_map_arrow(records, parse, PARSED)

    started = map(start, batches)
    under_way = next(started, None)
    for batch in batches:
        assert under_way is not None
        its_rules, wait_for = under_way
        parsed = engine.persist(wait_for())
        under_way = next(started, None)
        yield batch, its_rules, parsed


def _rules_of_batch(lake: Lake, batch: int, rules: ValidationRules) -> ValidationRules:
    """Return the rules of a batch: these, unless an earlier run began it with others."""
    lake.append_rows(INGEST_RULES, pa.Table.from_pylist([{"batch": batch, **asdict(rules)}]), batch)
    (first,) = lake.rows_of_batch(INGEST_RULES, batch).drop_columns(["batch"]).to_pylist()
    # Null in a lake from before there was a choice.
    chosen = {
        "time_zone": first["time_zone"] or "UTC",
        "event_dialect": EventDialect(first["event_dialect"] or EventDialect.AUTO),
        "topic_dialects": first["topic_dialects"] or "",
        "pseudonyms": bool(first["pseudonyms"]),
    }
    return ValidationRules(**{**first, **chosen})


def counts_by_hour(lake: Lake, batch: int, first_batch: int = 1) -> list[dict[str, Any]]:
    """Count records, and their items, per hour of arrival in Kafka, from the first to the last of some ingest batches.

    Returns:
        One dict per hour, in order: `hour` (UTC), the number of rows under the names of RAW_EVENTS and of the
        CLASSIFIED_TABLES, and `items`: how many the records say that they have.
    """
    engine = lake.engine
    tables = (RAW_EVENTS, *CLASSIFIED_TABLES)
    hours: dict[datetime, dict[str, Any]] = {}
    for table in tables:
        # Batch 0 is what Elasticsearch rejected: records that the ingest has in a table already.
        rows = lake.read(table, batches=(first_batch, batch))
        F, _ = functions_of(rows)
        hour = F.floor(F.unix_micros("kafka_time") / F.lit(HOUR)).cast("long")
        # A record is one item, and what it says with the first to have besides.
        items = (
            F.lit(1) if table is RAW_EVENTS else F.when(F.col("item") == 1, F.col("items") - 1).otherwise(0)
        )
        counts = rows.groupBy(hour.alias("hour")).agg(
            F.count(F.lit(1)).cast("long").alias("rows"), F.sum(items).cast("long").alias("items")
        )
        for row in engine.to_arrow(counts).to_pylist():
            start = datetime.fromtimestamp(row["hour"] * 3600, UTC)
            of_hour = hours.setdefault(start, dict.fromkeys((*(t.name for t in tables), "items"), 0))
            of_hour[table.name] = row["rows"]
            of_hour["items"] += row["items"]
    return [{"hour": hour, **counts} for hour, counts in sorted(hours.items())]


def misclassified_records(
    lake: Lake, batch: int, limit: int = 5, first_batch: int | None = None
) -> list[dict[str, Any]]:
    """Find records of an ingest batch, or of all from `first_batch` to it, of which not each item is in one table.

    Returns:
        At most `limit` dicts of RECORD_KEY and `tables`: the number of rows for the record.
    """
    first = batch if first_batch is None else first_batch
    found: list[dict[str, Any]] = []
    for batches in lake.snapshot(RAW_EVENTS).ranges_of_batches(first, batch, ROWS_AT_ONCE):
        found += _misclassified(lake, batches, limit - len(found))
        if len(found) == limit:
            break
    return found


def _misclassified(lake: Lake, batches: tuple[int, int], limit: int) -> list[dict[str, Any]]:
    records = lake.read(RAW_EVENTS, batches=batches)
    F, _ = functions_of(records)
    nothing = F.lit(None).cast("int")
    rows = records.select(*RECORD_KEY, nothing.alias("item"), nothing.alias("items"))
    for table in CLASSIFIED_TABLES:
        rows = rows.unionByName(lake.read(table, batches=batches).select(*ITEM_KEY, "items"))
    wrong = (
        rows.groupBy(*RECORD_KEY)
        .agg(
            F.count(F.lit(1)).cast("long").alias("rows"),
            F.count("item").cast("long").alias("tables"),
            # One row for each place from 1 to `items`, and one of the record itself.
            F.countDistinct("item").cast("long").alias("places"),
            F.min("item").alias("first"),
            F.max("item").alias("last"),
            F.min("items").alias("fewest"),
            F.max("items").alias("most"),
        )
        .where(
            (F.col("tables") == 0)
            | (F.col("rows") != F.col("tables") + 1)
            | (F.col("tables") != F.col("places"))
            | (F.col("tables") != F.col("most"))
            | (F.col("fewest") != F.col("most"))
            | (F.col("first") != 1)
            | (F.col("last") != F.col("most"))
        )
        .limit(limit)
    )
    return lake.engine.to_arrow(wrong.select(*RECORD_KEY, "tables")).to_pylist()
