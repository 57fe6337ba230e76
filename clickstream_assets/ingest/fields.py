"""From a field as it was sent to its value, or to the rule that it breaks.

What has one meaning is read, however it is written; what has none is a `Rejection`. Whether that rejects the whole
event or leaves the field out is the business of `parsing.py`.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache, partial
from typing import Annotated, Any, NamedTuple, Self

import msgspec

from clickstream_assets.catalogue import EVENT_FIELDS, ID_FIELDS, STRING
from clickstream_assets.catalogue.clock import ShopClock, in_digits
from clickstream_assets.catalogue.units import DAY, EPOCH, MICROSECOND, SECOND
from clickstream_assets.settings import EventDialect, Settings

# One of the older projects also writes event_timestamp.
TIMESTAMP_FIELDS = ("timestamp", "event_timestamp")
# An id this long is no id; PostgreSQL cannot index much longer ones (2,704 bytes).
MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 4096
MAX_QUANTITY = 1_000_000_000
# Of price times quantity.
MAX_AMOUNT = Decimal(10) ** 10
BEFORE_START = "before_events_start_date"
"""Rule that an event before EVENTS_START_DATE breaks."""
# A time that is a number is in the unit that puts it before the year 5138: seconds, as Python's are, or milliseconds,
# as JavaScript's, microseconds or nanoseconds.
_LATEST_SECONDS = 10**11
_LATEST_NANOSECONDS = 10**20
# Years of 1990 to 2099: of a number outside of them the digits may be those of the calendar.
_LIKELY = range(*((datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND for year in (1990, 2100)))
_FIRST_OF_NINE_DIGITS = 10**8
_LONGEST_DAY = len("2024-05-02")
NO_TIME_OF_DAY = "no_time_of_day"
"""Rule that a time breaks that is a day alone: no moment of it is made up."""
_CENTS = Decimal("0.0001")


class Unreadable:
    """A number of a size that JSON allows and no program reads; `text` is how it was sent."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def raw(self) -> msgspec.Raw:
        """The number in JSON."""
        return msgspec.Raw(self.text.encode())


class Rejection(Exception):
    """A record, an item of it, or a field of that cannot be read: the field, the rule that it breaks, and the value."""

    def __init__(self, field: str | None, rule: str, value: Any = None) -> None:
        super().__init__(field, rule, value)
        self.field = field
        self.rule = rule
        self.value = value

    @property
    def shown(self) -> str | None:
        """The value as text, of at most 200 characters."""
        if self.value is None:
            return None
        value = self.value
        text = value if isinstance(value, str) else _shown.encode(value).decode(errors="replace")
        return text.replace("\x00", "\ufffd")[:200]


_shown = msgspec.json.Encoder(enc_hook=lambda number: number.text)


