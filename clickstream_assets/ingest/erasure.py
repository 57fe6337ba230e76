"""Takes out of the lake what the records of persons said, and says of each record that it was erased.

An erasure has a number. Its records are noted in `erased_records` first, by their places alone; what follows goes by
these notes, can be repeated at any time, and is done again where tables were put back to an earlier time. In
`raw_events` a record loses its bytes and stays as a row, since the rows of a partition say how far Kafka was read; from
the tables that it was put into, it is deleted. So each record is in one place still.

What is made of events is made anew by the days that have lost some. No commit's log names a person: conditions are of
topics, partitions and offsets.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.identity import IdentityRules, events_by_ids
from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    ERASED_EXPOSURES,
    ERASED_RECORDS,
    EVENTS,
    EXPERIMENT_EXPOSURES,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    ITEM_KEY,
    RAW_EVENTS,
    RAW_EXPOSURES,
    RECORD_KEY,
    REJECTED_EVENTS,
    REJECTED_EXPOSURES,
    REJECTED_SAMPLES,
    TABLES,
    Table,
)
from clickstream_assets.catalogue.who import (
    PERSON_COLUMNS,
    SESSION_ONLY,
    VISITOR,
    person_of_user,
    person_of_visitor,
    user_of_person,
)
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import items_of, read_payload
from clickstream_assets.ingest.ties import persons_of
from clickstream_assets.stores.lake import Lake

# A commit's log has its condition in it.
_OFFSETS_AT_ONCE = 10_000
_NOTED = (*ITEM_KEY, "items", "batch", "kafka_time", "event_date")
_IDS = ("user_id", "anonymous_id", "session_id")
# Of what is no JSON: what stands between quotes, tabs, commas and the like.
_WORD = re.compile(rb"[^\s\"',;:&=?(){}\[\]\\]+")


@dataclass(frozen=True)
class Identified:
    """Persons, with all ids that are theirs and nobody else's."""

    persons: frozenset[str]
    """As tables name them: the users, and visitors who are the same persons."""
    users: frozenset[str]
    """The sender's user ids."""
    visitors: frozenset[str]
    """The sender's anonymous ids."""
    sessions: frozenset[str]
    """The sender's session ids, of visitors who have no other id."""
    shared: frozenset[str]
    """Anonymous ids that were tied to others too, as a family's device is: what they did on it is theirs."""

    @property
    def ids(self) -> frozenset[str]:
        """All ids, of which none may be found anywhere."""
        return self.persons | self.users | self.visitors | self.sessions


def identify(lake: Lake, persons: Collection[str]) -> Identified:
    """Find all ids of some persons: a user's are those that were ever tied to them.

    Args:
        lake: has the ties.
        persons: as tables name them: user ids, `anonymous:` or `session:` and an id. A visitor who was tied to one
            user is that user; of one who was tied to several, it is what was theirs before that or nobody's.
    """
    visitors = _own_ids(persons, VISITOR)
    users_of = _tied(lake, "anonymous_id", visitors, "user_id")
    users = _users(persons).union(*(users for users in users_of.values() if len(users) == 1))
    devices = _tied(lake, "user_id", users, "anonymous_id")
    known = visitors.union(*devices.values())
    shared = {one for one, its in _tied(lake, "anonymous_id", known, "user_id").items() if not its <= users}
    own = frozenset(known - shared)
    return Identified(
        persons=frozenset({*persons, *map(person_of_visitor, own), *_persons(users)}),
        users=users,
        visitors=own,
        sessions=_own_ids(persons, SESSION_ONLY),
        shared=frozenset(shared),
    )


def refuse_shared(lake: Lake, persons: Collection[str]) -> None:
    """Refuse to take a device that several users had for a person.

    Raises:
        InputError: a visitor was tied to users of whom not all are among the persons; the message names them.
    """
    visitors = _own_ids(persons, VISITOR)
    for visitor, users in _tied(lake, "anonymous_id", visitors, "user_id").items():
        if len(users) > 1 and not _persons(users) <= {*persons}:
            raise InputError(
                f"{person_of_visitor(visitor)} was tied to several users, {', '.join(sorted(users))}, and what was "
                "done with it is theirs. Name those of them who are meant"
            )


