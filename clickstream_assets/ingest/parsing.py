"""From a Kafka record to exactly one of: event, duplicate, conflict, rejected record.

`parse_batches` judges each record by itself (a Python function over Arrow batches); `find_repetitions` tells the
first of an event from its repetitions, and `place` puts each record into its table (DataFrames). All are
deterministic: the same records in the same ingest batches end in the same places, however often and on whichever
engine they are worked on.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from crawlerdetect import CrawlerDetect

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
)
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of
from clickstream_assets.settings import Settings

EVENT_TYPES = {
    "view": "view",
    "click": "click",
    "add_to_cart": "add_to_cart",
    "cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "purchase": "purchase",
    "search": "search",
}
# One of the older projects also writes event_timestamp.
TIMESTAMP_FIELDS = ("timestamp", "event_timestamp")
# An id this long is no id; PostgreSQL cannot index much longer ones (2,704 bytes).
MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 4096
MAX_QUANTITY = 1_000_000_000
# Of price times quantity. Amounts and their sums are decimals of 14 digits before the point: 10,000 events at the bound
# still have a sum.
MAX_AMOUNT = Decimal(10) ** 10
# A time that is a number is in seconds since 1970, as Python's is, or from here on in milliseconds, as JavaScript's.
_LATEST_SECONDS = 10**11
_LATEST_MILLISECONDS = 10**14
_CENTS = Decimal("0.0001")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Rules:
    """Bounds that a valid event keeps; times in microseconds, `earliest` since 1970 in UTC."""

    earliest: int
    max_clock_skew: int
    max_event_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the bounds from the settings."""
        start = datetime.combine(settings.events_start_date, time.min, UTC)
        return cls(
            earliest=(start - _EPOCH) // _MICROSECOND,
            max_clock_skew=settings.max_clock_skew_seconds * 1_000_000,
            max_event_bytes=settings.max_event_bytes,
        )


class Rejection(Exception):
    """A record is no valid event: which field, which rule, and the value."""

    def __init__(self, field: str | None, rule: str, value: Any = None) -> None:
        super().__init__(field, rule, value)
        self.field = field
        self.rule = rule
        self.value = value


class Event(NamedTuple):
    """A valid event's own columns, in the order of the `events` table up to `payload_hash`."""

    event_id: str
    event_type: str
    event_time: int
    event_date: int
    user_id: str
    session_id: str | None
    product_id: str | None
    product_category: str | None
    brand: str | None
    price: Decimal | None
    currency: str | None
    quantity: int | None
    order_id: str | None
    query: str | None
    user_agent: str | None
    campaign: str | None
    consent: bool | None
    properties: str | None
    is_bot: bool
    payload_hash: str


_EVENT_FIELDS = [field.with_nullable(True) for field in EVENTS.arrow if field.name in Event._fields]
_RECORD_FIELDS = list(RAW_EVENTS.arrow)
_REJECTION_FIELDS = [REJECTED_EVENTS.arrow.field(name) for name in ("field", "rule", "rejected_value")]
PARSED = pa.schema(
    [field.with_nullable(True) for field in (*_RECORD_FIELDS, *_EVENT_FIELDS, *_REJECTION_FIELDS)]
)
"""What `parse_batches` returns: the record, then the event's columns or, where `rule` is set, the rejection."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_LongText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)]


class _Usual(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event written as most are: ids and texts as text, nothing empty, nothing unknown."""

    event_type: _Id
    user_id: _Id
    timestamp: str
    event_id: _Id | None = None
    session_id: _Id | None = None
    product_id: _Id | None = None
    product_category: _Id | None = None
    brand: _Id | None = None
    price: msgspec.Raw = msgspec.Raw(b"null")
    currency: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")] | None = None
    quantity: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)] | None = None
    order_id: _Id | None = None
    query: _LongText | None = None
    user_agent: _LongText | None = None
    campaign: _Id | None = None
    consent: bool | None = None
    properties: msgspec.Raw = msgspec.Raw(b"null")


_usual_decoder = msgspec.json.Decoder(_Usual)
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number", order="sorted")
_crawlers = CrawlerDetect()
_CURRENCY = re.compile("[A-Z]{3}")
# One byte is looked for in a fifth of the time of six, and few values have it.
_BACKSLASH = ord("\\")


