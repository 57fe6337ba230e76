"""From the bytes of a record to an event, or to the field and the rule that it breaks.

`parse_batches` validates each record by itself, as a Python function over Arrow batches: in batch and stream the same.
"""

import gc
import re
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from crawlerdetect import CrawlerDetect

from clickstream_assets.catalogue import (
    EVENT_FIELDS,
    EVENT_TYPES,
    EVENTS,
    OTHER_SPELLINGS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    STRING,
    TYPES_WITHOUT_PRODUCT,
    Column,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.catalogue.units import DAY, EPOCH, MICROSECOND, SECOND
from clickstream_assets.settings import Settings

_TYPE_AS_SENT = OTHER_SPELLINGS | {name: name for name in EVENT_TYPES}
# One of the older projects also writes event_timestamp.
TIMESTAMP_FIELDS = ("timestamp", "event_timestamp")
# An id this long is no id; PostgreSQL cannot index much longer ones (2,704 bytes).
MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 4096
MAX_QUANTITY = 1_000_000_000
# Of price times quantity. Amounts and their sums are decimals of 14 digits before the point: 10,000 events at the bound
# still have a sum.
MAX_AMOUNT = Decimal(10) ** 10
# Of objects and lists in each other. JSON leaves the limit to its reader; ours is far below Python's, which moves with
# the caller's stack, so that batch and stream agree.
MAX_DEPTH = 100
BEFORE_START = "before_events_start_date"
"""Rule that an event before EVENTS_START_DATE breaks."""
# A time that is a number is in seconds since 1970, as Python's is, or from here on in milliseconds, as JavaScript's.
_LATEST_SECONDS = 10**11
_LATEST_MILLISECONDS = 10**14
_CENTS = Decimal("0.0001")


@dataclass(frozen=True)
class ValidationRules:
    """Bounds that a valid event keeps, in microseconds, `earliest` since 1970; and the shop's time zone."""

    earliest: int
    max_clock_skew: int
    max_event_bytes: int
    max_age: int | None = None
    time_zone: str = "UTC"

    @cached_property
    def clock(self) -> ShopClock:
        """The clock that times without an offset are read by, and days."""
        return ShopClock(self.time_zone)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the bounds from the settings; without EVENTS_START_DATE no event is too early."""
        clock = ShopClock(settings.shop_time_zone)
        return cls(
            earliest=clock.begin_us(settings.events_start_date or date.min),
            max_clock_skew=settings.max_clock_skew_seconds * SECOND,
            max_event_bytes=settings.max_event_bytes,
            max_age=settings.max_event_age_days and settings.max_event_age_days * DAY,
            time_zone=clock.zone,
        )


class Rejection(Exception):
    """A record is no valid event: the field, the rule that it breaks, and the value."""

    def __init__(self, field: str | None, rule: str, value: Any = None) -> None:
        super().__init__(field, rule, value)
        self.field = field
        self.rule = rule
        self.value = value


_RECORD_COLUMNS = list(RAW_EVENTS.arrow)
_EVENT_COLUMNS = [
    field.with_nullable(True) for field in EVENTS.arrow if field.name not in RAW_EVENTS.arrow.names
]
_REJECTION_COLUMNS = [REJECTED_EVENTS.arrow.field(name) for name in ("field", "rule", "rejected_value")]
PARSED = pa.schema(
    [field.with_nullable(True) for field in (*_RECORD_COLUMNS, *_EVENT_COLUMNS, *_REJECTION_COLUMNS)]
)
"""Rows of `parse_batches`: the record, then the event's columns or, where `rule` is set, the rejection."""

# A valid event's own columns, in the order of the table.
Event: Any = namedtuple("Event", [field.name for field in _EVENT_COLUMNS])  # type: ignore[misc]

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_LongText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)]