@dataclass(frozen=True)
class Records:
    """Records of a kind: the table of their bytes, those that they are put into, and where erased ones are noted."""

    raw: Table
    put_into: tuple[Table, ...]
    """In the order in which they are deleted: last the one that says who the others are of."""
    erased: Table


OF_EVENTS = Records(
    RAW_EVENTS, (REJECTED_EVENTS, CONFLICTING_EVENTS, DUPLICATE_EVENTS, EVENTS), ERASED_RECORDS
)
OF_EXPOSURES = Records(RAW_EXPOSURES, (REJECTED_EXPOSURES, EXPERIMENT_EXPOSURES), ERASED_EXPOSURES)
KINDS = (OF_EVENTS, OF_EXPOSURES)


def records_of(lake: Lake, who: Identified, rules: IdentityRules, reading: ValidationRules) -> pa.Table:
    """Find the records of persons' events, in each of the tables that a record can be in.

    Of rejected records those that name one of the ids as a visitor's or, where they cannot be read, anywhere.

    Args:
        lake: has them.
        who: the persons.
        rules: say how ties are read.
        reading: say how rejected records are read.

    Returns:
        ERASED_RECORDS rows without `erasure`.
    """
    persons = lake.engine.from_arrow(pa.table({"user_id": pa.array(sorted(who.persons), pa.string())}))
    ties = lake.read(IDENTITY_TIES)

    def theirs(rows: DataFrame) -> DataFrame:
        possible = as_view(events_by_ids(as_view(rows), persons, ties))
        return as_view(persons_of(lake, possible, rules).join(persons, on="user_id", how="left_semi"))

    columns = (*_NOTED, "event_time", "event_id", "payload_hash", *_IDS)
    events, conflicts = (theirs(lake.read(table, columns=columns)) for table in (EVENTS, CONFLICTING_EVENTS))
    repeated = lake.read(DUPLICATE_EVENTS)
    # What repeats an event is whose that is; an order line under another id may have other ids, too.
    same = ["event_id", "event_date", "payload_hash"]
    repeats = repeated.join(as_view(events.select(*same).distinct()), on=same, how="left_semi")
    lines = theirs(repeated)
    duplicates = as_view(as_view(repeats.select(*_NOTED)).union(as_view(lines.select(*_NOTED))).distinct())
    return pa.concat_tables(
        [
            *(
                _noted(lake.engine.to_arrow(rows.select(*_NOTED)).to_pylist(), table)
                for table, rows in (
                    (EVENTS, events),
                    (CONFLICTING_EVENTS, conflicts),
                    (DUPLICATE_EVENTS, duplicates),
                )
            ),
            _noted(_rejected(lake, who, reading), REJECTED_EVENTS),
        ]
    )


def exposures_of(lake: Lake, who: Identified) -> pa.Table:
    """Find the records of what was shown to persons in experiments; of rejected ones those that name an id.

    Returns:
        ERASED_EXPOSURES rows without `erasure`.
    """
    shown = lake.read(EXPERIMENT_EXPOSURES)
    found = _whole(lake.engine.to_arrow(with_ids(shown, {"unit": who.persons})).to_pylist())
    rejected = (
        row
        for row in lake.rows(REJECTED_EXPOSURES).to_pylist()
        if not who.ids.isdisjoint(_words_of(row["value"] or b""))
    )
    return pa.concat_tables(
        [_noted(found, EXPERIMENT_EXPOSURES), _noted(_whole(rejected), REJECTED_EXPOSURES)]
    )


def records_at(lake: Lake, places: pa.Table, kind: Records = OF_EVENTS) -> pa.Table:
    """Find records by their places, as of a lake that was made anew from Kafka, or put back to an earlier time.

    Args:
        lake: has the records, or some of them.
        places: ITEM_KEY of each.
        kind: of which kind they are.

    Returns:
        Rows of `erased_records`, or of that of the kind, without `erasure`; of those that there are.
    """
    engine = lake.engine
    wanted = engine.from_arrow(places.select(ITEM_KEY))
    parts = []
    for table in kind.put_into:
        there = lake.read(table)
        if table is REJECTED_EVENTS:
            there = _of_ingest(there)
        key = [name for name in ITEM_KEY if name in table.by_name]
        theirs = there.join(wanted, on=key, how="left_semi")
        columns = [name for name in _NOTED if name in table.by_name]
        parts.append(_noted(_whole(engine.to_arrow(theirs.select(*columns)).to_pylist()), table))
    return pa.concat_tables(parts)