@lru_cache(maxsize=65_536)
def is_robot(user_agent: str) -> bool:
    """Tell whether a user agent is a known crawler's or a program's."""
    return _crawlers.isCrawler(user_agent)


def _text(payload: dict[str, Any], name: str, limit: int) -> str | None:
    value = payload.pop(name, None)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise Rejection(name, "wrong_type", value)
        value = str(value)
    if len(value) > limit:
        raise Rejection(name, "too_long", value)
    if "\x00" in value:
        raise Rejection(name, "nul_character", value)
    return value


def _required(payload: dict[str, Any], name: str) -> str:
    value = _text(payload, name, MAX_ID_LENGTH)
    if value is None:
        raise Rejection(name, "missing")
    return value


def _time(payload: dict[str, Any], kafka_time: int, rules: Rules) -> int:
    name = next((field for field in TIMESTAMP_FIELDS if payload.get(field) not in (None, "")), None)
    if name is None:
        raise Rejection("timestamp", "missing")
    value = payload.pop(name)
    if isinstance(value, str):
        return _microseconds(name, value, kafka_time, rules)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Rejection(name, "wrong_type", value)
    number = Decimal(value)
    # Before it is multiplied out: it may have an exponent of any size.
    if abs(number) >= _LATEST_MILLISECONDS:
        raise Rejection(name, "before_start_date" if number < 0 else "in_the_future", value)
    unit = 1_000_000 if abs(number) < _LATEST_SECONDS else 1_000
    return _in_bounds(name, value, int(number * unit), kafka_time, rules)


def _microseconds(name: str, value: str, kafka_time: int, rules: Rules) -> int:
    try:
        # A bare date is ISO 8601 too, but no moment.
        moment = datetime.fromisoformat(value) if len(value) > 10 else None
        if moment is None:
            raise Rejection(name, "not_iso_8601", value)
        # Without an offset it is UTC.
        since_epoch = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment) - _EPOCH
    except ValueError:
        raise Rejection(name, "not_iso_8601", value) from None
    return _in_bounds(name, value, since_epoch // _MICROSECOND, kafka_time, rules)


def _in_bounds(name: str, value: Any, microseconds: int, kafka_time: int, rules: Rules) -> int:
    if microseconds < rules.earliest:
        raise Rejection(name, "before_start_date", value)
    if microseconds > kafka_time + rules.max_clock_skew:
        raise Rejection(name, "in_the_future", value)
    return microseconds


def _price(value: Any) -> Decimal | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise Rejection("price", "wrong_type", value)
    try:
        price = Decimal(value)
        if not 0 <= price < MAX_AMOUNT:
            raise Rejection("price", "out_of_range", value)
        return price.quantize(_CENTS)
    except InvalidOperation:
        raise Rejection("price", "not_a_number", value) from None


@lru_cache(maxsize=65_536)
def _price_of(text: bytes) -> Decimal | None:
    return _price(_decoder.decode(text))


def _quantity(payload: dict[str, Any]) -> int | None:
    value = payload.pop("quantity", None)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise Rejection("quantity", "wrong_type", value)
    try:
        quantity = Decimal(value)
        if quantity != quantity.to_integral_value():
            raise Rejection("quantity", "not_an_integer", value)
    except InvalidOperation:
        raise Rejection("quantity", "not_an_integer", value) from None
    if not 1 <= quantity <= MAX_QUANTITY:
        raise Rejection("quantity", "out_of_range", value)
    return int(quantity)


def _currency(payload: dict[str, Any]) -> str | None:
    value = _text(payload, "currency", MAX_ID_LENGTH)
    if value is not None and not _CURRENCY.fullmatch(value):
        raise Rejection("currency", "not_iso_4217", value)
    return value


def _consent(payload: dict[str, Any]) -> bool | None:
    value = payload.pop("consent", None)
    if value is not None and not isinstance(value, bool):
        raise Rejection("consent", "wrong_type", value)
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


def parse_event(value: bytes | None, kafka_time: int, rules: Rules) -> Event:
    """Read one record's value as an event.

    Args:
        value: the bytes of a JSON object, as described in the README's event contract.
        kafka_time: the record's timestamp, microseconds since 1970; an event cannot be much later.
        rules: the bounds to keep.

    Raises:
        Rejection: with the field, the rule it breaks and its value.
    """
    if value is None:
        raise Rejection(None, "tombstone")
    if len(value) > rules.max_event_bytes:
        raise Rejection(None, "too_large", f"{len(value)} bytes")
    if _BACKSLASH not in value or b"\\u0000" not in value:
        # Checked while it is decoded, in C: a quarter of the time. What does not fit need not be wrong.
        try:
            usual = _usual_decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return _usual_event(usual, kafka_time, rules)
    return _any_event(value, kafka_time, rules)


def _usual_event(sent: _Usual, kafka_time: int, rules: Rules) -> Event:
    properties = bytes(sent.properties)
    return _event(
        sent.event_type,
        sent.event_id,
        _microseconds("timestamp", sent.timestamp, kafka_time, rules),
        sent.user_id,
        sent.session_id,
        sent.product_id,
        sent.product_category,
        sent.brand,
        _price_of(bytes(sent.price)),
        sent.currency,
        sent.quantity,
        sent.order_id,
        sent.query,
        sent.user_agent,
        sent.campaign,
        sent.consent,
        None if properties == b"null" else _properties(_decoder.decode(properties), {}),
    )


def decode_payload(value: bytes) -> dict[str, Any]:
    """Read a record's value as a JSON object; numbers with a fraction are exact decimals.

    Raises:
        Rejection: it is no JSON, or no object.
    """
    try:
        payload = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidOperation) as error:
        raise Rejection(None, "not_json", str(error)) from None
    if not isinstance(payload, dict):
        raise Rejection(None, "not_an_object", payload)
    return payload


