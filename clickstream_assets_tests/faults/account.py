"""What became of events that were sent: one count over topic, lake, PostgreSQL, Elasticsearch and the stream.

An event is told by its id and a record by its place in Kafka, so that one lost and another doubled do not cancel out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from typing import Any

from elasticsearch.helpers import scan
from psycopg import sql

from clickstream_assets.catalogue import (
    CATEGORY_INPUTS,
    EVENTS,
    FUNNEL_INPUTS,
    ITEM_KEY,
    MODEL_EVALUATION,
    NEXT_PRODUCT_MODELS,
    NEXT_PRODUCT_PARTS,
    PRODUCT_WINDOWS,
    PUBLISHED_MODELS,
    PUBLISHED_PARTS,
    RAW_EVENTS,
    RECORD_KEY,
    SERVED_TABLES,
    SESSION_INPUTS,
    SHOPPER_CHANGES,
    SHOPPER_INPUTS,
    Table,
)
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.classification import CLASSIFIED_TABLES
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.reconciliation import Reason, reconcile

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Event = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
Record = tuple[str, int, int]
"""Topic, partition and offset."""


class Part(StrEnum):
    """A part of the house that holds events, or what was counted of them."""

    TOPIC = "topic"
    LAKE = "lake"
    WINDOWS = "windows"
    DOCUMENTS = "documents"
    STREAM = "stream"
    SERVED = "served"


NOTHING: Mapping[Part, Collection[str]] = {}
HISTORIES = {
    *(MODEL_EVALUATION.name, PUBLISHED_MODELS.name, "ingest_rules"),
    *(NEXT_PRODUCT_MODELS.name, NEXT_PRODUCT_PARTS.name),
    *(SESSION_INPUTS.name, SHOPPER_INPUTS.name, SHOPPER_CHANGES.name),
    *(CATEGORY_INPUTS.name, FUNNEL_INPUTS.name, PUBLISHED_PARTS.name),
}
"""Tables with a row per version or batch, or of what days were made from: there can be others."""
STREAMED = (Part.TOPIC, Part.LAKE, Part.WINDOWS, Part.DOCUMENTS, Part.STREAM)
"""What `clickstream stream` and the ingest fill."""


@dataclass(frozen=True)
class Place:
    """What one place holds, and what it should and does not, or has too often."""

    name: str
    rows: int
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)


@dataclass
class Account:
    """The count of all places."""

    sent: int
    places: list[Place]

    @property
    def lost(self) -> list[str]:
        """What is missing, with its place."""
        return [f"{place.name}: {each}" for place in self.places for each in place.lost]

    @property
    def doubled(self) -> list[str]:
        """What is there more often than it was sent, with its place."""
        return [f"{place.name}: {each}" for place in self.places for each in place.doubled]

    def counts(self) -> str:
        """The rows of each place, in words."""
        return ", ".join(f"{place.name} {place.rows:,}" for place in self.places)

    def rows(self, name: str) -> int:
        """The rows of a place."""
        return next(place.rows for place in self.places if place.name == name)


def take_account(
    settings: Settings,
    sent: Sequence[Event],
    of: Collection[Part] = STREAMED,
    *,
    repeated: bool = False,
    absent: Mapping[Part, Collection[str]] = NOTHING,
) -> Account:
    """Compare what was sent with what each place holds, once all of it has had the time to come there.

    Args:
        settings: name the places.
        sent: every event that Kafka or the collector said it has, once for each time that it was sent.
        of: the places that the fault has to do with.
        repeated: whether the sender has sent again what it got no answer to: the topic may have an event more often.
        absent: ids that a part is not to have: of persons who were erased, what Kafka deleted unread and a person let
            go, what is refused or too late. In the lake that is `events`. One that is there all the same is doubled.
    """
    lake = Lake(settings.lake, DuckDBEngine(settings))
    ids = Counter(event["event_id"] for event in sent)

    def expected_in(part: Part) -> Counter[str]:
        return Counter({each: count for each, count in ids.items() if each not in absent.get(part, ())})

    places: list[Place] = []
    records: list[Record] = []
    if Part.TOPIC in of:
        found = dict(_records(settings))
        known = Counter(filter(None, map(_id_of, found.values())))
        if Part.LAKE in of:
            # What retention has deleted since.
            deleted = (value for record, value in _raw_records(lake) if record not in found)
            known.update(filter(None, map(_id_of, deleted)))
        places.append(_compared("topic", len(found), expected_in(Part.TOPIC), known, repeated))
        records = list(found)
    if Part.LAKE in of:
        places += _in_lake(lake, records, Counter(set(expected_in(Part.LAKE))))
    if Part.WINDOWS in of:
        counted = expected_in(Part.WINDOWS)
        places.append(_in_windows(settings, [event for event in sent if event["event_id"] in counted]))
    if Part.DOCUMENTS in of:
        documents, expected = _documents(settings), Counter(set(expected_in(Part.DOCUMENTS)))
        places.append(_compared("documents", len(documents), expected, Counter(documents)))
    if Part.STREAM in of:
        places.append(_reconciled(settings, lake, bool(absent)))
    if Part.SERVED in of:
        places += _served(settings, lake)
    return Account(len(sent), places)


def compare_tables(sent: int, expected: Mapping[str, Rows], found: Mapping[str, Rows]) -> Account:
    """Compare tables, row by row, with those of a pipeline that nothing happened to.

    Args:
        sent: how many records came in.
        expected: rows of each table there.
        found: rows of each table here.
    """
    assert found.keys() == expected.keys()
    places = [
        _compared(name, len(found[name]), Counter(map(str, rows)), Counter(map(str, found[name])))
        for name, rows in expected.items()
    ]
    return Account(sent, places)


def _compared(
    name: str, rows: int, expected: Counter[Any], found: Counter[Any], repeated: bool = False
) -> Place:
    surplus = found - expected
    if repeated:
        surplus = Counter({each: count for each, count in surplus.items() if each not in expected})
    return Place(name, rows, _named(expected - found), _named(surplus))


def _named(counted: Counter[Any]) -> list[str]:
    return sorted(str(each) for each in counted.elements())


def _id_of(value: bytes | None) -> str | None:
    """The id that a record says; None of one that says none, or nothing any more."""
    try:
        said = json.loads(value) if value else None
    except ValueError:
        return None
    return said.get("event_id") if isinstance(said, dict) else None


def _records(settings: Settings) -> list[tuple[Record, bytes | None]]:
    """The topic's records, by place."""
    topics = Topics(settings)
    ranges = [
        OffsetRange(partition, held.low, held.high)
        for partition, held in sorted(topics.offsets().items())
        if held.high > held.low
    ]
    batches = topics.read_here(ranges, batch=1, room=1 << 30)
    rows = chain.from_iterable(batch.select([*RECORD_KEY, "value"]).to_pylist() for batch in batches)
    return [((row["topic"], row["partition"], row["offset"]), row["value"]) for row in rows]