def note(lake: Lake, erasure: int, records: pa.Table, kind: Records = OF_EVENTS) -> None:
    """Note the records of an erasure, each once, however often it is tried.

    Args:
        lake: has them.
        erasure: its number.
        records: rows of `records_of` or, by the kind, `exposures_of`.
        kind: of which kind they are.
    """
    _append(lake, records.append_column("erasure", pa.array([erasure] * records.num_rows, pa.int64())), kind)


def leave_out(lake: Lake, places: pa.Table, batches: tuple[int, int], kind: Records = OF_EVENTS) -> int:
    """Note records at places of earlier erasures before they are put into any table, and delete their bytes.

    For records that came from Kafka once more: into a lake that was made anew, or put back to an earlier time. Can be
    repeated.

    Args:
        lake: has the records in its table of bytes.
        places: `erasure` and ITEM_KEY of each.
        batches: first and last ingest batch of records that nothing was made of yet.
        kind: of which kind they are.

    Returns:
        How many records there are at these places.
    """
    engine = lake.engine
    wanted = engine.from_arrow(places.select(["erasure", *ITEM_KEY]))
    records = lake.read(kind.raw, columns=(*RECORD_KEY, "batch", "kafka_time"), batches=batches)
    found = engine.to_arrow(as_view(wanted.join(records, on=list(RECORD_KEY), how="inner"))).to_pylist()
    if not found:
        return 0
    items = Counter(_place(row) for row in found)
    rows = [row | {"items": items[_place(row)], "erased_from": kind.raw.name} for row in found]
    noted = pa.Table.from_pylist(rows, schema=ERASED_RECORDS.arrow)
    _append(lake, noted, kind)
    _blank(lake, noted, kind)
    # Nobody has a use for the files as they came, and the next upkeep may be far.
    lake.delete_replaced_files(kind.raw)
    return len(items)


def _append(lake: Lake, rows: pa.Table, kind: Records) -> None:
    """Append rows of places that are not noted yet."""
    engine = lake.engine
    there = lake.read(kind.erased, columns=ITEM_KEY)
    new = engine.from_arrow(rows).join(there, on=list(ITEM_KEY), how="left_anti")
    if (found := engine.to_arrow(as_view(new.select(*kind.erased.column_names)))).num_rows:
        lake.append_rows(kind.erased, found, lake.snapshot(kind.erased).batch + 1)


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["topic"], row["partition"], row["offset"]


def take_out(lake: Lake, erasures: Collection[int], kind: Records = OF_EVENTS) -> list[date]:
    """Delete what the records of erasures said, as they are noted; can be repeated.

    Returns:
        The days of events that were noted, in order.

    Raises:
        LakeConflictError: rows were put into other files meanwhile; the next try goes on.
    """
    rows = lake.read(kind.erased)
    F, _ = functions_of(rows)
    noted = lake.engine.to_arrow(rows.where(F.col("erasure").isin(sorted(erasures)))) if erasures else None
    if noted is None or not noted.num_rows:
        return []
    _blank(lake, noted, kind)
    # Samples of rejected records are shown for some days.
    samples = [REJECTED_SAMPLES] if kind is OF_EVENTS and lake.exists(REJECTED_SAMPLES) else []
    for table in (*samples, *kind.put_into):
        for condition in _conditions(noted, with_items="item" in table.by_name):
            lake.delete(table, condition)
    if kind is OF_EXPOSURES:
        return []
    days = noted.filter(pc.equal(noted["erased_from"], EVENTS.name))["event_date"]
    return sorted(set(days.to_pylist()))


def places_of(lake: Lake, erasure: int) -> pa.Table:
    """Return where the records of an erasure were, of all kinds: ITEM_KEY of each."""
    parts = []
    for kind in KINDS:
        noted = lake.read(kind.erased, columns=("erasure", *ITEM_KEY))
        F, _ = functions_of(noted)
        parts.append(lake.engine.to_arrow(noted.where(F.col("erasure") == erasure).select(*ITEM_KEY)))
    return pa.concat_tables(parts)