def _any_event(value: bytes, kafka_time: int, rules: Rules) -> Event:
    payload = decode_payload(value)
    return _event(
        _required(payload, "event_type"),
        _text(payload, "event_id", MAX_ID_LENGTH),
        user_id=_required(payload, "user_id"),
        event_time=_time(payload, kafka_time, rules),
        session_id=_text(payload, "session_id", MAX_ID_LENGTH),
        product_id=_text(payload, "product_id", MAX_ID_LENGTH),
        product_category=_text(payload, "product_category", MAX_ID_LENGTH),
        brand=_text(payload, "brand", MAX_ID_LENGTH),
        price=_price(payload.pop("price", None)),
        currency=_currency(payload),
        quantity=_quantity(payload),
        order_id=_text(payload, "order_id", MAX_ID_LENGTH),
        query=_text(payload, "query", MAX_TEXT_LENGTH),
        user_agent=_text(payload, "user_agent", MAX_TEXT_LENGTH),
        campaign=_text(payload, "campaign", MAX_ID_LENGTH),
        consent=_consent(payload),
        # What is left of the payload is fields that the contract does not know.
        properties=_properties(payload.pop("properties", None), payload),
    )


def _event(
    sent_type: str,
    event_id: str | None,
    event_time: int,
    user_id: str,
    session_id: str | None,
    product_id: str | None,
    product_category: str | None,
    brand: str | None,
    price: Decimal | None,
    currency: str | None,
    quantity: int | None,
    order_id: str | None,
    query: str | None,
    user_agent: str | None,
    campaign: str | None,
    consent: bool | None,
    properties: str | None,
) -> Event:
    event_type = EVENT_TYPES.get(sent_type)
    if event_type is None:
        raise Rejection("event_type", "unknown", sent_type)
    if product_id is None and event_type != "search":
        raise Rejection("product_id", "missing")
    if price is not None and quantity is not None and price * quantity >= MAX_AMOUNT:
        raise Rejection("price", "out_of_range", f"{price:f} times quantity {quantity}")
    body = (
        event_type,
        event_time,
        event_time // 86_400_000_000,
        user_id,
        session_id,
        product_id,
        product_category,
        brand,
        price,
        currency,
        quantity,
        order_id,
        query,
        user_agent,
        campaign,
        consent,
        properties,
    )
    # Canonical: field order, spelling of the type, zone of the time and writing of numbers do not matter.
    payload_hash = blake2b(_encoder.encode(body), digest_size=16).hexdigest()
    return Event(
        event_id or payload_hash, *body, user_agent is not None and is_robot(user_agent), payload_hash
    )


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
    batches: Iterator[pa.RecordBatch], rules: Rules, keep_bytes: bool = True
) -> Iterator[pa.RecordBatch]:
    """Judge each raw record by itself.

    Args:
        batches: RAW_EVENTS rows.
        rules: the bounds to keep.
        keep_bytes: whether valid events keep their record's key and value too. They are half of what there is to
            carry between processes, and what `place` makes of events has no use for them.

    Yields:
        PARSED rows, one per record.
    """
    for batch in batches:
        if not batch.num_rows:
            continue
        with _collector_off():
            events, rejections = _judge(batch, rules)
            columns = [batch.column(field.name) for field in _RECORD_FIELDS]
            if not keep_bytes:
                is_event = pa.array([event is not _NO_EVENT for event in events])
                columns = [_without_bytes(column, is_event) for column in columns]
            for rows, fields in ((events, _EVENT_FIELDS), (rejections, _REJECTION_FIELDS)):
                columns.extend(pa.array(rows, pa.struct(fields)).flatten())
        yield pa.RecordBatch.from_arrays(columns, schema=PARSED)