@dataclass(frozen=True)
class ValidationRules:
    """Rules that events are read by, and bounds that they keep, in microseconds, `earliest` since 1970 in UTC."""

    earliest: int
    max_clock_skew: int
    max_event_bytes: int
    max_age: int | None = None
    event_id_days: int = 2
    """Days within which a record repeats an event; see `find_repetitions`."""
    time_zone: str = "UTC"
    id_placeholders: str = ""
    """As the setting has them."""
    decimal_comma: bool = False
    event_dialect: EventDialect = EventDialect.AUTO
    topic_dialects: str = ""
    """The topics that have another dialect, as KAFKA_TOPIC has them: web=segment,app=ga4."""
    pseudonyms: bool = False
    """True if what comes of a record has pseudonyms in place of its visitor's ids; see `ingest/pseudonyms.py`."""

    def of_topic(self, topic: str) -> Self:
        """Return the rules by which the records of a topic are read: as these, in its dialect."""
        dialects = dict(part.split("=") for part in self.topic_dialects.split(",") if part)
        if topic not in dialects:
            return self
        return replace(self, event_dialect=EventDialect(dialects[topic]))

    @cached_property
    def clock(self) -> ShopClock:
        """The clock that times without an offset are read by, and days."""
        return ShopClock(self.time_zone)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the rules from the settings; without EVENTS_START_DATE no event is too early."""
        clock = ShopClock(settings.shop_time_zone)
        return cls(
            earliest=clock.begin_us(settings.events_start_date or date.min),
            max_clock_skew=settings.max_clock_skew_seconds * SECOND,
            max_event_bytes=settings.max_event_bytes,
            max_age=settings.max_event_age_days and settings.max_event_age_days * DAY,
            event_id_days=settings.event_id_days,
            time_zone=clock.zone,
            id_placeholders=settings.id_placeholders,
            decimal_comma=settings.decimal_comma,
            event_dialect=settings.event_dialect,
            topic_dialects=",".join(f"{t}={dialect}" for t, dialect in settings.topics.items() if dialect),
            pseudonyms=settings.pseudonyms,
        )


@lru_cache
def placeholders_of(text: str) -> Mapping[str, frozenset[str]]:
    """Return what stands for no id, in lower case, by the fields that are ids; `text` is ID_PLACEHOLDERS."""
    everywhere: set[str] = set()
    own: dict[str, set[str]] = {field: set() for field in ID_FIELDS}
    for word in (word.strip().lower() for word in text.split(",")):
        name, equals, value = word.partition("=")
        if equals and name.strip() in own:
            own[name.strip()].add(value.strip())
        else:
            everywhere.add(word)
    return {field: frozenset(everywhere | words) for field, words in own.items()}


def is_given(name: str, value: Any) -> bool:
    """Return whether there is a text or a number; empty text is none.

    Raises:
        Rejection: it is neither.
    """
    if value is None or value == "":
        return False
    if isinstance(value, Unreadable):
        raise Rejection(name, "number_out_of_range", value.text)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Rejection(name, "wrong_type", value)
    return True


def read_text(name: str, value: Any, limit: int = MAX_ID_LENGTH) -> str | None:
    """Read a text, without the white space around it; a number is one, and what is blank is none."""
    if not is_given(name, value):
        return None
    text = str(value).strip()
    if len(text) > limit:
        raise Rejection(name, "too_long", text)
    if "\x00" in text:
        raise Rejection(name, "nul_character", text)
    return text or None


# What pandas writes for whole numbers in a column with a gap.
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0+")


def read_id(name: str, value: Any, rules: ValidationRules) -> str | None:
    """Read an id: a text in one spelling, whoever writes it; a placeholder is none."""
    # Not before its size is known: an exponent can be of any size.
    if isinstance(value, Decimal) and value.adjusted() < MAX_ID_LENGTH and value == value.to_integral_value():
        value = int(value)
    text = read_text(name, value)
    if text is None:
        return None
    if text.endswith("0") and (whole := _WHOLE_NUMBER.fullmatch(text)):
        text = whole[1]
    return None if text.lower() in placeholders_of(rules.id_placeholders)[name] else text


def is_usual_text(text: str, placeholders: frozenset[str]) -> bool:
    """Return whether `read_id`, or `read_text`, returns for sure a text, which is not too long, as it is."""
    return (
        text.lower() not in placeholders
        and text.strip() == text
        and (text[-1] != "0" or not _WHOLE_NUMBER.fullmatch(text))
    )


def read_time(name: str, value: Any, kafka_time: int, rules: ValidationRules) -> int:
    """Read a time as microseconds since 1970: ISO 8601, without an offset by the shop's clock, or the time since 1970.

    Args:
        name: the field.
        value: a text, or a number: of seconds, milliseconds, microseconds or nanoseconds, or one whose digits are those
            of the calendar and the shop's clock (20240502100000); also as text.
        kafka_time: when the record came, microseconds since 1970; an event cannot be much later.
        rules: the bounds to keep.
    """
    if not is_given(name, value):
        raise Rejection(name, "missing")
    number: int | Decimal
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdecimal() and len(text) < 20:
            # As any, in a third of the time.
            number = int(text)
        elif _NUMBER.fullmatch(text):
            number = Decimal(text)
        else:
            return in_bounds(name, value, iso_8601(name, text, rules), kafka_time, rules)
    else:
        number = value
    # Before any arithmetic, which an exponent may be too large for.
    if not -_LATEST_NANOSECONDS < number < _LATEST_NANOSECONDS:
        raise Rejection(name, BEFORE_START if number < 0 else "in_the_future", value)
    per_second = 1
    while not -_LATEST_SECONDS * per_second < number < _LATEST_SECONDS * per_second:
        per_second *= 1000
    microseconds = int(
        number * SECOND // per_second if isinstance(number, int) else number * SECOND / per_second
    )
    if microseconds not in _LIKELY and number == int(number) and (moment := in_digits(int(number))):
        if number < _FIRST_OF_NINE_DIGITS:
            raise Rejection(name, NO_TIME_OF_DAY, value)
        microseconds = _since_epoch(moment, rules)
    return in_bounds(name, value, microseconds, kafka_time, rules)


def day_in(value: Any) -> date | None:
    """Return the day that a text or a number is alone, as it breaks NO_TIME_OF_DAY; None if it is another value."""
    text = str(value).strip()
    if whole := _WHOLE_NUMBER.fullmatch(text):
        text = whole[1]
    if len(text) <= _LONGEST_DAY:
        with suppress(ValueError):
            return datetime.fromisoformat(text).date()
    return None


_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,4})?")
_UTC_NAMES = re.compile(r"\s*(UTC|GMT)$", re.IGNORECASE)


def iso_8601(name: str, text: str, rules: ValidationRules) -> int:
    """Read a time of ISO 8601 as microseconds since 1970; without an offset it is what the shop's clocks show."""
    try:
        moment = datetime.fromisoformat(text)
        if len(text) <= _LONGEST_DAY:
            raise Rejection(name, NO_TIME_OF_DAY, text)
        return _since_epoch(moment, rules)
    except ValueError:
        # Or a clock cannot show the first or the last day of all.
        if named := _with_named_zone(text):
            return _since_epoch(named, rules)
    raise Rejection(name, "not_iso_8601", text)


