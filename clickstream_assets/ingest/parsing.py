"""From the bytes of a record to its events, or to the fields and the rules that are broken.

A record is one event, or has several in `items`: each of them is one event or one rejection. One in another dialect is
translated to items first. `parse_batches` judges each record by itself, as a Python function over Arrow batches: in
batch and stream the same.
"""

import gc
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import repeat
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from crawlerdetect import CrawlerDetect

from clickstream_assets.catalogue import (
    EVENT_FIELDS,
    EVENT_TYPES,
    EVENTS,
    MONEY_TYPES,
    OTHER_SPELLINGS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    TYPES_OF_PRODUCTS,
    Column,
)
from clickstream_assets.ingest.dialects import Item, dialect_of, snowplow, translated, visitors_in
from clickstream_assets.ingest.dialects.wire import other_format, without_header
from clickstream_assets.ingest.fields import (
    FIELDS,
    MAX_AMOUNT,
    TIMESTAMP_FIELDS,
    Id,
    Rejection,
    Unreadable,
    ValidationRules,
    encoder,
    in_bounds,
    is_usual_text,
    iso_8601,
    placeholders_of,
    read_id,
    read_price,
    read_properties,
    read_text,
    read_time,
)
from clickstream_assets.settings import EventDialect

_TYPE_AS_SENT = OTHER_SPELLINGS | {name: name for name in EVENT_TYPES}
# Of objects and lists in each other. JSON leaves the limit to its reader; ours is far below Python's, which moves with
# the caller's stack, so that batch and stream agree.
MAX_DEPTH = 100

_RECORD_COLUMNS = list(RAW_EVENTS.arrow)
_PLACE_COLUMNS = [EVENTS.arrow.field(name) for name in ("item", "items")]
_EVENT_COLUMNS = [
    field.with_nullable(True) for field in EVENTS.arrow if field not in (*_RECORD_COLUMNS, *_PLACE_COLUMNS)
]
_REJECTION_COLUMNS = [REJECTED_EVENTS.arrow.field(name) for name in ("field", "rule", "rejected_value")]
PARSED = pa.schema(
    [
        *(field.with_nullable(True) for field in _RECORD_COLUMNS),
        *_PLACE_COLUMNS,
        *(field.with_nullable(True) for field in (*_EVENT_COLUMNS, *_REJECTION_COLUMNS)),
    ]
)
"""Rows of `parse_batches`: the record and the place in it, then the event's columns or, where `rule` is set, the
rejection.
"""

# A valid event's own columns, in the order of the table.
Event: Any = namedtuple("Event", [field.name for field in _EVENT_COLUMNS])  # type: ignore[misc]


def _number(text: str) -> Decimal | Unreadable:
    """Read a number with a fraction or an exponent, which JSON lets be of any size and Python does not."""
    try:
        return Decimal(text) if len(text) <= _MOST_DIGITS else Unreadable(text.removesuffix("e0"))
    except InvalidOperation:
        return Unreadable(text)


_decoder = msgspec.json.Decoder(float_hook=_number)
_crawlers = CrawlerDetect()
# Python refuses to read, or to write, integers of more than 4,300.
_MOST_DIGITS = 4000
# A text, which may lack its end, or a number.
_TEXT_OR_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[-+.eE\d]+', re.DOTALL)
# One byte is looked for in a fifth of the time of six, and few values have it.
_BACKSLASH = ord("\\")
# A text, which may lack its end, or a bracket outside of one.
_TEXT_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@lru_cache(maxsize=65_536)
def is_robot(user_agent: str) -> bool:
    """Return whether a user agent is a known crawler's or a program's."""
    return _crawlers.isCrawler(user_agent)


_NAMES = [column.name for column in EVENT_FIELDS]
_USER_ID, _ANONYMOUS_ID, _EVENT_NAME, _PRODUCT_ID, _PRICE, _QUANTITY, _USER_AGENT = map(
    _NAMES.index, ("user_id", "anonymous_id", "event_name", "product_id", "price", "quantity", "user_agent")
)
_Body = msgspec.defstruct(
    "_Body",
    [(name, Any, None) for name in ("event_type", "event_time", "event_date", *_NAMES, "properties", "item")],
    omit_defaults=True,
    gc=False,
)
_NULL = msgspec.Raw(b"null")


