"""Columns of a file as fields of an event: by their own names, or as somebody says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from decimal import Decimal
from typing import Any, Self

import msgspec

from clickstream_assets.catalogue import EVENT_FIELDS, ID_FIELDS
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import TIMESTAMP_FIELDS, day_in
from clickstream_assets.ingest.files.tables import column_key

FIELDS = (
    "event_type",
    *TIMESTAMP_FIELDS,
    "event_id",
    *(column.name for column in EVENT_FIELDS),
    "properties",
    "items",
)
"""Fields that a record can have."""
_BY_KEY = {column_key(name): name for name in FIELDS}
NUMBERS = frozenset({"price", "quantity"})
VALUE_FIELDS = frozenset(
    {"event_type", *TIMESTAMP_FIELDS, *ID_FIELDS, *NUMBERS, "currency", "consent", "properties", "items"}
)
"""Fields that are no texts: ids, numbers, times and what has words of its own."""
VISITOR_FIELDS = frozenset({"user_id", "anonymous_id", "session_id"})
"""Ids of which an event has one, at least."""


@dataclass(frozen=True)
class Columns:
    """Choices that somebody makes for a file: the column of a field, and values that all of its events have.

    Attributes:
        mapped: Columns by their fields; of JSON also a path to a value, `user.id`.
        fixed: Values by their fields.
        time_of_day: What is a day alone is this time of it, in ISO 8601; without one such a day stays as it is.
    """

    mapped: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    time_of_day: str | None = None

    def __bool__(self) -> bool:
        """Return whether anything is said."""
        return bool(self.mapped or self.fixed or self.time_of_day)

    @classmethod
    def of(
        cls, mapped: Iterable[str] = (), fixed: Iterable[str] = (), time_of_day: str | None = None
    ) -> Self:
        """Read `FIELD=COLUMN` and `FIELD=VALUE`, where a value is JSON or else a text, and a time such as `12:00`.

        Raises:
            InputError: a text is not written so, its field is none of an event, or a field is said twice.
        """
        if time_of_day is not None:
            try:
                time_of_day = time.fromisoformat(time_of_day).isoformat()
            except ValueError:
                raise InputError(
                    f"--time-of-day {time_of_day}: write it as hours and minutes, such as --time-of-day 12:00"
                ) from None
        columns = dict(_parts("--map", text, "COLUMN", "timestamp=when") for text in _once("--map", mapped))
        values = dict(_parts("--set", text, "VALUE", "event_type=view") for text in _once("--set", fixed))
        both = sorted(columns.keys() & values.keys())
        if both:
            raise InputError(f"--map and --set both say what {both[0]} is; leave one of them out")
        return cls(columns, {name: _value(text) for name, text in values.items()}, time_of_day)

    def complete(self, record: dict[str, Any]) -> dict[str, Any]:
        """Give a record, in place, the values that all have, and a time of day where it has none."""
        record.update(self.fixed)
        if self.time_of_day:
            for name in TIMESTAMP_FIELDS:
                given = record.get(name)
                if isinstance(given, msgspec.Raw):
                    given = _scalar(given)
                if given is not None and (day := day_in(given)):
                    record[name] = f"{day.isoformat()}T{self.time_of_day}"
        return record

    def require(self, names: Iterable[str], what: object) -> None:
        """Check that a table has the columns.

        Raises:
            InputError: it lacks one; the message names those that it has.
        """
        there = list(names)
        for name, column in self.mapped.items():
            if column not in there:
                raise InputError(
                    f"--map {name}={column}: {what} has no column {column!r}; it has {', '.join(there)}"
                )


def _once(option: str, texts: Iterable[str]) -> Sequence[str]:
    found = list(texts)
    names = [text.partition("=")[0] for text in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{option} says twice what {twice} is; leave one of them out")
    return found


def _parts(option: str, text: str, right: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise InputError(f"{option} {text}: write it as FIELD={right}, such as {option} {example}")
    if name not in FIELDS:
        raise InputError(
            f"{option} {text}: an event has no field {name!r}; its fields are {', '.join(FIELDS)}"
        )
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=str)
    except ValueError:
        return text


def own_names(names: Sequence[str]) -> list[str]:
    """Return the names of columns, an event's fields in the one spelling that these have."""
    return [_BY_KEY.get(column_key(name), name) for name in names]


