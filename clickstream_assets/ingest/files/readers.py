"""From an opened file to the key and the value of each of its events, for each form that a file can have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any, Protocol

import msgspec

from clickstream_assets.ingest.dialects.snowplow import PLACES
from clickstream_assets.ingest.files.columns import NUMBERS, VALUE_FIELDS, Columns, renamed
from clickstream_assets.ingest.files.json_values import elements_of, values_of
from clickstream_assets.ingest.files.kinds import Kind, Rows
from clickstream_assets.ingest.files.kinds.kind import number
from clickstream_assets.ingest.files.kinds.otto import events_of
from clickstream_assets.ingest.files.skipped import BLANK_LINE, Skipped, SkippedRow
from clickstream_assets.ingest.files.sources import BYTE_ORDER_MARK, Source
from clickstream_assets.ingest.files.tables import Table

KeyedValue = tuple[bytes | None, bytes]
"""The key of a record, by which what is one visitor's stays in order, and its value."""

Records = Callable[[IO[bytes], Skipped], Iterator[bytes]]
"""Splits a file into records."""

Keyed = Callable[[bytes], KeyedValue]
"""Finds the key of a record, whose value it may write anew."""

_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


class Reader(Protocol):
    """A way to read a file."""

    @property
    def format(self) -> str:
        """Words for the kind that the file is taken for."""
        ...

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield the file's events in its order; what is none is noted."""
        ...


@dataclass(frozen=True)
class JsonReader:
    """Reads records one by one, as they are or with the fields' names as somebody says."""

    format: str
    source: Source
    records: Records
    keyed: Keyed

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield the records."""
        keyed = self.keyed
        with self.source.opened() as binary:
            for value in self.records(binary, skipped):
                yield keyed(value)


@dataclass(frozen=True)
class SessionReader:
    """Reads the events of OTTO's sessions."""

    format: str
    source: Source
    records: Records

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield the events of each session."""
        with self.source.opened() as binary:
            for place, value in enumerate(self.records(binary, skipped), start=1):
                try:
                    for event in events_of(value):
                        yield event.key(), _encode(event)
                except SkippedRow as skip:
                    skipped.note(f"session {place}", *skip.args)


@dataclass(frozen=True)
class KindReader:
    """Reads the rows of a kind of table."""

    table: Table
    kind: Kind
    places: Sequence[int | None]

    @cached_property
    def _rows(self) -> Rows:
        return self.kind.reader(self.table)

    @property
    def format(self) -> str:
        """The kind's name, and what is not sure of how it is read."""
        return f"{self.kind.name}, {self._rows.remark}" if self._rows.remark else self.kind.name

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield the events of the rows that are some."""
        event_of = self._rows.event_of
        encode = msgspec.json.Encoder().encode
        texts = self.kind.texts(self.places)
        for place, row in self.table.rows(self.places, skipped, texts):
            try:
                event = event_of(row)
            except SkippedRow as skip:
                skipped.note(f"{'row' if self.table.separator is None else 'line'} {place}", *skip.args)
                continue
            yield event.key(), encode(event)


@dataclass(frozen=True)
class RecordReader:
    """Reads the rows of a table as JSON objects: an event's own fields, or another tracker's columns.

    Attributes:
        names: The fields by their columns' places.
        columns: Values that all events have.
        has_json: Whether texts that are objects or lists in JSON are meant as such.
    """

    format: str
    table: Table
    names: Mapping[int, str]
    columns: Columns = field(default_factory=Columns)
    has_json: bool = False

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield an object for each row, with what is not empty."""
        numbers = [name for name in self.names.values() if name in NUMBERS]
        texts = {place for place, name in self.names.items() if name not in VALUE_FIELDS}
        for record in self.table.records(self.names, skipped, texts):
            for name in numbers:
                if isinstance(text := record.get(name), str):
                    record[name] = number(text)
            if self.has_json:
                record = {name: _json_in(value) for name, value in record.items()}
            value = _encode(self.columns.complete(record))
            yield key_of(value), value


@dataclass(frozen=True)
class FixedReader:
    """Gives all events of a known format the values that somebody says."""

    reader: Reader
    columns: Columns

    @property
    def format(self) -> str:
        """That of the file."""
        return self.reader.format

    def read(self, skipped: Skipped) -> Iterator[KeyedValue]:
        """Yield the reader's events with these values."""
        keyed = with_columns(self.columns)
        for _, value in self.reader.read(skipped):
            yield keyed(value)


def _json_in(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            msgspec.json.decode(value)
        except msgspec.MsgspecError:
            return value
        return msgspec.Raw(value.encode())
    return value


def lines(binary: IO[bytes], skipped: Skipped) -> Iterator[bytes]:
    """Yield the lines that are not blank, without their ends."""
    for place, line in enumerate(binary):
        value = line.removesuffix(b"\n").removesuffix(b"\r")
        if place == 0:
            value = value.removeprefix(BYTE_ORDER_MARK)
        if value.strip():
            yield value
        else:
            skipped.note("", BLANK_LINE)


def json_values(what: Source) -> Records:
    """Return what splits a file into the values of its array, or those that it has one after another."""
    return lambda binary, _: values_of(binary, what)


def list_in_object(what: Source, name: str) -> Records:
    """Return what splits a file into the elements of the list that its one object has under a name."""
    return lambda binary, _: elements_of(binary, what, name)


class _Keyed(msgspec.Struct):
    """Ids of a record: own ones, and what other trackers name theirs."""

    user_id: Any = None
    userId: Any = None
    anonymous_id: Any = None
    anonymousId: Any = None
    user_pseudo_id: Any = None
    client_id: Any = None
    clientId: Any = None
    domain_userid: Any = None
    distinct_id: Any = None
    network_userid: Any = None
    session_id: Any = None


_ids_of = msgspec.json.Decoder(_Keyed).decode


def key_of(value: bytes) -> bytes | None:
    """Return the first id that there is: what its visitor repeats or contradicts stays in order."""
    try:
        ids = msgspec.structs.astuple(_ids_of(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return next((str(one).encode() for one in ids if isinstance(one, str | int | float) and one != ""), None)


def as_it_is(value: bytes) -> KeyedValue:
    """Leave a JSON record as it is."""
    return key_of(value), value


def with_columns(columns: Columns) -> Keyed:
    """Return what gives a JSON record's values the fields that somebody says they are."""

    def keyed(value: bytes) -> KeyedValue:
        value = renamed(value, columns)
        return key_of(value), value

    return keyed


_TSV_IDS = tuple(PLACES[name] for name in ("user_id", "domain_userid", "network_userid", "domain_sessionid"))


def tsv_as_it_is(value: bytes) -> KeyedValue:
    """Leave a line of Snowplow's enriched TSV as it is."""
    values = value.split(b"\t")
    found: Iterable[bytes] = (values[place] for place in _TSV_IDS if place < len(values))
    return next((one for one in found if one), None), value