def _usual_field(column: Column) -> tuple[str, Any, Any]:
    usual = FIELDS[column.name].usual
    return (column.name, usual, _NULL) if usual is msgspec.Raw else (column.name, usual | None, None)


def _usual_item_field(usual: Any) -> tuple[Any, Any]:
    return (Any if usual is msgspec.Raw else usual | None), None


# An event written as most are: ids and texts as text, nothing empty, nothing unknown.
_Usual = msgspec.defstruct(
    "_Usual",
    [
        ("event_type", Id),
        ("timestamp", str),
        ("event_id", Id | None, None),
        ("properties", msgspec.Raw, _NULL),
        *map(_usual_field, EVENT_FIELDS),
    ],
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_usual_decoder = msgspec.json.Decoder(_Usual)
# The same of what a dialect was translated to, which is decoded.
_UsualItem = msgspec.defstruct(
    "_UsualItem",
    [
        ("event_type", Id),
        ("timestamp", str),
        ("event_id", Id | None, None),
        ("properties", Any, None),
        *((column.name, *_usual_item_field(FIELDS[column.name].usual)) for column in EVENT_FIELDS),
    ],
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_texts_of = itemgetter(
    *(number for number, column in enumerate(EVENT_FIELDS) if pa.types.is_string(column.type))
)
# What was found to be usual is looked up in a fraction of the time, and most of it comes again.
_MOST_KNOWN = 262_144


@cache
def _usual_texts(id_placeholders: str) -> tuple[frozenset[str], set[str | None]]:
    """Return the placeholders of whatever field, and a memory of texts that are usual in any."""
    return frozenset().union(*placeholders_of(id_placeholders).values()), {None}


def parse_record(value: bytes | None, kafka_time: int, rules: ValidationRules) -> list[Event | Rejection]:
    """Read one record's value as an event, or as one for each of its `items`.

    A field that cannot be read is left out and noted in `field_problems`, unless an event is none without it.

    Args:
        value: the bytes of a JSON object, as the README's section on events describes it, or of another dialect.
        kafka_time: when the record came, microseconds since 1970; an event cannot be much later.
        rules: the rules of its topic to read by, and the bounds to keep.

    Returns:
        For each item, the event or the reason that it is none; one for a record without items.
    """
    try:
        if value is None:
            raise Rejection(None, "tombstone")
        if len(value) > rules.max_event_bytes:
            raise Rejection(None, "too_large", f"{len(value)} bytes")
        if value[:1] == b"\0":
            value = without_header(value)
        has_nul = _BACKSLASH in value and b"\\u0000" in value
        if rules.event_dialect in _MAYBE_OWN and not has_nul and not _is_too_deep(value):
            # Checked while it is decoded, in C: a quarter of the time. A value that does not fit need not be wrong.
            try:
                usual = _usual_decoder.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
            else:
                if event := _usual_event(usual, kafka_time, rules):
                    return [event]
        payload, dialect = read_payload(value, rules.event_dialect)
        items = items_of(payload, dialect)
        visitors = visitors_in(dialect)
    except Rejection as rejection:
        return [rejection]
    found: list[Event | Rejection] = []
    for place, item in enumerate(items, start=1):
        try:
            if isinstance(item, Rejection):
                raise item
            event = None if has_nul else _usual_item(item, place, kafka_time, rules)
            found.append(event or _any_event(item, place, kafka_time, rules, visitors))
        except Rejection as rejection:
            found.append(rejection)
    return found


_MAYBE_OWN = (EventDialect.AUTO, EventDialect.OWN)


def read_payload(value: bytes, dialect: EventDialect) -> tuple[dict[str, Any], EventDialect]:
    """Decode a record's value, and tell its dialect where that is not set.

    Raises:
        Rejection: as `decode_payload`.
    """
    if dialect in (EventDialect.AUTO, EventDialect.SNOWPLOW) and snowplow.is_tsv(value):
        try:
            return snowplow.from_tsv(value), EventDialect.SNOWPLOW
        except UnicodeDecodeError as error:
            raise Rejection(None, "not_utf8", str(error)) from None
    payload = decode_payload(value)
    return payload, dialect_of(payload) if dialect is EventDialect.AUTO else dialect


def items_of(payload: dict[str, Any], dialect: EventDialect) -> Sequence[Item | Rejection]:
    """Return the items of a decoded record, an event's own fields each.

    Raises:
        Rejection: a part of the record that holds JSON as text cannot be read.
    """
    return _own_items(payload) if dialect is EventDialect.OWN else translated(payload, dialect, decode_any)


def _own_items(payload: dict[str, Any]) -> list[Item | Rejection]:
    """Return the payload of each event of a record: an item's fields, and those of the record that it does not have.

    What is no object among objects is a rejection.
    """
    payload = {name: _unpacked(name, value) for name, value in payload.items()}
    items = payload.get("items")
    if not isinstance(items, list) or not any(isinstance(item, dict) for item in items):
        # What is named so and is no list of objects is the sender's own field.
        return [(payload, "")]
    shared = {name: value for name, value in payload.items() if name != "items"}
    return [
        (_with_shared(item, shared), f"/{place}" if place > 1 else "")
        if isinstance(item, dict)
        else Rejection("items", "wrong_type", item)
        for place, item in enumerate(items, start=1)
    ]


# Fields that are no texts, and what they begin with.
_BRACKETS = {"items": "[", "properties": "{"}


def _unpacked(name: str, value: Any) -> Any:
    """Return the list or object that a text is in JSON, as trackers send it whose fields are texts; else the value."""
    if name not in _BRACKETS or not isinstance(value, str) or not value.lstrip().startswith(_BRACKETS[name]):
        return value
    try:
        return decode_any(value.encode())
    except Rejection:
        return value


def _with_shared(item: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    own = {
        name: _unpacked(name, value)
        for name, value in item.items()
        if name not in shared or value not in (None, "")
    }
    return {**shared, **own, "properties": _merged(shared, own)}


def _merged(*payloads: dict[str, Any]) -> Any:
    """Put the properties of a record and of its item together; what is none is left to be noted."""
    given = [payload["properties"] for payload in payloads if payload.get("properties") is not None]
    if len(given) == 2 and all(isinstance(properties, dict) for properties in given):
        return {**given[0], **given[1]}
    return given[-1] if given else None


def _usual_item(item: Item, place: int, kafka_time: int, rules: ValidationRules) -> Event | None:
    fields, ending = item
    try:
        sent = msgspec.convert(fields, _UsualItem)
    except msgspec.ValidationError:
        return None
    return _usual_event(sent, kafka_time, rules, place, ending, is_decoded=True)


def _usual_event(
    sent: Any,
    kafka_time: int,
    rules: ValidationRules,
    place: int = 1,
    ending: str = "",
    is_decoded: bool = False,
) -> Event | None:
    """Make an event of what is written as most are; None where it has to be looked at field by field."""
    sent_type, timestamp, event_id, properties, *fields = msgspec.structs.astuple(sent)
    event_type = _TYPE_AS_SENT.get(sent_type)
    if event_type is None:
        return None
    placeholders, known = _usual_texts(rules.id_placeholders)
    if event_id is not None and not is_usual_text(event_id, placeholders):
        return None
    texts = _texts_of(fields)
    if not known.issuperset(texts):
        if not all(text in known or is_usual_text(text, placeholders) for text in texts):
            return None
        if len(known) > _MOST_KNOWN:
            known.clear()
            known.add(None)
        known.update(texts)
    try:
        if timestamp[4:5] == "-":
            event_time = in_bounds(
                "timestamp", timestamp, iso_8601("timestamp", timestamp, rules), kafka_time, rules
            )
        else:
            event_time = read_time("timestamp", timestamp, kafka_time, rules)
        if is_decoded:
            price = _usual_price(fields[_PRICE], rules.decimal_comma)
        else:
            price = _usual_price(bytes(fields[_PRICE]), rules.decimal_comma)
            text = bytes(properties)
            properties = None if text == b"null" else _decode(text)
        extra = None if properties is None else read_properties(properties, {})
    except (Rejection, TypeError):
        # The latter: a price that is an object or a list.
        return None
    quantity = fields[_QUANTITY]
    if (
        (fields[_PRODUCT_ID] is None and event_type in _PRODUCT_SAYS)
        or (fields[_USER_ID] is None and fields[_ANONYMOUS_ID] is None)
        or (quantity is not None and price is not None and price * quantity >= MAX_AMOUNT)
        or (fields[_EVENT_NAME] is None and event_type == "custom")
    ):
        return None
    fields[_PRICE] = price
    day = rules.clock.day_number(event_time)
    if ending and event_id is not None:
        event_id += ending
    return _event(event_type, event_id, event_time, day, fields, extra, place=place)


# Event types that a product makes what they are.
_PRODUCT_SAYS = TYPES_OF_PRODUCTS | {"view"}


# Typed: `true` is no price, and equals 1.
@lru_cache(maxsize=65_536, typed=True)
def _usual_price(sent: Any, decimal_comma: bool) -> Decimal | None:
    price, currency = read_price(_decode(sent) if type(sent) is bytes else sent, decimal_comma)
    if currency or (price and price < 0):
        raise Rejection("price", "unusual")
    return price


def _is_too_deep(value: bytes) -> bool:
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for (mark,) in (found.group()[:1] for found in _TEXT_OR_BRACKET.finditer(value)):
        depth += (mark in b"[{") - (mark in b"]}")
        if depth > MAX_DEPTH:
            return True
    return False


def _decode(text: bytes) -> Any:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        # Without a type to keep, this is an integer of more digits than Python reads.
        return _decoder.decode(_TEXT_OR_NUMBER.sub(_with_exponent, text))


def _with_exponent(found: re.Match[bytes]) -> bytes:
    """Return a long integer as a number that `_number` is asked to read, and anything else as it is."""
    token = found.group()
    return token + b"e0" if len(token) > _MOST_DIGITS and token.lstrip(b"-").isdigit() else token


def decode_payload(value: bytes) -> dict[str, Any]:
    """Read a record's value as a JSON object; numbers with a fraction are exact decimals.

    Raises:
        Rejection: it is no JSON, no object, too deep, or has a number that cannot be read.
    """
    value = without_header(value)
    try:
        payload = decode_any(value)
    except Rejection:
        if named := other_format(value):
            raise Rejection(None, *named) from None
        raise
    if not isinstance(payload, dict):
        raise Rejection(None, "not_an_object", payload)
    return payload


def decode_any(value: bytes) -> Any:
    """Read JSON; numbers with a fraction are exact decimals.

    Raises:
        Rejection: it is none, too deep, or has a number that cannot be read.
    """
    if _is_too_deep(value):
        raise Rejection(None, "not_json", f"more than {MAX_DEPTH} levels")
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejection(None, "not_json", str(error)) from None


def _any_event(
    item: Item, place: int, kafka_time: int, rules: ValidationRules, visitors: Sequence[str]
) -> Event:
    """Read an event field by field, whatever order they come in; those that are left are unknown."""
    payload, ending = item
    problems: dict[str, Rejection] = {}
    left = dict(payload)
    event_type = _event_type(left.pop("event_type", None))
    event_time = _time(left, kafka_time, rules)

    def read(name: str, reader: Callable[..., Any], *given: Any) -> Any:
        try:
            return reader(*given)
        except Rejection as rejection:
            problems[name] = rejection
            return None

    event_id = read("event_id", read_id, "event_id", left.pop("event_id", None), rules)
    if event_id is not None:
        event_id += ending
    values = {
        name: None
        if (given := left.pop(name, None)) is None
        else read(name, FIELDS[name].read, name, given, rules)
        for name in _NAMES
    }
    values["price"], named = values["price"] or (None, None)
    if named and values["currency"] not in (None, named):
        problems["price"] = Rejection("price", "other_currency", payload["price"])
        values["price"] = None
    values["currency"] = values["currency"] or named
    properties = read("properties", read_properties, left.pop("properties", None), left)
    if all(values[name] is None for name in visitors):
        raise next((problems[name] for name in visitors if name in problems), Rejection("user_id", "missing"))
    if values["product_id"] is None:
        if event_type in TYPES_OF_PRODUCTS:
            raise problems.get("product_id", Rejection("product_id", "missing"))
        if event_type == "view":
            event_type = "page_view"
    if event_type == "custom" and values["event_name"] is None:
        raise problems.get("event_name", Rejection("event_name", "missing"))
    event_type = _settle_amounts(event_type, values, payload, problems)
    noted = [problems[name] for name in sorted(problems)]
    fields = [values[name] for name in _NAMES]
    day = rules.clock.day_number(event_time)
    return _event(event_type, event_id, event_time, day, fields, properties, noted, place)


def _event_type(sent: Any) -> str:
    text = read_text("event_type", sent)
    if text is None:
        raise Rejection("event_type", "missing")
    event_type = _TYPE_AS_SENT.get(text) or _TYPE_AS_SENT.get(re.sub(r"[\s-]+", "_", text.lower()))
    if event_type is None:
        raise Rejection("event_type", "unknown", sent)
    return event_type


def _time(left: dict[str, Any], kafka_time: int, rules: ValidationRules) -> int:
    name = next((field for field in TIMESTAMP_FIELDS if left.get(field) not in (None, "")), None)
    if name is None:
        raise Rejection("timestamp", "missing")
    return read_time(name, left.pop(name), kafka_time, rules)


def _settle_amounts(
    event_type: str, values: dict[str, Any], payload: dict[str, Any], problems: dict[str, Rejection]
) -> str:
    """Return the type of an event, and leave out amounts that are none, of which money that was paid must not be.

    A purchase of a negative price, or of negative units, is a refund.
    """
    price, quantity = values["price"], values["quantity"]
    negative = [name for name in ("price", "quantity") if values[name] is not None and values[name] < 0]
    if event_type == "refund" or (event_type == "purchase" and len(negative) == 1):
        event_type = "refund" if negative else event_type
        for name in negative:
            values[name] = abs(values[name])
    else:
        problems |= {name: Rejection(name, "out_of_range", payload[name]) for name in negative}
    if price is not None and quantity is not None and abs(price * quantity) >= MAX_AMOUNT:
        problems["price"] = Rejection("price", "out_of_range", f"{price:f} times quantity {quantity}")
    for name in ("price", "quantity"):
        if name in problems:
            if event_type in MONEY_TYPES:
                raise problems[name]
            values[name] = None
    return event_type


def _event(
    event_type: str,
    event_id: str | None,
    event_time: int,
    event_date: int,
    fields: list[Any],
    properties: str | None,
    problems: Sequence[Rejection] = (),
    place: int = 1,
) -> Event:
    """Make an event of its fields, in the order of EVENT_FIELDS."""
    body = (event_type, event_time, event_date, *fields, properties)
    # Canonical: field order, spelling of the type, zone of the time and writing of numbers do not matter. By name and
    # without nulls, so that a field which is added to the contract changes no hash of events that lack it.
    payload_hash = blake2b(
        encoder.encode(_Body(*body, place if place > 1 else None)), digest_size=16
    ).hexdigest()
    user_agent = fields[_USER_AGENT]
    is_bot = user_agent is not None and is_robot(user_agent)
    noted = [(problem.field, problem.rule, problem.shown) for problem in problems] if problems else None
    return Event._make((event_id or payload_hash, *body, noted, is_bot, payload_hash))


@contextmanager
def _collector_off() -> Iterator[None]:
    """Spare the search for cycles among hundreds of thousands of tuples that have none: 30 % of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse_batches(
    batches: Iterator[pa.RecordBatch], rules: ValidationRules, keep_bytes: bool = True
) -> Iterator[pa.RecordBatch]:
    """Validate each raw record by itself.

    By rules with pseudonyms, what is needed no more after that is left out: bytes, user agents, and values of fields
    that cannot be read.

    Args:
        batches: RAW_EVENTS rows.
        rules: the rules to read by, those of each topic, and the bounds to keep.
        keep_bytes: whether valid events keep their record's key and value too. They are half of what there is to
            carry between processes, and `classify` needs those of rejected records alone.

    Yields:
        PARSED rows, one per record, or per item of one.
    """
    for batch in batches:
        if not batch.num_rows:
            continue
        with _collector_off():
            events, rejections, several = _judge(batch, rules)
            places = [pa.repeat(pa.scalar(1, field.type), len(events)) for field in _PLACE_COLUMNS]
            if several:
                rows, *places = _places(batch.num_rows, several)
                batch = batch.take(rows)
            columns = [batch.column(field.name) for field in _RECORD_COLUMNS]
            if not keep_bytes:
                is_event = pa.array([event is not _NO_EVENT for event in events])
                columns = [_without_bytes(column, is_event) for column in columns]
            columns.extend(places)
            for found, fields in ((events, _EVENT_COLUMNS), (rejections, _REJECTION_COLUMNS)):
                columns.extend(pa.array(found, pa.struct(fields)).flatten())
        if rules.pseudonyms:
            columns = [_needed(name, column) for name, column in zip(PARSED.names, columns, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=PARSED)


def _needed(name: str, column: pa.Array) -> pa.Array:
    """Return a column of PARSED rows as those have it who do not want to know persons."""
    if name in ("key", "value", "rejected_value", "user_agent"):
        return pa.nulls(len(column), column.type)
    return without_values(column) if name == "field_problems" else column


def without_values(problems: pa.Array) -> pa.Array:
    """Return `field_problems` without the values: the fields, and the rules that they break."""
    noted = problems.values
    value_type = problems.type.value_type
    parts = [noted.field("field"), noted.field("rule"), pa.nulls(len(noted), pa.string())]
    values = pa.StructArray.from_arrays(parts, fields=list(value_type))
    return pa.ListArray.from_arrays(problems.offsets, values, type=problems.type, mask=pc.is_null(problems))


def _without_bytes(column: pa.Array, where: pa.Array) -> pa.Array:
    if not pa.types.is_binary(column.type):
        return column
    # `if_else` would leave the bytes in the array, behind the nulls.
    return pc.replace_with_mask(column, where, pa.scalar(None, column.type))


_NO_EVENT = (None,) * len(_EVENT_COLUMNS)
_NO_REJECTION = (None,) * len(_REJECTION_COLUMNS)


def _judge(
    batch: pa.RecordBatch, rules: ValidationRules
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], dict[int, int]]:
    """Return an event and a rejection for each item of each record, one of them empty; and how many items a record has.

    The last is by the record's row, for those that have not one.
    """
    events: list[tuple[Any, ...]] = []
    rejections: list[tuple[Any, ...]] = []
    several: dict[int, int] = {}
    values = batch.column("value").to_pylist()
    times = batch.column("kafka_time").cast("int64").to_pylist()
    for row, (value, kafka_time, own_rules) in enumerate(
        zip(values, times, _rules_by_topic(batch.column("topic"), rules), strict=True)
    ):
        found = parse_record(value, kafka_time, own_rules)
        if len(found) != 1:
            several[row] = len(found)
        for one in found:
            if isinstance(one, Rejection):
                events.append(_NO_EVENT)
                rejections.append((one.field, one.rule, one.shown))
            else:
                events.append(one)
                rejections.append(_NO_REJECTION)
    return events, rejections, several


def _rules_by_topic(topics: pa.Array, rules: ValidationRules) -> Iterable[ValidationRules]:
    """Return the rules of each record; most batches are of one topic."""
    first, *others = pc.unique(topics).to_pylist()
    if not others:
        return repeat(rules.of_topic(first), len(topics))
    of_topic = {topic: rules.of_topic(topic) for topic in (first, *others)}
    return map(of_topic.__getitem__, topics.to_pylist())


def _places(records: int, several: Mapping[int, int]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return for each item the row of its record, its place there, and how many there are."""
    counts = np.ones(records, np.int32)
    counts[list(several)] = list(several.values())
    rows = np.repeat(np.arange(records), counts)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    places = (np.arange(len(rows)) - firsts + 1).astype(np.int32)
    return pa.array(rows), pa.array(places), pa.array(np.repeat(counts, counts))
