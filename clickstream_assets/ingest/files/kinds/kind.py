"""A kind of table: its columns, and the event that a row is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec

from clickstream_assets.ingest.files.tables import Table, column_key, is_missing

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An event of a data set; numbers keep the digits of the file."""

    event_type: str
    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: str
    product_id: str
    session_id: str | None = None
    product_category: str | None = None
    brand: str | None = None
    price: msgspec.Raw | str | None = None
    currency: str | None = None
    quantity: msgspec.Raw | str | int | None = None
    order_id: str | None = None
    order_line: str | None = None
    properties: dict[str, str] | None = None

    def key(self) -> bytes | None:
        """Return the id by which what is one visitor's stays in order; None where there is none."""
        return (self.user_id or self.anonymous_id or self.session_id or "").encode() or None


ReadRow = Callable[[Sequence[str]], Event]
"""Makes an event of a row's texts; raises SkippedRow for a row that is none."""


class Rows(NamedTuple):
    """Reading of a table's rows.

    Attributes:
        event_of: Makes an event of each.
        remark: Words for what is not sure of it; "" where all is.
    """

    event_of: ReadRow
    remark: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a kind.

    Attributes:
        names: How it is named, in whatever case and with whatever between the words; the first is the publisher's.
        pattern: What its values are like: all columns with one are known without a header.
        is_optional: Whether a table of the kind can lack it.
        is_text: Whether it is no id, number or time, so that NA or None can be a name.
    """

    names: tuple[str, ...]
    pattern: str | None = None
    is_optional: bool = False
    is_text: bool = False

    @cached_property
    def keys(self) -> frozenset[str]:
        """Its names in the spelling that they are looked up by."""
        return frozenset(map(column_key, self.names))


def column(names: str, pattern: str | None = None, *, optional: bool = False, text: bool = False) -> Column:
    """Make a column of its names, with a stroke between."""
    return Column(tuple(names.split("|")), pattern, optional, text)


@dataclass(frozen=True)
class Kind:
    """A kind of table whose rows are events.

    Attributes:
        name: What people call it.
        columns: In the order of a table without a header.
        reader: Finds out how a table's rows are read, of their texts in the columns' order.
        is_exact: Whether a table with other columns besides is of another kind.
    """

    name: str
    columns: tuple[Column, ...]
    reader: Callable[[Table], Rows]
    is_exact: bool = False

    def places(self, table: Table) -> list[int | None] | None:
        """Return where a table has the columns, by their names; None if it is of another kind."""
        keys = table.keys
        found = [
            next((place for place, key in enumerate(keys) if key in one.keys), None) for one in self.columns
        ]
        if any(place is None and not one.is_optional for place, one in zip(found, self.columns, strict=True)):
            return None
        others = {key for place, key in enumerate(keys) if place not in found and not _is_index(key)}
        return None if self.is_exact and others else found

    def texts(self, places: Sequence[int | None]) -> set[int]:
        """Return which places of a table are columns of text."""
        return {
            place
            for place, one in zip(places, self.columns, strict=True)
            if place is not None and one.is_text
        }

    def places_without_names(self, table: Table, rows: Sequence[Sequence[str]]) -> list[int | None] | None:
        """Return where a table has the columns, by what values of some rows are like; None if it is of another kind."""
        if any(one.pattern is None for one in self.columns):
            return None
        width = len(table.names)
        fewest = sum(not one.is_optional for one in self.columns)
        fitting = sum(len(row) == width and self.fits(row) for row in rows)
        if not fewest <= width <= len(self.columns) or 2 * fitting <= len(rows):
            return None
        return [place if place < width else None for place in range(len(self.columns))]

    def fits(self, row: Sequence[str]) -> bool:
        """Return whether all values of a row are like those of the columns."""
        return len(row) <= len(self.columns) and all(map(_fits, self._patterns, row))

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(one.pattern or ".*", re.ASCII) for one in self.columns)


def _fits(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch("" if is_missing(text) else text) is not None


def _is_index(key: str) -> bool:
    # As pandas writes a column of row numbers.
    return key in ("", "index") or key.startswith("unnamed")


def same_for_all(event_of: ReadRow) -> Callable[[Table], Rows]:
    """Make a `reader` of a function that needs nothing of the table."""
    return lambda _: Rows(event_of)


def number(text: str) -> msgspec.Raw | str | None:
    """Return a number with its digits as they are; what is none is left for the pipeline to judge."""
    if not text:
        return None
    return msgspec.Raw(text.encode()) if _JSON_NUMBER.fullmatch(text) else text


_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?", re.ASCII)


def in_utc(time: str) -> str:
    """Return a time of a data set whose clock is UTC's, also where a copy of it says so no more."""
    return f"{time}Z" if _WITHOUT_ZONE.fullmatch(time) else time


def texts(**values: str) -> dict[str, str] | None:
    """Return the properties that are given."""
    return {name: text for name, text in values.items() if text} or None