def records_in(places: pa.Table) -> set[tuple[str, int, int]]:
    """Return topic, partition and offset of places."""
    return set(map(_place, places.select(RECORD_KEY).to_pylist()))


def sent_ids(lake: Lake, who: Identified, erasure: int) -> frozenset[str]:
    """Return all ids that the sender has for the persons of an erasure, with those of their sessions.

    Args:
        lake: has the events still, which say what sessions were theirs.
        who: the persons.
        erasure: whose records are noted.
    """
    return who.users | who.visitors | who.sessions | _sessions_of(lake, erasure)


def _sessions_of(lake: Lake, erasure: int) -> frozenset[str]:
    noted = lake.read(ERASED_RECORDS, columns=("erasure", *ITEM_KEY, "event_date"))
    F, _ = functions_of(noted)
    its = lake.engine.persist(as_view(noted.where(F.col("erasure") == erasure)))
    days = lake.engine.to_arrow(its.select("event_date").distinct())["event_date"].drop_null().to_pylist()
    events = lake.read(EVENTS, columns=(*ITEM_KEY, "session_id", "event_date"), days=days)
    theirs = events.join(as_view(its.select(*ITEM_KEY)), on=list(ITEM_KEY), how="left_semi")
    found = lake.engine.to_arrow(as_view(theirs).select("session_id").distinct())["session_id"]
    lake.engine.release(its)
    return frozenset(found.drop_null().to_pylist())


def untie(lake: Lake, who: Identified) -> None:
    """Delete who persons were: their ties, and what is kept of changed ones; can be repeated.

    Raises:
        LakeConflictError: the ties of a day were replaced meanwhile; the next try goes on.
    """
    engine = lake.engine
    of_ties = {"user_id": who.users, "anonymous_id": who.visitors}
    gone = engine.to_arrow(with_ids(lake.read(IDENTITY_TIES), of_ties).select("tie_date").distinct())
    for day in sorted(gone["tie_date"].to_pylist()):
        kept = _without_ids(lake.read(IDENTITY_TIES, days=[day]), of_ties)
        lake.replace(IDENTITY_TIES, kept, days=(day, day))
    changes = lake.read(IDENTITY_CHANGES)
    of_changes = {"user_before": who.users, "user_after": who.users, "anonymous_id": who.visitors}
    if engine.to_arrow(with_ids(changes, of_changes).limit(1)).num_rows:
        lake.replace(IDENTITY_CHANGES, _without_ids(changes, of_changes))


def rows_left(lake: Lake, persons: Collection[str]) -> dict[str, int]:
    """Count the rows that name persons still, by the table; only tables that have some.

    Args:
        lake: has the tables.
        persons: as `Identified.persons` has them.
    """
    named = frozenset(persons)
    users = _users(persons)
    visitors, sessions = (_own_ids(persons, kind) for kind in (VISITOR, SESSION_ONLY))
    found = {}
    for table in filter(lake.exists, (table for table in TABLES.values() if table.in_lake)):
        ids = {"anonymous_id": visitors, "user_before": users, "user_after": users}
        ids |= dict.fromkeys(PERSON_COLUMNS, named | users)
        if table in OF_EVENTS.put_into:
            ids["session_id"] = sessions
        ids = {name: values for name, values in ids.items() if name in table.by_name}
        if ids:
            rows = lake.read(table, columns=dict.fromkeys((*ids, *table.partition_by)))
            F, _ = functions_of(rows)
            counted = with_ids(rows, ids).agg(F.count(F.lit(1)).cast("long").alias("rows"))
            found[table.name] = lake.engine.to_arrow(counted)["rows"][0].as_py()
    return {name: rows for name, rows in found.items() if rows}


def with_ids(rows: DataFrame, ids: dict[str, frozenset[str]]) -> DataFrame:
    """Return the rows that have one of some ids in a column, by the column."""
    return as_view(rows.where(_has_ids(rows, ids)))


def _without_ids(rows: DataFrame, ids: dict[str, frozenset[str]]) -> DataFrame:
    return as_view(rows.where(~_has_ids(rows, ids)))


def _has_ids(rows: DataFrame, ids: dict[str, frozenset[str]]) -> Any:
    F, _ = functions_of(rows)
    found = F.lit(False)
    for column, values in ids.items():
        if values:
            found = found | F.coalesce(F.col(column).isin(sorted(values)), F.lit(False))
    return found