def _without_bytes(column: pa.Array, where: pa.Array) -> pa.Array:
    if not pa.types.is_binary(column.type):
        return column
    # `if_else` would leave the bytes in the array, behind the nulls.
    return pc.replace_with_mask(column, where, pa.scalar(None, column.type))


_NO_EVENT = (None,) * len(_EVENT_FIELDS)
_NO_REJECTION = (None,) * len(_REJECTION_FIELDS)


def _judge(batch: pa.RecordBatch, rules: Rules) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
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


RECORD_ORDER = ("topic", "partition", "offset")
_RECORD = ("event_id", "payload_hash", *RECORD_ORDER)
_LINE = ("order_id", "product_id", "line_quantity", "line_price")
_SENT_LINE = ("event_type", "order_id", "product_id", "quantity", "price")

REPETITIONS = pa.schema(
    [
        *(RAW_EVENTS.arrow.field(name) for name in RECORD_ORDER),
        DUPLICATE_EVENTS.arrow.field("reason"),
        *(
            CONFLICTING_EVENTS.arrow.field(f"first_{name}")
            for name in ("payload_hash", "topic", "partition", "offset")
        ),
    ]
)
"""A record that is no new event: which it is, why, and the record that came first."""


def find_repetitions(
    engine: Engine, parsed: DataFrame, events_before: DataFrame, duplicates_before: DataFrame
) -> pa.Table:
    """Find the valid records of an ingest batch that repeat an event.

    Records are judged in the order of topic, partition and offset. The first of an event id is the event; the
    same id with the same payload is `same_event`, with another payload `other_payload`. A purchase that repeats an
    order line (order, product, quantity and price) under another id, as a reloaded thank-you page does, is
    `same_order_line`.

    Args:
        engine: computes.
        parsed: PARSED rows of the new ingest batch, which are read several times.
        events_before: EVENTS rows of all earlier batches.
        duplicates_before: DUPLICATE_EVENTS rows of all earlier batches.

    Returns:
        REPETITIONS rows: few, whatever the batch.
    """
    F, _ = functions_of(parsed)
    columns = dict.fromkeys([*_RECORD, *_SENT_LINE])
    # Narrow before anything else: what an operation costs on SQLFrame grows with the columns.
    valid = as_view(parsed.select("rule", *columns).where(F.col("rule").isNull()).select(*columns))

    # An id that was dropped as a repeated order line is taken too: what follows under it is measured by it.
    taken = duplicates_before.select("reason", *_RECORD).where(F.col("reason") == "same_order_line")
    before = as_view(events_before.select(*_RECORD).unionByName(taken.select(*_RECORD)))
    same_payload = F.col("payload_hash") == F.col("first_payload_hash")
    reason = F.when(same_payload, F.lit("same_event")).otherwise(F.lit("other_payload"))
    repeated_ids = _repetitions(engine, valid.select(*_RECORD), before, ["event_id"], reason)

    # A repeated id is no event, so no first of an order line either.
    repeated = engine.from_arrow(repeated_ids)
    lines = _order_lines(valid).join(repeated.select(*RECORD_ORDER), on=list(RECORD_ORDER), how="left_anti")
    repeated_lines = _repetitions(
        engine, as_view(lines), _order_lines(events_before), list(_LINE), F.lit("same_order_line")
    )
    engine.release(repeated)
    return pa.concat_tables([repeated_ids, repeated_lines])


