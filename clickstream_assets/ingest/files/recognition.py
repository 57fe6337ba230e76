"""Recognition of a file by its first bytes and rows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import PurePath
from typing import IO, Any

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.dialects import dialect_of
from clickstream_assets.ingest.dialects.snowplow import is_tsv
from clickstream_assets.ingest.files.columns import (
    VISITOR_FIELDS,
    Columns,
    fields_of,
    guessed_options,
    has_path,
    missing_fields,
    names_in,
    own_names,
)
from clickstream_assets.ingest.files.json_values import elements_of, is_cut, members_at_start, values_of
from clickstream_assets.ingest.files.kinds import KINDS
from clickstream_assets.ingest.files.kinds.otto import is_session
from clickstream_assets.ingest.files.readers import (
    FixedReader,
    JsonReader,
    KindReader,
    Reader,
    RecordReader,
    Records,
    SessionReader,
    as_it_is,
    json_values,
    lines,
    list_in_object,
    tsv_as_it_is,
    with_columns,
)
from clickstream_assets.ingest.files.skipped import Skipped
from clickstream_assets.ingest.files.sources import HEAD_BYTES, Source, archive_of
from clickstream_assets.ingest.files.tables import PARQUET, Table, csv_tables, parquet_table, without_header
from clickstream_assets.settings import EventDialect

JSON_LINES = "JSON lines"
JSON_ARRAY = "JSON array"
JSON_OBJECTS = "JSON objects over several lines"
JSON_LIST = "the list {!r} of a JSON object"
OTTO = "OTTO sessions"
SNOWPLOW_TSV = "Snowplow TSV"
OWN_COLUMNS = "own fields"
MAPPED_COLUMNS = "columns by --map"

_FIRST_LINES = 100
_FIRST_VALUES = 10
_LINE_NAMES = frozenset({".jsonl", ".ndjson"})
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class UnknownFormatError(InputError):
    """A file is of no known format; the message says how it begins and what is known."""


def recognise(source: Source, columns: Columns) -> Reader:
    """Return what reads a file.

    Raises:
        InputError: it is missing, empty, damaged from its beginning, or of no known format; or it lacks a column that
            somebody names.
    """
    if columns and not columns.mapped:
        # What is known needs no columns' names.
        try:
            return FixedReader(_recognise(source, Columns()), columns)
        except UnknownFormatError:
            pass
    return _recognise(source, columns)


def _recognise(source: Source, columns: Columns) -> Reader:
    head = source.head()
    if not head.strip():
        raise InputError(f"{source} is empty: it has no line of an event or a header")
    if head.startswith(_UTF_16):
        raise InputError(
            f"{source} is UTF-16, not UTF-8; convert it, for example with `iconv -f utf-16 -t utf-8`"
        )
    if head.startswith(_LFS_POINTER):
        raise InputError(
            f"{source} is a pointer of Git LFS in place of the file; fetch it with `git lfs pull`"
        )
    if archive := archive_of(head):
        raise InputError(f"{source} is a {archive} archive; unpack it, and name the file of events")
    if head.startswith(PARQUET):
        table = parquet_table(source)
        reader = _mapped(table, columns) if columns else _of_table(table)
        if reader is None:
            raise _unknown(source, ", ".join(table.names), [table])
        return reader
    # Reading says where it is not UTF-8, with the number of events before.
    head = head.decode(errors="replace").encode()
    return _of_json(source, head, columns) or _of_text(source, head, columns)


def _of_text(source: Source, head: bytes, columns: Columns) -> Reader:
    # Tabs at its ends are columns too.
    first = next(line for line in head.splitlines() if line.strip())
    tables = list(csv_tables(source, head))
    if columns:
        return _mapped_csv(source, tables, columns)
    for table in tables:
        if reader := _of_table(table):
            return reader
    for table in tables:
        if reader := _without_names(table):
            return reader
    if is_tsv(first):
        return JsonReader(SNOWPLOW_TSV, source, lines, tsv_as_it_is)
    if _LINE_NAMES & set(PurePath(source.name).suffixes):
        raise InputError(
            f"{source} is no JSON lines, whatever its name says: none of its first {_FIRST_LINES} lines is a "
            f"JSON object, and the first is {_shorten(first.decode(errors='backslashreplace'))!r}"
        )
    raise _unknown(source, first.decode(errors="backslashreplace"), tables)


@dataclass(frozen=True)
class _Form:
    """Form in which a file has its records in JSON.

    Attributes:
        name: Words for it.
        records: Splits the file into records.
        values: Some of the first.
    """

    name: str
    records: Records
    values: list[bytes]


def _of_json(source: Source, head: bytes, columns: Columns) -> Reader | None:
    start = head.lstrip()[:1]
    form: _Form | None = None
    if start == b"[":
        form = _Form(JSON_ARRAY, json_values(source), _first_values(head, values_of, source))
    elif start == b"{":
        form = _of_objects(source, head, columns)
    elif _LINE_NAMES & set(PurePath(source.name).suffixes):
        form = _of_lines(head)
    objects = [one for one in map(_object, form.values) if one is not None] if form else []
    if not form or not objects:
        return None
    if columns:
        _require_paths(source, form.values, columns)
        return JsonReader(f"{form.name}, {MAPPED_COLUMNS}", source, form.records, with_columns(columns))
    if is_session(objects[0]):
        return SessionReader(OTTO, source, form.records)
    return JsonReader(form.name, source, form.records, as_it_is)


def _of_lines(head: bytes) -> _Form:
    return _Form(JSON_LINES, lines, _first_lines(head))


def _of_objects(source: Source, head: bytes, columns: Columns) -> _Form:
    """Tell how a file that begins with a brace has its records: a line each, over several lines, or in a list.

    Raises:
        InputError: its records are in a list in each of several objects, or in one of several lists.
    """
    first = head.lstrip().partition(b"\n")[0]
    values = _first_values(head, values_of, source)
    if _object(first) is not None:
        form = _of_lines(head)
        is_alone = not head.strip()[len(first.strip()) :]
    elif values and not head.lstrip().startswith(values[0]):
        form = _Form(JSON_OBJECTS, json_values(source), values)
        is_alone = len(values) == 1
    elif not values and is_cut(head):
        return _of_one_object(source, members_at_start(head.decode()), head, columns)
    else:
        # A line that is broken, or that has several objects.
        form = _of_lines(head)
        if not any(_object(value) is not None for value in form.values):
            form = _Form(JSON_OBJECTS, json_values(source), values)
        return form
    objects = [one for one in map(_object, form.values) if one is not None]
    lists = [() if _is_event(one, columns) else _lists_of_objects(one) for one in objects]
    if not lists or not all(lists):
        return form
    if is_alone:
        return _of_one_object(source, objects[0], head, columns)
    raise InputError(
        f"{source} has JSON objects that are no events. If these are in their lists, "
        f"{_how_to_unpack(source, lists[0])}; if not, say which members are which fields (--map timestamp=when)"
    )


def _of_one_object(source: Source, members: dict[str, Any], head: bytes, columns: Columns) -> _Form:
    """Return what reads the one list of events that an object has, or of objects, as far as its beginning shows."""
    found = _lists_of_objects(members)
    of_events = tuple(name for name in found if _is_event(_objects_in(members[name])[0], columns))
    if len(of_events) == 1:
        found = of_events
    if len(found) > 1:
        raise InputError(
            f"{source} is one JSON object with several lists of objects; if its events are in one of them, "
            f"{_how_to_unpack(source, found)}"
        )
    if not found or "event_type" in members:
        if len(head) < HEAD_BYTES:
            raise InputError(
                f"{source} ends within its first JSON object: the file is truncated; fetch it again"
            )
        raise InputError(
            f"{source} is one big JSON object, which begins with {', '.join(members)}, and no list of events is in its "
            f"first {HEAD_BYTES:,} bytes; write its events as JSON objects, a line each"
        )
    name = found[0]
    elements = list_in_object(source, name)
    values = _first_values(head, partial(elements_of, name=name), source)
    return _Form(JSON_LIST.format(name), elements, values)


def _is_event(record: dict[str, Any], columns: Columns) -> bool:
    """Return whether an object is a record of events itself, also one that has items."""
    return (
        "event_type" in record
        or not VISITOR_FIELDS.isdisjoint(record)
        or dialect_of(record) is not EventDialect.OWN
        or is_session(record)
        or any("event_type" in one for one in _objects_in(record.get("items")))
        or any(has_path(json.dumps(record).encode(), column) for column in columns.mapped.values())
    )


def _lists_of_objects(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in record.items() if _objects_in(value))


def _objects_in(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _how_to_unpack(source: Source, names: Sequence[str]) -> str:
    # Quoted for a shell, as a name can be of any characters.
    commands = " or ".join(
        shlex.join(["jq", "-c", f".[{json.dumps(name)}][]", source.name]) for name in names
    )
    return f"write them a line each: {commands}"


def _first_lines(head: bytes) -> list[bytes]:
    return head.split(b"\n", _FIRST_LINES)[:_FIRST_LINES]


def _first_values(
    head: bytes, split: Callable[[IO[bytes], Source], Iterator[bytes]], source: Source
) -> list[bytes]:
    values: list[bytes] = []
    # The head ends within a value. Reading says what else is wrong, with the number of events before.
    with suppress(InputError, EOFError, UnicodeDecodeError):
        values.extend(islice(split(BytesIO(head), source), _FIRST_VALUES))
    return values


def _object(value: bytes) -> dict[str, Any] | None:
    """Return an object, its numbers as texts: one that no reader reads is for the pipeline to judge."""
    try:
        found = json.loads(value.decode(), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _require_paths(source: Source, values: list[bytes], columns: Columns) -> None:
    for name, column in columns.mapped.items():
        if not any(has_path(value, column) for value in values):
            there = dict.fromkeys(name for value in values for name in names_in(value))
            raise InputError(
                f"--map {name}={column}: no object at the beginning of {source} has {column!r}; they have "
                f"{', '.join(there)}"
            )


def _of_table(table: Table) -> Reader | None:
    """Return what reads a table, by the names of its columns; None where they say nothing."""
    for kind in KINDS:
        if (places := kind.places(table)) is not None:
            return KindReader(table, kind, places)
    if not missing_fields(own_names(table.names)):
        return RecordReader(f"{_form(table)} of {OWN_COLUMNS}", table, fields_of(table.names, Columns()))
    as_sent = {place: name for place, name in enumerate(table.names) if name}
    dialects = {dialect_of(record) for record in _first_records(table, as_sent)} - {EventDialect.OWN}
    if len(dialects) == 1:
        return RecordReader(f"{_form(table)} of {dialects.pop()} events", table, as_sent, has_json=True)
    return None


def _mapped(table: Table, columns: Columns) -> Reader:
    """Return what reads a table of which somebody says which columns are which fields."""
    columns.require(table.names, table.source)
    fields = fields_of(table.names, columns)
    return RecordReader(f"{_form(table)}, {MAPPED_COLUMNS}", table, fields, columns)


def _form(table: Table) -> str:
    return "CSV" if table.separator else "Parquet"


def _first_records(table: Table, names: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    if table.separator is None:
        yield from islice(table.records(names, Skipped()), _FIRST_LINES)
        return
    for row in table.first:
        yield {name: row[place] for place, name in names.items() if place < len(row) and row[place]}


def _without_names(table: Table) -> Reader | None:
    """Return what reads a table whose first row is no header, or one of other names."""
    bare = without_header(table)
    for kind in KINDS:
        places = kind.places_without_names(bare, bare.first)
        if places is None:
            places = kind.places_without_names(table, table.first)
        if places is not None:
            return KindReader(bare if kind.fits(table.names) else table, kind, places)
    return None


def _mapped_csv(source: Source, tables: list[Table], columns: Columns) -> Reader:
    wanted = set(columns.mapped.values())
    if not tables:
        raise InputError(
            f"{source} is neither JSON nor a table with more than one column, so --map and --set do not apply"
        )
    found = next((table for table in tables if wanted <= set(table.names)), None)
    if found is None:
        # The right separator is the one that makes the most columns.
        found = max(tables, key=lambda table: len(table.names))
        if all(name.isdecimal() for name in wanted):
            found = without_header(found)
    return _mapped(found, columns)


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def _unknown(source: Source, first: str, tables: list[Table]) -> UnknownFormatError:
    kinds = ", ".join(dict.fromkeys(kind.name for kind in KINDS))
    message = (
        f"{source} is of no known format: it begins with {_shorten(first)!r}. Known are JSON lines and arrays, CSV and "
        f"Parquet of own fields (event_type, timestamp, user_id, …), Snowplow TSV, {OTTO}, {kinds}"
    )
    if tables:
        names = max(tables, key=lambda table: len(table.names)).names
        message += (
            f". It has no column of the name {', nor '.join(missing_fields(own_names(names)))}: say which they are, or "
            f"what is the same for all events; by its columns' names perhaps with {guessed_options(names)}"
        )
    return UnknownFormatError(message)