def _number(text: str) -> Decimal:
    """Read a number with a fraction or an exponent, which JSON lets be of any size and Python does not."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Rejection(None, "number_out_of_range", text) from None


_decoder = msgspec.json.Decoder(float_hook=_number)
_encoder = msgspec.json.Encoder(decimal_format="number", order="sorted")
_crawlers = CrawlerDetect()
_CURRENCY = re.compile("[A-Z]{3}")
# One byte is looked for in a fifth of the time of six, and few values have it.
_BACKSLASH = ord("\\")
# A text, which may lack its end, or a bracket outside of one.
_TEXT_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@lru_cache(maxsize=65_536)
def is_robot(user_agent: str) -> bool:
    """Return whether a user agent is a known crawler's or a program's."""
    return _crawlers.isCrawler(user_agent)


def _is_given(name: str, value: Any) -> bool:
    """Return whether there is a text or a number; empty text is none."""
    if value is None or value == "":
        return False
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Rejection(name, "wrong_type", value)
    return True


def _text(name: str, value: Any, limit: int = MAX_ID_LENGTH) -> str | None:
    if not _is_given(name, value):
        return None
    value = str(value)
    if len(value) > limit:
        raise Rejection(name, "too_long", value)
    if "\x00" in value:
        raise Rejection(name, "nul_character", value)
    return value


_long_text = partial(_text, limit=MAX_TEXT_LENGTH)


def _required(name: str, value: Any) -> str:
    text = _text(name, value)
    if text is None:
        raise Rejection(name, "missing")
    return text


def _time(payload: dict[str, Any], kafka_time: int, rules: ValidationRules) -> int:
    name = next((field for field in TIMESTAMP_FIELDS if payload.get(field) not in (None, "")), None)
    if name is None:
        raise Rejection("timestamp", "missing")
    value = payload.pop(name)
    if isinstance(value, str):
        return _microseconds(name, value, kafka_time, rules)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Rejection(name, "wrong_type", value)
    number = Decimal(value)
    # Before any arithmetic, which an exponent may be too large for.
    if not -_LATEST_MILLISECONDS < number < _LATEST_MILLISECONDS:
        raise Rejection(name, BEFORE_START if number < 0 else "in_the_future", value)
    unit = SECOND if abs(number) < _LATEST_SECONDS else SECOND // 1000
    return _in_bounds(name, value, int(number * unit), kafka_time, rules)


def _microseconds(name: str, value: str, kafka_time: int, rules: ValidationRules) -> int:
    try:
        # A bare date is ISO 8601 too, but no moment.
        moment = datetime.fromisoformat(value) if len(value) > 10 else None
        if moment is None:
            raise Rejection(name, "not_iso_8601", value)
        # Without an offset it is what the shop's clocks show.
        since_epoch = (moment.replace(tzinfo=rules.clock.tzinfo) if moment.tzinfo is None else moment) - EPOCH
    except ValueError:
        raise Rejection(name, "not_iso_8601", value) from None
    return _in_bounds(name, value, since_epoch // MICROSECOND, kafka_time, rules)


def _in_bounds(name: str, value: Any, microseconds: int, kafka_time: int, rules: ValidationRules) -> int:
    if microseconds < rules.earliest:
        raise Rejection(name, BEFORE_START, value)
    if microseconds > kafka_time + rules.max_clock_skew:
        raise Rejection(name, "in_the_future", value)
    if rules.max_age and microseconds < kafka_time - rules.max_age:
        raise Rejection(name, "too_old", value)
    return microseconds


def _price(name: str, value: Any) -> Decimal | None:
    if not _is_given(name, value):
        return None
    try:
        price = Decimal(value)
        if not 0 <= price < MAX_AMOUNT:
            raise Rejection(name, "out_of_range", value)
        return price.quantize(_CENTS)
    except InvalidOperation:
        raise Rejection(name, "not_a_number", value) from None


@lru_cache(maxsize=65_536)
def _price_of(text: bytes) -> Decimal | None:
    return _price("price", _decode(text))


def _quantity(name: str, value: Any) -> int | None:
    if not _is_given(name, value):
        return None
    try:
        quantity = Decimal(value)
        if quantity != quantity.to_integral_value():
            raise Rejection(name, "not_an_integer", value)
    except InvalidOperation:
        raise Rejection(name, "not_an_integer", value) from None
    if not 1 <= quantity <= MAX_QUANTITY:
        raise Rejection(name, "out_of_range", value)
    return int(quantity)


def _currency(name: str, value: Any) -> str | None:
    text = _text(name, value)
    if text is not None and not _CURRENCY.fullmatch(text):
        raise Rejection(name, "not_iso_4217", text)
    return text


def _consent(name: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise Rejection(name, "wrong_type", value)
    return value


def _properties(given: Any, unknown: dict[str, Any]) -> str | None:
    if given is not None and not isinstance(given, dict):
        raise Rejection("properties", "wrong_type", given)
    properties = {**unknown, **(given or {})}
    if not properties:
        return None
    text = _encoder.encode(properties).decode()
    if "\\u0000" in text:
        raise Rejection("properties", "nul_character", text)
    return text


class _Field(NamedTuple):
    """Reading of one field of an event.

    Attributes:
        usual: its type as most senders write it, which msgspec checks while it decodes.
        read: reads any other way of writing it, and rejects what is none.
    """

    usual: Any
    read: Callable[[str, Any], Any]


_ID = _Field(_Id, _text)
_FIELDS = {column.name: _ID for column in EVENT_FIELDS if column.type == STRING} | {
    "user_id": _Field(_Id, _required),
    "price": _Field(msgspec.Raw, _price),
    "currency": _Field(Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")], _currency),
    "quantity": _Field(Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)], _quantity),
    "query": _Field(_LongText, _long_text),
    "user_agent": _Field(_LongText, _long_text),
    "consent": _Field(bool, _consent),
}
"""Fields by their names: one of another kind than an id needs a line here, an id only its column."""
_NAMES = [column.name for column in EVENT_FIELDS]
_PRODUCT_ID, _PRICE, _QUANTITY, _USER_AGENT = map(
    _NAMES.index, ("product_id", "price", "quantity", "user_agent")
)
_Body = msgspec.defstruct(
    "_Body",
    [(name, Any, None) for name in ("event_type", "event_time", "event_date", *_NAMES, "properties")],
    omit_defaults=True,
    gc=False,
)
_NULL = msgspec.Raw(b"null")


def _usual_field(column: Column) -> tuple[str, Any] | tuple[str, Any, Any]:
    usual = _FIELDS[column.name].usual
    if not column.nullable:
        return column.name, usual
    return (column.name, usual, _NULL) if usual is msgspec.Raw else (column.name, usual | None, None)


# An event written as most are: ids and texts as text, nothing empty, nothing unknown.
_Usual = msgspec.defstruct(
    "_Usual",
    [
        ("event_type", _Id),
        ("timestamp", str),
        ("event_id", _Id | None, None),
        ("properties", msgspec.Raw, _NULL),
        *map(_usual_field, EVENT_FIELDS),
    ],
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_usual_decoder = msgspec.json.Decoder(_Usual)


def parse_event(value: bytes | None, kafka_time: int, rules: ValidationRules) -> Event:
    """Read one record's value as an event.

    Args:
        value: the bytes of a JSON object, as the README's section on events describes it.
        kafka_time: the record's timestamp, microseconds since 1970; an event cannot be much later.
        rules: the bounds to keep.

    Raises:
        Rejection: with the field, the rule it breaks and its value.
    """
    if value is None:
        raise Rejection(None, "tombstone")
    if len(value) > rules.max_event_bytes:
        raise Rejection(None, "too_large", f"{len(value)} bytes")
    if not _is_too_deep(value) and (_BACKSLASH not in value or b"\\u0000" not in value):
        # Checked while it is decoded, in C: a quarter of the time. A value that does not fit need not be wrong.
        try:
            usual = _usual_decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        else:
            return _usual_event(usual, kafka_time, rules)
    return _any_event(value, kafka_time, rules)


def _usual_event(sent: Any, kafka_time: int, rules: ValidationRules) -> Event:
    event_type, timestamp, event_id, properties, *fields = msgspec.structs.astuple(sent)
    event_time = _microseconds("timestamp", timestamp, kafka_time, rules)
    fields[_PRICE] = _price_of(bytes(fields[_PRICE]))
    text = bytes(properties)
    return _event(
        event_type,
        event_id,
        event_time,
        rules.clock.day_number(event_time),
        fields,
        None if text == b"null" else _properties(_decode(text), {}),
    )


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
    except msgspec.ValidationError as error:
        # Without a type to keep, this is an integer of more digits than Python reads.
        raise Rejection(None, "number_out_of_range", str(error)) from None


def decode_payload(value: bytes) -> dict[str, Any]:
    """Read a record's value as a JSON object; numbers with a fraction are exact decimals.

    Raises:
        Rejection: it is no JSON, no object, too deep, or has a number that cannot be read.
    """
    if _is_too_deep(value):
        raise Rejection(None, "not_json", f"more than {MAX_DEPTH} levels")
    try:
        payload = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejection(None, "not_json", str(error)) from None
    if not isinstance(payload, dict):
        raise Rejection(None, "not_an_object", payload)
    return payload


def _any_event(value: bytes, kafka_time: int, rules: ValidationRules) -> Event:
    payload = decode_payload(value)
    event_type = _required("event_type", payload.pop("event_type", None))
    event_id = _text("event_id", payload.pop("event_id", None))
    user_id = _required("user_id", payload.pop("user_id", None))
    event_time = _time(payload, kafka_time, rules)
    given = {"user_id": user_id} | {name: payload.pop(name, None) for name in _NAMES if name != "user_id"}
    fields = [_FIELDS[name].read(name, given[name]) for name in _NAMES]
    # The fields that are left in the payload are unknown.
    properties = _properties(payload.pop("properties", None), payload)
    return _event(event_type, event_id, event_time, rules.clock.day_number(event_time), fields, properties)


def _event(
    sent_type: str,
    event_id: str | None,
    event_time: int,
    event_date: int,
    fields: list[Any],
    properties: str | None,
) -> Event:
    """Make an event of its fields, in the order of EVENT_FIELDS."""
    event_type = _TYPE_AS_SENT.get(sent_type)
    if event_type is None:
        raise Rejection("event_type", "unknown", sent_type)
    if fields[_PRODUCT_ID] is None and event_type not in TYPES_WITHOUT_PRODUCT:
        raise Rejection("product_id", "missing")
    price, quantity, user_agent = fields[_PRICE], fields[_QUANTITY], fields[_USER_AGENT]
    if price is not None and quantity is not None and price * quantity >= MAX_AMOUNT:
        raise Rejection("price", "out_of_range", f"{price:f} times quantity {quantity}")
    body = (event_type, event_time, event_date, *fields, properties)
    # Canonical: field order, spelling of the type, zone of the time and writing of numbers do not matter. By name and
    # without nulls, so that a field which is added to the contract changes no hash of events that lack it.
    payload_hash = blake2b(_encoder.encode(_Body(*body)), digest_size=16).hexdigest()
    is_bot = user_agent is not None and is_robot(user_agent)
    return Event._make((event_id or payload_hash, *body, is_bot, payload_hash))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    return text.replace("\x00", "\ufffd")[:200]


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

    Args:
        batches: RAW_EVENTS rows.
        rules: the bounds to keep.
        keep_bytes: whether valid events keep their record's key and value too. They are half of what there is to
            carry between processes, and `classify` needs those of rejected records alone.

    Yields:
        PARSED rows, one per record.
    """
    for batch in batches:
        if not batch.num_rows:
            continue
        with _collector_off():
            events, rejections = _validate(batch, rules)
            columns = [batch.column(field.name) for field in _RECORD_COLUMNS]
            if not keep_bytes:
                is_event = pa.array([event is not _NO_EVENT for event in events])
                columns = [_without_bytes(column, is_event) for column in columns]
            for rows, fields in ((events, _EVENT_COLUMNS), (rejections, _REJECTION_COLUMNS)):
                columns.extend(pa.array(rows, pa.struct(fields)).flatten())
        yield pa.RecordBatch.from_arrays(columns, schema=PARSED)


def _without_bytes(column: pa.Array, where: pa.Array) -> pa.Array:
    if not pa.types.is_binary(column.type):
        return column
    # `if_else` would leave the bytes in the array, behind the nulls.
    return pc.replace_with_mask(column, where, pa.scalar(None, column.type))


_NO_EVENT = (None,) * len(_EVENT_COLUMNS)
_NO_REJECTION = (None,) * len(_REJECTION_COLUMNS)


def _validate(
    batch: pa.RecordBatch, rules: ValidationRules
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return an event and a rejection for each record, one of them empty."""
    events: list[tuple[Any, ...]] = []
    rejections: list[tuple[Any, ...]] = []
    for value, kafka_time in zip(
        batch.column("value").to_pylist(), batch.column("kafka_time").cast("int64").to_pylist(), strict=True
    ):
        try:
            events.append(parse_event(value, kafka_time, rules))
            rejections.append(_NO_REJECTION)
        except Rejection as rejection:
            events.append(_NO_EVENT)
            rejections.append((rejection.field, rejection.rule, _shown(rejection.value)))
    return events, rejections