def _rows(lake: Lake, table: Table, columns: Iterable[str]) -> list[dict[str, Any]]:
    if not lake.exists(table):
        return []
    found: list[dict[str, Any]] = lake.engine.to_arrow(lake.read(table).select(*columns)).to_pylist()
    return found


def _raw_records(lake: Lake) -> list[tuple[Record, bytes | None]]:
    return [
        ((row["topic"], row["partition"], row["offset"]), row["value"])
        for row in _rows(lake, RAW_EVENTS, (*RECORD_KEY, "value"))
    ]


def _in_lake(lake: Lake, records: Sequence[Record], ids: Counter[str]) -> list[Place]:
    """Every record is in `raw_events` once, each item of it in one of the five tables, and each id in `events` once."""
    raw = Counter(record for record, _ in _raw_records(lake))
    there = Counter(dict.fromkeys(raw, 1)) | Counter(records)
    places = [_compared(RAW_EVENTS.name, raw.total(), there, raw)]
    of_record: dict[Record, Counter[int]] = {}
    items: dict[Record, int] = {}
    rows: dict[str, int] = {}
    events: Counter[str] = Counter()
    for table in CLASSIFIED_TABLES:
        columns = (*ITEM_KEY, "items", "batch", *(("event_id",) if table is EVENTS else ()))
        # Batch 0 is what Elasticsearch rejected: the ingest has its records in a table already.
        found = [row for row in _rows(lake, table, columns) if row["batch"]]
        rows[table.name] = len(found)
        for row in found:
            record = (row["topic"], row["partition"], row["offset"])
            of_record.setdefault(record, Counter())[row["item"]] += 1
            items[record] = row["items"]
        if table is EVENTS:
            events.update(row["event_id"] for row in found)
    expected = Counter((record, item) for record in raw for item in range(1, items.get(record, 1) + 1))
    classified = Counter(
        {(record, item): n for record, counted in of_record.items() for item, n in counted.items()}
    )
    places.append(_compared("classified records", classified.total(), expected, classified))
    places.append(_compared(EVENTS.name, rows[EVENTS.name], ids, events))
    others = [table.name for table in CLASSIFIED_TABLES if table is not EVENTS]
    return places + [Place(name, rows[name]) for name in others]