def _order_lines(events: DataFrame) -> DataFrame:
    F, _ = functions_of(events)
    is_line = (F.col("event_type") == "purchase") & F.col("order_id").isNotNull()
    return as_view(
        events.select("payload_hash", *RECORD_ORDER, *_SENT_LINE)
        .where(is_line)
        .select(
            "order_id",
            "product_id",
            F.coalesce(F.col("quantity"), F.lit(1)).alias("line_quantity"),
            F.coalesce(F.col("price"), F.lit(-1).cast("decimal(18,4)")).alias("line_price"),
            "payload_hash",
            *RECORD_ORDER,
        )
    )


def _repetitions(engine: Engine, new: DataFrame, before: DataFrame, key: list[str], reason: Any) -> pa.Table:
    """Find the new records that do not come first with their key, each with the record that does.

    Args:
        engine: computes.
        new: the key, `payload_hash` and RECORD_ORDER of each new record.
        before: the same of earlier records, of which each key has at most one.
        key: columns.
        reason: a column of REPETITIONS, in terms of its others and of `payload_hash`.

    Returns:
        REPETITIONS rows.
    """
    F, Window = functions_of(new)
    # Computed once for its two uses: it reads all of history, and finds few.
    known = engine.persist(before.join(new.select(*key), on=key, how="left_semi"))
    columns = [*key, "payload_hash", *RECORD_ORDER]
    all_of_them = as_view(
        new.select(*columns, F.lit(0).alias("is_known")).unionByName(
            known.select(*columns, F.lit(1).alias("is_known"))
        )
    )
    in_order = Window.partitionBy(*key).orderBy(F.col("is_known").desc(), *RECORD_ORDER)
    repeated = as_view(
        all_of_them.select(
            *RECORD_ORDER,
            "payload_hash",
            F.row_number().over(in_order).alias("place"),
            *(
                F.first(name).over(in_order).alias(f"first_{name}")
                for name in ("payload_hash", *RECORD_ORDER)
            ),
        )
    ).where(F.col("place") > 1)
    found = engine.to_arrow(repeated.withColumn("reason", reason).select(*REPETITIONS.names))
    engine.release(known)
    return found.cast(REPETITIONS)


@dataclass(frozen=True)
class Placed:
    """The records of an ingest batch, each in exactly one of four tables."""

    events: DataFrame
    beside: DataFrame
    """What is no event, and few; the other three tables are taken from it."""

    @property
    def duplicates(self) -> DataFrame:
        """DUPLICATE_EVENTS rows."""
        return self.beside.where(~self._is_conflict).select(*DUPLICATE_EVENTS.column_names)

    @property
    def conflicts(self) -> DataFrame:
        """CONFLICTING_EVENTS rows."""
        return self.beside.where(self._is_conflict).select(*CONFLICTING_EVENTS.column_names)

    @property
    def rejected(self) -> DataFrame:
        """REJECTED_EVENTS rows."""
        F, _ = functions_of(self.beside)
        rejected = self.beside.where(F.col("rule").isNotNull()).withColumn("rejected_by", F.lit("ingest"))
        return rejected.select(*REJECTED_EVENTS.column_names)

    @property
    def _is_conflict(self) -> Any:
        F, _ = functions_of(self.beside)
        return F.col("reason") == "other_payload"


def place(parsed: DataFrame, repetitions: DataFrame) -> Placed:
    """Put each PARSED record into its table.

    Args:
        parsed: PARSED rows of an ingest batch.
        repetitions: what `find_repetitions` found among them.
    """
    F, _ = functions_of(parsed)
    judged = as_view(parsed.join(repetitions, on=list(RECORD_ORDER), how="left"))
    is_event = F.col("rule").isNull() & F.col("reason").isNull()
    return Placed(judged.where(is_event).select(*EVENTS.column_names), judged.where(~is_event))