_NEEDED = {
    "event_type": {"event_type"},
    "timestamp": set(TIMESTAMP_FIELDS),
    "user_id, anonymous_id or session_id": VISITOR_FIELDS,
}


def missing_fields(names: Iterable[str]) -> list[str]:
    """Return which fields an event needs of which columns have none: what it is, when it was and whose."""
    given = set(names)
    return [words for words, fields in _NEEDED.items() if given.isdisjoint(fields)]


# As other people name them, the likeliest first.
_OTHER_NAMES = {
    "event_type": "event_name, event, action, event_action, activity, behavior_type, behavior, behaviour, type",
    "timestamp": "ts, event_time, time, datetime, date_time, event_ts, occurred_at, created_at, when, purchase_time, "
    "order_time, invoice_date, event_date, order_date, date",
    "user_id": "customer_id, uid, visitor_id, client_id, member_id, user_pseudo_id, distinct_id, shopper_id, user, "
    "customer, visitor, who",
    "product_id": "item_id, sku, article_id, product_code, stock_code, product, item, article",
}
_ORDERS = frozenset(
    map(column_key, ("order_id", "order", "order_no", "invoice", "invoice_no", "transaction_id"))
)


def guessed_options(names: Sequence[str]) -> str:
    """Return the options that would make events of a table's rows, as its columns' names suggest.

    COLUMN stands for what they do not suggest.
    """
    left = {column_key(name): name for name in names}
    missing = missing_fields(own_names(names))
    options: list[tuple[str, str]] = []
    for field_name, others in _OTHER_NAMES.items():
        is_needed = any(words.startswith(field_name) for words in missing)
        key = next((key for key in map(column_key, others.split(", ")) if key in left), None)
        if column_key(field_name) in left or not (is_needed or field_name == "product_id"):
            continue
        if key:
            options.append(("--map", f"{field_name}={left.pop(key)}"))
        elif field_name == "event_type":
            options.append(("--set", f"event_type={'view' if _ORDERS.isdisjoint(left) else 'purchase'}"))
        elif is_needed:
            options.append(("--map", f"{field_name}=COLUMN"))
    return " ".join(map(shlex.join, options))


def fields_of(names: Sequence[str], columns: Columns) -> dict[int, str]:
    """Return the field of each column by the column's place; one that is no field keeps its name.

    A column that has the name of a field which another one is said to be is left out.
    """
    said = {column: name for name, column in columns.mapped.items()}
    taken = columns.mapped.keys() | columns.fixed.keys()
    found: dict[int, str] = {}
    for place, (name, own) in enumerate(zip(names, own_names(names), strict=True)):
        field_name = said.get(name, own)
        if field_name and (name in said or field_name not in taken) and field_name not in found.values():
            found[place] = field_name
    return found


def _scalar(value: msgspec.Raw) -> str | int | float | None:
    try:
        return msgspec.json.decode(value, type=str | int | float)
    except msgspec.MsgspecError:
        return None


_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def renamed(value: bytes, columns: Columns) -> bytes:
    """Return a JSON object with its values under the fields that somebody says they are.

    What is no object is returned as it is, for the pipeline to reject.
    """
    try:
        members = _members(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return value
    found: dict[str, Any] = {}
    for name, column in columns.mapped.items():
        given = members.get(column)
        if given is None and "." in column:
            given = _at(members, column.split("."))
        if given is not None:
            found[name] = given
    said = set(columns.mapped.values())
    left = {name: given for name, given in members.items() if name not in said and name not in columns.mapped}
    return _encode(columns.complete({**left, **found}))


def has_path(value: bytes, column: str) -> bool:
    """Return whether a JSON object has a value by this name or path."""
    try:
        members = _members(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return column in members or _at(members, column.split(".")) is not None


def names_in(value: bytes) -> list[str]:
    """Return the names that a JSON object has."""
    try:
        return list(_members(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _at(members: _Members, path: Sequence[str]) -> msgspec.Raw | None:
    given: msgspec.Raw | None = None
    for name in path:
        given = members.get(name)
        if given is None:
            return None
        try:
            members = _members(given)
        except msgspec.MsgspecError:
            members = {}
    return given