def _since_epoch(moment: datetime, rules: ValidationRules) -> int:
    return (
        (moment.replace(tzinfo=rules.clock.tzinfo) if moment.tzinfo is None else moment) - EPOCH
    ) // MICROSECOND


def _with_named_zone(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(_UTC_NAMES.sub("+00:00", text)) if _UTC_NAMES.search(text) else None
    except ValueError:
        return None


def in_bounds(name: str, value: Any, microseconds: int, kafka_time: int, rules: ValidationRules) -> int:
    """Return the time of an event that is neither too early nor too late."""
    if microseconds < rules.earliest:
        raise Rejection(name, BEFORE_START, value)
    if microseconds > kafka_time + rules.max_clock_skew:
        raise Rejection(name, "in_the_future", value)
    if rules.max_age and microseconds < kafka_time - rules.max_age:
        raise Rejection(name, "too_old", value)
    return microseconds


# Signs that are one currency's alone, and those that several have.
_SIGNS = {
    **{"€": "EUR", "£": "GBP", "US$": "USD", "R$": "BRL"},
    **{"zł": "PLN", "₹": "INR", "₽": "RUB", "₺": "TRY"},
}
_SHARED_SIGNS = {"$", "¥", "kr", "kr."}
_CODE = re.compile("[A-Za-z]{3}")
_AMOUNT = re.compile(r"([+-]?)\s*([^\d\s+-]{0,3}?)\s*([+-]?\d[\d.,'\s]*?)\s*([^\d\s+-]{0,3})")
# A number as text, by the mark before its fraction; the other one is between thousands.
_TEXTS = {
    mark: re.compile(rf"[+-]?(\d+|\d{{1,3}}([{thousands}'\s]\d{{3}})+)({re.escape(mark)}\d+)?")
    for mark, thousands in ((".", ","), (",", "."))
}


def _number(value: Any, decimal_comma: bool) -> Decimal:
    """Read a number, also as text.

    Raises:
        InvalidOperation: it is none.
    """
    if not isinstance(value, str):
        return Decimal(value)
    text = value.strip()
    mark = "," if decimal_comma else "."
    if _TEXTS[mark].fullmatch(text):
        text = re.sub(rf"[^\d{mark}+-]", "", text).replace(",", ".")
    number = Decimal(text)
    if number.is_nan():
        raise InvalidOperation
    return number


def _currency_of(sign: str) -> str | None:
    return _SIGNS.get(sign) or (sign.upper() if _CODE.fullmatch(sign) else None)


def read_price(value: Any, decimal_comma: bool) -> tuple[Decimal | None, str | None]:
    """Read a unit price, which can be negative, and the currency that its text names."""
    if not is_given("price", value):
        return None, None
    currency, number = None, value
    if isinstance(value, str) and (parts := _AMOUNT.fullmatch(value.strip())):
        sign, before, digits, after = parts.groups()
        # At one end, and no other text than a currency.
        word = before or after
        if word and not (before and after) and (_currency_of(word) or word in _SHARED_SIGNS):
            currency, number = _currency_of(word), sign + digits
    try:
        price = _number(number, decimal_comma)
        # Not abs(): an exponent may be too large for arithmetic.
        if not price.copy_abs() < MAX_AMOUNT:
            raise Rejection("price", "out_of_range", value)
        # Of 0 there is one: -0.0 would be another payload.
        return price.quantize(_CENTS) + 0, currency
    except InvalidOperation:
        raise Rejection("price", "not_a_number", value) from None


def read_quantity(value: Any, decimal_comma: bool) -> int | Decimal | None:
    """Read a number of units, which can be negative and have a fraction of four decimals, but is not 0."""
    if not is_given("quantity", value):
        return None
    try:
        quantity = _number(value, decimal_comma)
        if not quantity.copy_abs() <= MAX_QUANTITY or not (rounded := quantity.quantize(_CENTS)):
            raise Rejection("quantity", "out_of_range", value)
    except InvalidOperation:
        raise Rejection("quantity", "not_a_number", value) from None
    return int(rounded) if rounded == rounded.to_integral_value() else rounded


def _read_currency(name: str, value: Any) -> str | None:
    text = read_text(name, value)
    if text is None:
        return None
    if currency := _currency_of(text):
        return currency
    raise Rejection(name, "not_iso_4217", text)


_ANSWERS = {
    **dict.fromkeys(("true", "granted", "yes", "y", "1", "accepted", "opt_in", "opt-in"), True),
    **dict.fromkeys(("false", "denied", "no", "n", "0", "rejected", "opt_out", "opt-out"), False),
}


def _read_consent(name: str, value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if not is_given(name, value):
        return None
    answer = _ANSWERS.get(str(value).strip().lower())
    if answer is None:
        raise Rejection(name, "not_a_consent", value)
    return answer


def _read_category(name: str, value: Any) -> str | None:
    """Read a category; a list of them, from the widest to the narrowest, is one with dots between."""
    if isinstance(value, list):
        value = ".".join(filter(None, (read_text(name, part) for part in value)))
    return read_text(name, value)


def read_properties(given: Any, unknown: Mapping[str, Any]) -> str | None:
    """Put what was sent as properties, and what is in unknown fields, into one JSON object."""
    if given is not None and not isinstance(given, dict):
        raise Rejection("properties", "wrong_type", given)
    properties = {**unknown, **(given or {})}
    if not properties:
        return None
    text = encoder.encode(properties).decode()
    if "\\u0000" in text:
        raise Rejection("properties", "nul_character", text)
    return text


def _refuse(number: Unreadable) -> None:
    raise Rejection("properties", "number_out_of_range", number.text)


encoder = msgspec.json.Encoder(decimal_format="number", order="sorted", enc_hook=_refuse)
"""Writes JSON in one form, whatever the order of the fields."""


class Field(NamedTuple):
    """Reading of one field of an event.

    Attributes:
        usual: its type as most senders write it, which msgspec checks while it decodes.
        read: reads any way of writing it.
    """

    usual: Any
    read: Callable[[str, Any, ValidationRules], Any]


def _plain(usual: Any, read: Callable[[str, Any], Any]) -> Field:
    """Make a field that is read in the same way by all rules."""
    return Field(usual, lambda name, value, _: read(name, value))


Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_LongText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)]
_Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
_Quantity = Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)]
_TEXT = _plain(Id, read_text)
_LONG_TEXT = _plain(_LongText, partial(read_text, limit=MAX_TEXT_LENGTH))
_ID = Field(Id, read_id)

FIELDS = (
    {column.name: _TEXT for column in EVENT_FIELDS if column.type == STRING}
    | dict.fromkeys(ID_FIELDS, _ID)
    | {
        "product_category": _plain(Id, _read_category),
        "price": Field(msgspec.Raw, lambda _, value, rules: read_price(value, rules.decimal_comma)),
        "currency": _plain(_Currency, _read_currency),
        "quantity": Field(_Quantity, lambda _, value, rules: read_quantity(value, rules.decimal_comma)),
        "query": _LONG_TEXT,
        "user_agent": _LONG_TEXT,
        "consent": _plain(bool, _read_consent),
    }
)
"""Fields by their names: one of another kind than a text or an id needs a line here, those only their column."""