def _own_ids(persons: Collection[str], kind: str) -> frozenset[str]:
    """Return the sender's ids of those persons who are visitors of a kind: VISITOR or SESSION_ONLY."""
    return frozenset(person.removeprefix(kind) for person in persons if person.startswith(kind))


def _users(persons: Collection[str]) -> frozenset[str]:
    return frozenset(filter(None, map(user_of_person, persons)))


def _persons(users: Iterable[str]) -> set[str]:
    return {person_of_user(user) for user in users}


def _tied(lake: Lake, by: str, values: Collection[str], other: str) -> dict[str, set[str]]:
    """Return, by some ids of one kind, those of the other kind that they were ever tied to."""
    if not values:
        return {}
    ties = with_ids(lake.read(IDENTITY_TIES), {by: frozenset(values)})
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in lake.engine.to_arrow(ties.select(by, other).distinct()).to_pylist():
        found[row[by]].add(row[other])
    return found


def _rejected(lake: Lake, who: Identified, rules: ValidationRules) -> Iterator[dict[str, Any]]:
    columns = (*(name for name in _NOTED if name != "event_date"), "key", "value", "rejected_by")
    rows = _of_ingest(lake.read(REJECTED_EVENTS, columns=columns))
    for batch in lake.engine.to_batches(rows):
        for row in batch.to_pylist():
            if not who.ids.isdisjoint(_ids_in(row, rules)):
                yield {name: row.get(name) for name in _NOTED}


def _of_ingest(rejected: DataFrame) -> DataFrame:
    # What Elasticsearch refused is in the other tables, too.
    F, _ = functions_of(rejected)
    return as_view(rejected.where(F.col("rejected_by").isNull() | (F.col("rejected_by") == "ingest")))


def _ids_in(row: dict[str, Any], rules: ValidationRules) -> Iterator[str]:
    """Yield what a rejected record may name its visitor by."""
    key, value = row["key"], row["value"]
    if key is not None:
        yield key.decode(errors="replace")
    if value is None:
        return
    try:
        items = items_of(*read_payload(value, rules.of_topic(row["topic"]).event_dialect))
    except Rejection:
        yield from _words_of(value)
        return
    for item in items:
        if not isinstance(item, Rejection):
            yield from (str(item[0][name]) for name in _IDS if item[0].get(name) is not None)


def _words_of(value: bytes) -> Iterator[str]:
    return (word.decode(errors="replace") for word in _WORD.findall(value))


def _whole(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with all columns of a place: records of one item say nothing of it."""
    return [{"item": 1, "items": 1, **row} for row in rows]


def _noted(rows: Iterable[dict[str, Any]], table: Table) -> pa.Table:
    schema = pa.schema([field for field in ERASED_RECORDS.arrow if field.name != "erasure"])
    return pa.Table.from_pylist([{**row, "erased_from": table.name} for row in rows], schema=schema)


def _blank(lake: Lake, noted: pa.Table, kind: Records) -> None:
    for condition in _conditions(noted, with_items=False):
        lake.blank(kind.raw, ("key", "value"), f"{condition} AND (key IS NOT NULL OR value IS NOT NULL)")


def _conditions(noted: pa.Table, *, with_items: bool) -> Iterator[str]:
    """Yield SQL conditions that together name the places of records, or of items of them, each of a bounded number."""
    places: defaultdict[tuple[str, int, int], set[int]] = defaultdict(set)
    for row in noted.select(ITEM_KEY).to_pylist():
        item = row["item"] if with_items else 0
        places[row["topic"], row["partition"], item].add(row["offset"])
    for (topic, partition, item), offsets in sorted(places.items()):
        in_order = sorted(offsets)
        for start in range(0, len(in_order), _OFFSETS_AT_ONCE):
            some = in_order[start : start + _OFFSETS_AT_ONCE]
            # The bounds let files be skipped by their statistics.
            condition = (
                f"topic = '{topic}' AND partition = {partition} AND \"offset\" BETWEEN {some[0]} AND {some[-1]} "
                f'AND "offset" IN ({", ".join(map(str, some))})'
            )
            yield f"{condition} AND item = {item}" if with_items else condition