def _in_windows(settings: Settings, sent: Sequence[Event]) -> Place:
    """Each window has each event of its product and its time once: counted again here, by a plain loop."""
    first = {event["event_id"]: event for event in reversed(sent)}
    expected: Counter[str] = Counter()
    for event in first.values():
        if event.get("product_id") is None:
            continue
        moment = datetime.fromisoformat(event["timestamp"])
        start = EPOCH + (moment - EPOCH) // settings.slide_duration * settings.slide_duration
        while start + settings.window_duration > moment:
            expected[f"{event['product_id']} from {start:%Y-%m-%d %H:%M}"] += 1
            start -= settings.slide_duration
    statement = sql.SQL("SELECT product_id, window_start, total_events FROM {}")
    with connect(settings) as connection:
        rows = connection.execute(statement.format(sql.Identifier(PRODUCT_WINDOWS.name))).fetchall()
    found: Counter[str] = Counter(
        {
            f"{product} from {start.astimezone(UTC):%Y-%m-%d %H:%M}": total
            for product, start, total in rows
            if total
        }
    )
    # An event is in each of the windows that slide over it.
    each = settings.window_duration // settings.slide_duration
    return _compared("events in windows", round(found.total() / each), expected, found)


def _documents(settings: Settings) -> list[str]:
    live = LiveEvents(settings)
    index: dict[str, Any] = {"index": settings.elasticsearch_alias, "ignore_unavailable": True}
    try:
        live.client.indices.refresh(**index)
        return [hit["_id"] for hit in scan(live.client, **index, _source=False)]
    finally:
        live.close()


def _reconciled(settings: Settings, lake: Lake, excused: bool) -> Place:
    """The stream's closed windows against the lake's events, as the product itself compares them."""
    found = reconcile(settings, lake, days=36_500)
    assert found.waiting is None, found.waiting
    allowed = {Reason.ERASED, Reason.LATE} if excused else set()
    different = [each for each in found.differences if each.reason not in allowed]
    named = {
        f"{each.product_id} from {each.window_start}: {each.streamed} of {each.batch}, {each.reason}": (
            each.streamed - each.batch
        )
        for each in different
    }
    return Place(
        "windows that stream and batch agree on",
        found.compared - len(different),
        [name for name, surplus in named.items() if surplus < 0],
        [name for name, surplus in named.items() if surplus >= 0],
    )


def _served(settings: Settings, lake: Lake) -> list[Place]:
    """The keys of each served table that the lake has, in the lake and in PostgreSQL."""
    places = []
    for table in SERVED_TABLES:
        if table.name in HISTORIES or not lake.exists(table):
            continue
        there = Counter(tuple(map(str, row.values())) for row in _rows(lake, table, table.key))
        columns = sql.SQL(", ").join(map(sql.Identifier, table.key))
        statement = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.served_name))
        with connect(settings) as connection:
            served = Counter(tuple(map(str, row)) for row in connection.execute(statement).fetchall())
        places.append(_compared(f"served {table.served_name}", served.total(), there, served))
    return places
