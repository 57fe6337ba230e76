"""One record, judged by itself; and many, each classified into exactly one table."""

import random
import re
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickstream_assets.analytics.measures import revenue
from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS, RAW_EVENTS
from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.ingest.classification import Classified, classify
from clickstream_assets.ingest.fields import MAX_AMOUNT, Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_batches, parse_record
from clickstream_assets.ingest.repetitions import find_repetitions
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.records import ARRIVED, RULES, VIEW, encode, parse, raw_table
from clickstream_assets_tests.simulator.judge import verdicts

PURCHASE = VIEW | {"event_type": "purchase", "order_id": "o1"}
KAFKA_TIME = int(ARRIVED.timestamp()) * 1_000_000


def with_field(field: bytes) -> bytes:
    """Return an event with one more field, or another for one that it has."""
    kept = {name: value for name, value in VIEW.items() if f'"{name}"'.encode() not in field}
    return encode(kept)[:-1] + b"," + field + b"}"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def parse_event(value: bytes | None, kafka_time: int = KAFKA_TIME, rules: ValidationRules = RULES) -> Any:
    """Parse a record that is one event."""
    (found,) = parse_record(value, kafka_time, rules)
    if isinstance(found, Rejection):
        raise found
    return found


def parsed(payload: object, rules: ValidationRules = RULES):
    return parse_event(payload if isinstance(payload, bytes) else encode(payload), KAFKA_TIME, rules)


def judged(
    engine: Engine,
    df: DataFrame,
    events: pa.Table | None = None,
    duplicates: pa.Table | None = None,
) -> Classified:
    """Classify parsed records, given the events and duplicates of the batches before."""
    before = engine.from_arrow(events or EVENTS.arrow.empty_table())
    duplicates_before = engine.from_arrow(duplicates or DUPLICATE_EVENTS.arrow.empty_table())
    repetitions = find_repetitions(engine, df, before, duplicates_before, RULES.event_id_days)
    return classify(df, engine.from_arrow(repetitions))


def rejection(payload: object, rules: ValidationRules = RULES) -> Rejection:
    with pytest.raises(Rejection) as caught:
        parsed(payload, rules)
    return caught.value


def test_flat_event_of_the_clickwatch_simulator_is_accepted_unchanged():
    event = parsed(
        {
            "user_id": "user_7",
            "product_id": "product_3",
            "product_category": "tablets",
            "event_type": "view",
            "timestamp": "2024-05-01T10:00:00.250000+00:00",
        }
    )
    assert (event.user_id, event.product_id, event.product_category) == ("user_7", "product_3", "tablets")
    assert event.event_time == 1_714_557_600_250_000
    assert event.event_id == event.payload_hash


def test_search_event_without_product_and_with_local_time_is_accepted_as_utc():
    event = parsed(
        {
            "timestamp": "2024-05-01T10:00:00.000001",
            "user_id": 17,
            "session_id": "a-b",
            "event_type": "search",
        }
    )
    assert (event.user_id, event.product_id, event.session_id) == ("17", None, "a-b")
    assert event.event_time == 1_714_557_600_000_001


@pytest.mark.parametrize(
    ("sent", "microseconds"),
    [
        (1_714_557_600, 1_714_557_600_000_000),
        (1_714_557_600.25, 1_714_557_600_250_000),
        (1_714_557_600_250, 1_714_557_600_250_000),
    ],
)
def test_a_time_that_is_a_number_is_in_seconds_or_milliseconds_since_1970(sent: float, microseconds: int):
    assert parsed({**VIEW, "timestamp": sent}).event_time == microseconds


def test_event_timestamp_is_another_name_for_timestamp():
    event = parsed(
        {"event_timestamp": "2024-05-01T10:00:00Z", **{k: v for k, v in VIEW.items() if k != "timestamp"}}
    )
    assert event.event_time == 1_714_557_600_000_000
    assert event.properties is None


@pytest.mark.parametrize(
    "same",
    [
        {"timestamp": "2024-05-01T12:00:00+02:00"},
        {"timestamp": "2024-05-01 10:00:00"},
        {"event_id": "mine"},
        {"brand": ""},
        {"product_category": None},
    ],
)
def test_writing_of_an_event_does_not_change_its_payload_hash(same):
    assert parsed(VIEW | same).payload_hash == parsed(VIEW).payload_hash


@pytest.mark.parametrize(
    "other",
    [
        {"timestamp": "2024-05-01T10:00:00.000001Z"},
        {"event_type": "click"},
        {"price": 1},
        {"colour": "red"},
        {"consent": False},
    ],
)
def test_any_other_content_changes_the_payload_hash(other):
    assert parsed(VIEW | other).payload_hash != parsed(VIEW).payload_hash


def test_cart_is_another_name_for_add_to_cart():
    assert (
        parsed(VIEW | {"event_type": "cart"}).payload_hash
        == parsed(VIEW | {"event_type": "add_to_cart"}).payload_hash
    )


def test_unknown_fields_go_to_properties_in_one_canonical_form():
    one = parsed(b'{"b":1.50,"a":{"y":2,"x":1},' + encode(VIEW)[1:])
    other = parsed(encode(VIEW | {"properties": {"a": {"x": 1, "y": 2}}})[:-1] + b',"b":1.50}')
    assert one.properties == other.properties == '{"a":{"x":1,"y":2},"b":1.50}'
    assert one.payload_hash == other.payload_hash


@pytest.mark.parametrize(
    ("given_price", "kept"),
    [(33.20, "33.2000"), ("33.20", "33.2000"), (0, "0.0000"), (1e-5, "0.0000"), (-0.0, "0.0000")],
)
def test_price_is_kept_as_an_exact_decimal(given_price, kept):
    assert str(parsed(VIEW | {"price": given_price}).price) == kept


@pytest.mark.parametrize(
    ("user_agent", "is_bot"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        ("python-requests/2.32", True),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36", False),
        (None, False),
    ],
)
def test_robots_are_labelled_by_their_user_agent(user_agent, is_bot):
    assert parsed(VIEW | {"user_agent": user_agent}).is_bot is is_bot


@pytest.mark.parametrize(
    ("payload", "field", "rule"),
    [
        (b"no json", None, "not_json"),
        (b"", None, "not_json"),
        (b'{"user_id": "\xff\xfe"}', None, "not_json"),
        (b'{"user_id": "\\ud800"}', None, "not_json"),
        (b"[" * 100_000, None, "not_json"),
        (b'{"a":"' + b'\\"' * 100_000, None, "not_json"),
        (b'"text"', None, "not_an_object"),
        (b"[1]", None, "not_an_object"),
        (b"null", None, "not_an_object"),
        ({**VIEW, "user_id": None}, "user_id", "missing"),
        ({**VIEW, "user_id": ""}, "user_id", "missing"),
        ({**VIEW, "user_id": True}, "user_id", "wrong_type"),
        ({**VIEW, "user_id": "x" * 257}, "user_id", "too_long"),
        ({**VIEW, "user_id": "a\x00b"}, "user_id", "nul_character"),
        ({**VIEW, "event_type": "cart", "product_id": ""}, "product_id", "missing"),
        ({**VIEW, "event_type": "cart", "product_id": {"id": 1}}, "product_id", "wrong_type"),
        ({**VIEW, "event_type": None}, "event_type", "missing"),
        ({**VIEW, "event_type": "VIEWED"}, "event_type", "unknown"),
        ({**VIEW, "event_type": "custom"}, "event_name", "missing"),
        ({**VIEW, "user_id": "undefined", "session_id": "(Not Set)"}, "user_id", "missing"),
        ({**PURCHASE, "price": "cheap"}, "price", "not_a_number"),
        ({**PURCHASE, "price": 1e12}, "price", "out_of_range"),
        ({**PURCHASE, "price": 1e7, "quantity": 1000}, "price", "out_of_range"),
        ({**PURCHASE, "price": -1, "quantity": -1}, "price", "out_of_range"),
        ({**PURCHASE, "quantity": 0}, "quantity", "out_of_range"),
        ({**PURCHASE, "quantity": "a few"}, "quantity", "not_a_number"),
        ({**VIEW, "timestamp": None}, "timestamp", "missing"),
        ({**VIEW, "timestamp": True}, "timestamp", "wrong_type"),
        ({**VIEW, "timestamp": [1714557600]}, "timestamp", "wrong_type"),
        ({**VIEW, "timestamp": 0}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": -(10**300)}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": 99_999_999_999}, "timestamp", "in_the_future"),
        ({**VIEW, "timestamp": 10**300}, "timestamp", "in_the_future"),
        ({**VIEW, "timestamp": "yesterday, at noon"}, "timestamp", "not_iso_8601"),
        ({**VIEW, "timestamp": "2024-05-01"}, "timestamp", "no_time_of_day"),
        ({**VIEW, "timestamp": " 2024-05-01 "}, "timestamp", "no_time_of_day"),
        ({**VIEW, "timestamp": "20240501"}, "timestamp", "no_time_of_day"),
        ({**VIEW, "timestamp": "20240501.0"}, "timestamp", "no_time_of_day"),
        ({**VIEW, "timestamp": 20240501}, "timestamp", "no_time_of_day"),
        (with_field(b'"timestamp":20240501.0'), "timestamp", "no_time_of_day"),
        # No day, minute or second of the calendar: a number of seconds or milliseconds.
        ({**VIEW, "timestamp": 20240532}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": 20240501.5}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": 202413011000}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": 20240501106000}, "timestamp", "in_the_future"),
        ({**VIEW, "timestamp": 24056}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": "24-5-1"}, "timestamp", "not_iso_8601"),
        ({**VIEW, "timestamp": "2024-13-01T00:00:00Z"}, "timestamp", "not_iso_8601"),
        ({**VIEW, "timestamp": "1999-12-31T23:59:59Z"}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp", "before_events_start_date"),
        ({**VIEW, "timestamp": "2024-05-02T13:00:00.000001Z"}, "timestamp", "in_the_future"),
        ({**VIEW, "timestamp": "9999-12-31T23:59:59-12:00"}, "timestamp", "in_the_future"),
        (with_field(b'"timestamp":9e999999999'), "timestamp", "in_the_future"),
        (with_field(b'"timestamp":-9e999999999'), "timestamp", "before_events_start_date"),
        (with_field(b'"user_id":1e99999999999999999999'), "user_id", "number_out_of_range"),
        (with_field(b'"user_id":-1' + b"0" * 5000), "user_id", "number_out_of_range"),
        (with_field(b'"timestamp":1e99999999999999999999'), "timestamp", "number_out_of_range"),
        (with_field(b'"event_type":"purchase","price":1' + b"0" * 5000), "price", "number_out_of_range"),
        (b"1e99999999999999999999", None, "not_an_object"),
        (with_field(b'"price":' + nested(100)), None, "not_json"),
    ],
)
def test_invalid_record_is_rejected_with_its_field_and_rule(payload, field, rule):
    verdict = rejection(payload)
    assert (verdict.field, verdict.rule) == (field, rule)


@pytest.mark.parametrize(
    ("payload", "field", "rule"),
    [
        ({**VIEW, "product_id": {"id": 1}}, "product_id", "wrong_type"),
        ({**VIEW, "anonymous_id": "x" * 257}, "anonymous_id", "too_long"),
        ({**VIEW, "user_id": True, "session_id": "s1"}, "user_id", "wrong_type"),
        (with_field(b'"price":9e999999999'), "price", "out_of_range"),
        (with_field(b'"price":1e99999999999999999999'), "price", "number_out_of_range"),
        (with_field(b'"price":1e-99999999999999999999'), "price", "number_out_of_range"),
        (with_field(b'"price":1' + b"0" * 5000), "price", "number_out_of_range"),
        (with_field(b'"price":[1e99999999999999999999]'), "price", "wrong_type"),
        (with_field(b'"quantity":1' + b"0" * 5000), "quantity", "number_out_of_range"),
        (with_field(b'"session_id":"\\"1","quantity":-1' + b"0" * 5000), "quantity", "number_out_of_range"),
        (with_field(b'"properties":{"a":[-1e99999999999999999999]}'), "properties", "number_out_of_range"),
        (with_field(b'"properties":{"a":1' + b"0" * 5000 + b"}"), "properties", "number_out_of_range"),
        (with_field(b'"colour":1' + b"0" * 5000), "properties", "number_out_of_range"),
        (with_field(b'"price":' + nested(99)), "price", "wrong_type"),
        ({**VIEW, "price": -1}, "price", "out_of_range"),
        ({**VIEW, "price": "NaN"}, "price", "not_a_number"),
        ({**VIEW, "price": "cheap"}, "price", "not_a_number"),
        ({**VIEW, "price": "12,50"}, "price", "not_a_number"),
        ({**VIEW, "price": "12 EUR", "currency": "USD"}, "price", "other_currency"),
        ({**VIEW, "price": [1]}, "price", "wrong_type"),
        ({**VIEW, "price": 1e12}, "price", "out_of_range"),
        ({**VIEW, "price": 1e7, "quantity": 1000}, "price", "out_of_range"),
        ({**VIEW, "price": "10.0000", "quantity": "1e9"}, "price", "out_of_range"),
        ({**VIEW, "quantity": 0}, "quantity", "out_of_range"),
        ({**VIEW, "quantity": -2}, "quantity", "out_of_range"),
        ({**VIEW, "quantity": "a few"}, "quantity", "not_a_number"),
        ({**VIEW, "quantity": "Infinity"}, "quantity", "out_of_range"),
        ({**VIEW, "currency": "euro"}, "currency", "not_iso_4217"),
        ({**VIEW, "currency": "$"}, "currency", "not_iso_4217"),
        ({**VIEW, "consent": "perhaps"}, "consent", "not_a_consent"),
        ({**VIEW, "consent": {"ads": True}}, "consent", "wrong_type"),
        ({**VIEW, "properties": [1]}, "properties", "wrong_type"),
        ({**VIEW, "colour": "a\x00b"}, "properties", "nul_character"),
    ],
)
def test_a_field_that_cannot_be_read_is_left_out_and_noted(payload, field, rule):
    event = parsed(payload)
    ((noted, broken, value),) = event.field_problems
    assert (noted, broken) == (field, rule)
    assert value
    assert getattr(event, field) is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"event_type": "View"}, {"event_type": "view"}),
        ({"event_type": "Add To-Cart"}, {"event_type": "add_to_cart"}),
        ({"event_type": "pv", "product_id": None}, {"event_type": "page_view", "product_id": None}),
        ({"user_id": 17850.0, "product_id": "1001.0"}, {"user_id": "17850", "product_id": "1001"}),
        ({"user_id": 1.2345e4}, {"user_id": "12345"}),
        ({"user_id": " 12345\n"}, {"user_id": "12345"}),
        ({"user_id": "a.10", "product_id": "1.50"}, {"user_id": "a.10", "product_id": "1.50"}),
        ({"user_id": 0, "anonymous_id": 0}, {"user_id": None, "anonymous_id": "0"}),
        ({"user_id": "-1", "session_id": "s", "product_id": 0}, {"user_id": None, "product_id": "0"}),
        ({"order_id": "NaN", "event_id": "[OBJECT Object]"}, {"order_id": None}),
        ({"anonymous_id": "00000000-0000-0000-0000-000000000000"}, {"anonymous_id": None}),
        ({"price": "12.50 €"}, {"price": Decimal("12.5"), "currency": "EUR"}),
        ({"price": "$ 1,299.00"}, {"price": Decimal(1299), "currency": None}),
        ({"price": "EUR 5", "currency": "eur"}, {"price": Decimal(5), "currency": "EUR"}),
        ({"price": "1e3"}, {"price": Decimal(1000)}),
        ({"quantity": 0.75}, {"quantity": Decimal("0.75")}),
        ({"quantity": "2.0"}, {"quantity": 2}),
        ({"currency": " £ "}, {"currency": "GBP"}),
        ({"consent": "granted"}, {"consent": True}),
        ({"consent": 0}, {"consent": False}),
        ({"product_category": ["Home", None, "Lamps"]}, {"product_category": "Home.Lamps"}),
        ({"brand": " Acme "}, {"brand": "Acme"}),
        ({"brand": " "}, {"brand": None}),
        ({"items": ["a", "b"]}, {"properties": '{"items":["a","b"]}'}),
        ({"items": "[1"}, {"properties": '{"items":"[1"}'}),
        ({"properties": ' {"a": 1.50}', "b": 2}, {"properties": '{"a":1.50,"b":2}'}),
    ],
)
def test_what_has_one_meaning_is_read(sent, read):
    event = parsed(VIEW | sent)
    assert {name: getattr(event, name) for name in read} == read
    assert event.field_problems is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12,50 €", "12.5"),
        ("1.299,00", "1299"),
        ("1.299", "1299"),
        ("12", "12"),
        (12.5, "12.5"),
        ("12.50", "12.5"),
    ],
)
def test_a_comma_before_the_fraction_is_a_setting(text, number):
    rules = ValidationRules.of(Settings(_env_file=None, decimal_comma=True))
    assert parsed(VIEW | {"price": text}, rules).price == Decimal(number)


def test_placeholders_are_a_setting():
    rules = ValidationRules.of(Settings(_env_file=None, id_placeholders="guest, user_id=anna"))
    event = parsed(VIEW | {"user_id": "Anna", "session_id": "GUEST", "anonymous_id": "anna"}, rules)
    assert (event.user_id, event.session_id, event.anonymous_id) == (None, None, "anna")


@pytest.mark.parametrize(
    "sent",
    [
        {"quantity": -1, "price": 20},
        {"price": -20, "quantity": 1},
        {"event_type": "refund", "price": 20, "quantity": 1},
        {"event_type": "Return", "price": -20, "quantity": -1},
    ],
)
def test_a_return_is_one_refund_however_it_is_written(sent):
    refund = parsed(PURCHASE | {"event_type": "refund", "price": "20.00", "quantity": 1})
    assert parsed(PURCHASE | sent) == refund
    assert (refund.event_type, refund.price, refund.quantity) == ("refund", 20, 1)


def test_each_item_of_a_record_is_an_event_or_rejected():
    items = [
        {"product_id": "p1", "price": 5, "quantity": 2},
        {"product_id": "(not set)", "price": 5},
        {"product_id": "p1", "price": 5, "quantity": 2},
        {"product_id": "p2", "price": 7, "event_id": "own", "properties": {"b": 2}},
    ]
    record = {**PURCHASE, "event_id": "e1", "properties": {"a": 1}, "colour": "red", "items": items}
    first, nothing, third, fourth = parse_record(encode(record), KAFKA_TIME, RULES)
    assert isinstance(nothing, Rejection)
    assert (nothing.field, nothing.rule) == ("product_id", "missing")
    events: Any = (first, third, fourth)
    assert [event.event_id for event in events] == ["e1", "e1/3", "own/4"]
    assert [event.order_id for event in events] == ["o1"] * 3
    assert [event.properties for event in events] == [
        *['{"a":1,"colour":"red"}'] * 2,
        '{"a":1,"b":2,"colour":"red"}',
    ]
    # Without ids of their own they are two as well.
    del record["event_id"]
    without: Any = parse_record(encode(record), KAFKA_TIME, RULES)
    assert without[0].event_id != without[2].event_id
    (batch,) = parse_batches(iter(raw_table([encode(VIEW), encode(record), b"bad"]).to_batches()), RULES)
    places = zip(*(batch[name].to_pylist() for name in ("offset", "item", "items")), strict=True)
    assert list(places) == [(0, 1, 1), (1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 4), (2, 1, 1)]
    assert batch["rule"].to_pylist() == [None, None, "missing", None, None, "not_json"]


ONE = {"product_id": "p1", "price": 5}


@pytest.mark.parametrize(
    ("items", "outcomes"),
    [
        ([ONE, None, ONE], ["event", "wrong_type", "event"]),
        ([ONE, "p2"], ["event", "wrong_type"]),
        ([{}, ONE], ["missing", "event"]),
        ([{**ONE, "quantity": 0}, ONE], ["out_of_range", "event"]),
        ('[{"product_id": "p1", "price": 5}, {"product_id": "p2"}]', ["event", "event"]),
        ([], ["missing"]),
        ("[]", ["missing"]),
        ("[{" * 101, ["missing"]),
        ('[{"price": 1e99999999999999999999}]', ["missing"]),
        (["p1", "p2"], ["missing"]),
        ({"product_id": "p1"}, ["missing"]),
    ],
)
def test_items_that_are_no_objects_do_not_take_the_others_with_them(items, outcomes):
    record = {name: value for name, value in PURCHASE.items() if name != "product_id"} | {"items": items}
    found = parse_record(encode(record), KAFKA_TIME, RULES)
    assert [one.rule if isinstance(one, Rejection) else "event" for one in found] == outcomes


def test_an_item_has_what_the_record_says_where_it_says_nothing_itself():
    item = {
        **ONE,
        "timestamp": None,
        "currency": "",
        "order_id": "own",
        "colour": None,
        "properties": '{"b": 1}',
    }
    record = {**PURCHASE, "currency": "EUR", "properties": {"a": 1}, "items": [item]}
    event = parsed(record)
    assert (event.currency, event.order_id, event.properties) == ("EUR", "own", '{"a":1,"b":1,"colour":null}')


@pytest.mark.parametrize(
    ("timestamp", "microseconds"),
    [
        ("2024-05-01 10:00:00 UTC", 1_714_557_600_000_000),
        ("1714557600", 1_714_557_600_000_000),
        ("1714557600250", 1_714_557_600_250_000),
        (1_714_557_600_250_001, 1_714_557_600_250_001),
        ("1714557600250001000", 1_714_557_600_250_001),
        (1_714_557_600_250_001_999, 1_714_557_600_250_001),
        # Digits of the calendar.
        ("20240501100000", 1_714_557_600_000_000),
        (202405011000, 1_714_557_600_000_000),
        ("202405011000.0", 1_714_557_600_000_000),
    ],
)
def test_a_time_can_be_a_number_of_any_unit_or_name_utc(timestamp, microseconds):
    assert parsed({**VIEW, "timestamp": timestamp}).event_time == microseconds


@pytest.mark.parametrize(
    ("timestamp", "rule"),
    [("2024-05-01T12:00:00Z", "event"), ("2024-05-01T11:59:59Z", "too_old"), (1_714_564_799, "too_old")],
)
def test_an_event_can_be_bound_to_come_within_some_days(timestamp: str | int, rule: str):
    value = encode(VIEW | {"timestamp": timestamp})
    # The record came on the day after at noon.
    assert outcome(value, ValidationRules.of(Settings(_env_file=None, max_event_age_days=1))) == rule
    assert outcome(value) == "event"


@pytest.mark.parametrize("callers", [0, 400, 700])
def test_how_deep_an_event_may_be_does_not_depend_on_the_stack_of_the_caller(callers):
    def judge(remaining: int) -> list[str]:
        return (
            judge(remaining - 1) if remaining else [outcome(with_deep(levels)) for levels in range(90, 130)]
        )

    def with_deep(levels: int) -> bytes:
        # Brackets in a text are none.
        return with_field(b'"properties":{"text":"[\\"[","deep":' + nested(levels) + b"}")

    verdicts = judge(callers)
    assert verdicts == ["event"] * 9 + ["not_json"] * 31


def outcome(value: bytes, rules: ValidationRules = RULES) -> str:
    (*_, last) = parse_record(value, KAFKA_TIME, rules)
    return last.rule if isinstance(last, Rejection) else "event"


@pytest.mark.long_on_spark
def test_the_largest_amounts_have_a_sum(engine: Engine):
    purchase = VIEW | {"event_type": "purchase", "price": "9999999.9999", "quantity": 1000}
    df = parse(engine, raw_table([encode(purchase | {"event_id": str(n)}) for n in range(9)]))
    F, _ = functions_of(df)
    (sums,) = engine.to_arrow(df.agg(revenue(F).alias("revenue"))).to_pylist()
    assert sums == {"revenue": Decimal("89999999999.1000")}


TEXTS = st.one_of(st.none(), st.text(max_size=8), st.just("x" * 257), st.integers(), st.booleans())
FIELDS = st.fixed_dictionaries(
    {"event_type": st.sampled_from(["view", "cart", "purchase", "search", "", "hop", 3])},
    optional={
        "user_id": st.one_of(st.just("u1"), TEXTS),
        "timestamp": st.sampled_from(
            [
                "2024-05-01T10:00:00Z",
                "2024-05-01T12:00:00.5+02:00",
                "2024-05-01",
                "1999-01-01T00:00:00",
                5,
                None,
            ]
        ),
        **dict.fromkeys(("event_id", "product_id", "brand", "order_id", "user_agent", "campaign"), TEXTS),
        "price": st.sampled_from(
            [None, "", "12.5", 12.5, 12, -1, 1e30, True, "a", [1], 0.00004, 9.9e9, 1e12]
        ),
        "currency": st.sampled_from([None, "", "EUR", "eur", "EUR\n", 978]),
        "quantity": st.sampled_from([None, "", 1, 0, 2.0, 2.5, "3", 10**9, 10**10, True]),
        "consent": st.sampled_from([None, True, False, "yes"]),
        "properties": st.sampled_from([None, {}, {"a": 1.10, "b": [None]}, [], "x", {"c": "\x00"}]),
    },
)


@given(FIELDS)
def test_an_event_that_is_decoded_in_one_go_is_judged_as_one_that_is_read_field_by_field(payload):
    # An empty text is no text, and makes it unusual.
    for value in (payload, payload | {"query": ""}):
        value.setdefault("user_id", "u1")
        value.setdefault("timestamp", "2024-05-01T10:00:00Z")
    outcomes: list[Any] = []
    for value in (payload, payload | {"query": ""}):
        try:
            event: Any = parse_event(encode(value), KAFKA_TIME, RULES)
            assert 0 <= (event.price or 0) * (event.quantity or 1) < MAX_AMOUNT
            outcomes.append(event)
        except Rejection as rejection:
            outcomes.append((rejection.field, rejection.rule, rejection.value))
    assert outcomes[0] == outcomes[1]


def test_tombstones_and_oversized_values_are_rejected_without_being_read():
    with pytest.raises(Rejection, match="tombstone"):
        parse_event(None, KAFKA_TIME, RULES)
    small = ValidationRules(RULES.earliest, RULES.max_clock_skew, max_event_bytes=50)
    assert rejection(encode(VIEW | {"note": "x" * 50}), small).rule == "too_large"


@pytest.mark.slow
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from([*VIEW, "price", "quantity", "properties"]), x)
        ),
    ).map(encode)
)
def test_no_record_ends_the_program(value):
    assert outcome(value)


SEEDS = [
    encode(VIEW),
    encode(
        VIEW | {"price": 12.5, "quantity": 3, "currency": "EUR", "order_id": "o1", "event_type": "purchase"}
    ),
    encode({**PURCHASE, "items": [{"product_id": "p1", "price": 5}, {"product_id": "p2", "quantity": 2.5}]}),
    encode(VIEW | {"properties": {"a": [1.5, {"b": None}]}, "colour": "red", "consent": True, "query": ""}),
    encode(
        {"event_timestamp": 1_714_557_600.25, "user_id": 17, "event_type": "search", "page": "/?q=\u00e9"}
    ),
]
PIECES = [
    *(
        b"1e99999999999999999999",
        b"-9e999999999",
        b"1" * 5000,
        b"0.1e-7",
        b"-0",
        b"NaN",
        b"1E5",
        b"null",
        b"true",
    ),
    *(
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff",
        b"\\",
        b'"',
        b"{}",
        b"[]",
        b":",
        b",",
        b'"0001-01-01T00:00+23:59"',
    ),
    *(nested(99), nested(101), nested(990), b'{"a":' * 500, b'{"' * 200, b"[" * 3000, b"0" * 400, b"\x00"),
    *(f'"{name}":'.encode() for name in EVENTS.arrow.names),
]


VALUE = re.compile(rb':("[^"]*"|[^]",{}[]+)')


def mutated(source: random.Random) -> bytes:
    """Return a record of which some values, or some bytes, are others, are left out or come twice."""
    value = source.choice(SEEDS)
    for _ in range(source.choice([1, 1, 2, 4])):
        values = list(VALUE.finditer(value))
        if values and source.random() < 0.8:
            # As JSON, so that it gets as far as the fields.
            start, end = source.choice(values).span(1)
            piece = source.choice([*PIECES, value[start:end] + b"0", source.choice(values).group(1)])
        else:
            start, end = sorted(source.randint(0, len(value)) for _ in range(2))
            piece = source.choice([*PIECES, value[start:end] * 2, b""])
        value = value[:start] + piece + value[end:]
    return value


@pytest.mark.slow
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_each_of_many_mutated_records_is_an_event_or_rejected(count):
    source = random.Random(count)
    rules: Counter[str | None] = Counter()
    for start in range(0, count, 10_000):
        raw = raw_table([mutated(source) for _ in range(start, min(count, start + 10_000))])
        (judged_batch,) = parse_batches(iter(raw.to_batches()), RULES)
        for rule, event_id in zip(
            *(judged_batch[name].to_pylist() for name in ("rule", "event_id")), strict=True
        ):
            assert (rule is None) is (event_id is not None)
            rules[rule] += 1
    assert rules.total() >= count
    # Much of it is still an event, and no kind of fault is missing.
    assert rules[None] > count / 50
    assert {"not_json", "number_out_of_range", "wrong_type", "missing", "nul_character"} <= set(rules)


def test_only_rejected_records_carry_their_bytes_where_none_else_are_asked_for():
    raw = raw_table([encode(VIEW), b"bad", encode(VIEW)]).set_column(6, "key", pa.array([b"k"] * 3))
    (kept,), (left,) = (list(parse_batches(iter(raw.to_batches()), RULES, keep)) for keep in (True, False))
    assert kept["key"].to_pylist() == [b"k"] * 3
    assert kept["value"].to_pylist() == [encode(VIEW), b"bad", encode(VIEW)]
    assert (left["key"].to_pylist(), left["value"].to_pylist()) == ([None, b"k", None], [None, b"bad", None])
    assert kept.drop_columns(["key", "value"]) == left.drop_columns(["key", "value"])


def test_bytes_that_are_left_out_take_no_room():
    large = encode(VIEW | {"properties": {"text": "x" * 10_000}})
    (left,) = parse_batches(iter(raw_table([large, b"bad", large]).to_batches()), RULES, keep_bytes=False)
    assert left["value"].to_pylist() == [None, b"bad", None]
    # An array of nulls may well have the bytes behind them, and they would be carried all the same.
    assert left["value"].nbytes < 100


@pytest.mark.long_on_spark
def test_reloaded_thank_you_page_is_one_purchase(engine: Engine):
    line = VIEW | {"event_type": "purchase", "order_id": "o1", "price": 10, "quantity": 2}
    values = [
        line | {"event_id": "a"},
        line | {"event_id": "b", "timestamp": "2024-05-01T10:05:00Z"},
        line | {"event_id": "c", "quantity": 3},
        line | {"event_id": "d", "product_id": "p2"},
        line | {"event_id": "e", "order_id": ""},
        line | {"event_id": "f", "order_id": ""},
    ]
    classified = judged(engine, parse(engine, raw_table(map(encode, values))))
    ids = engine.to_arrow(classified.events.select("event_id"))["event_id"].to_pylist()
    assert sorted(ids) == ["a", "c", "d", "e", "f"]
    (duplicate,) = engine.to_arrow(classified.duplicates).to_pylist()
    assert (duplicate["event_id"], duplicate["reason"]) == ("b", "same_order_line")


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_equal_lines_of_a_moment_are_units_in_whatever_batches_and_partitions_they_come(engine: Engine):
    line = PURCHASE | {"price": 10}
    again = line | {"timestamp": "2024-05-01T10:05:00Z"}
    units = [
        # (batch, partition, record): three units, and the page of two of them once more.
        (1, 0, line | {"event_id": "a"}),
        (2, 1, line | {"event_id": "b"}),
        (2, 0, again | {"event_id": "a again"}),
        (3, 2, line | {"event_id": "c"}),
        (3, 1, again | {"event_id": "b again"}),
        (3, 1, line | {"event_id": "a"}),
        (3, 0, line | {"event_id": "another's", "user_id": "u2"}),
    ]
    events, duplicates = EVENTS.arrow.empty_table(), DUPLICATE_EVENTS.arrow.empty_table()
    for batch in (1, 2, 3):
        raw = pa.concat_tables(
            raw_table([encode(record)], batch, offset).set_column(
                1, RAW_EVENTS.arrow.field("partition"), pa.array([partition], pa.int32())
            )
            for offset, (its_batch, partition, record) in enumerate(units)
            if its_batch == batch
        )
        classified = judged(engine, parse(engine, raw), events, duplicates)
        new_events = conform(engine.to_arrow(classified.events), EVENTS)
        new_duplicates = conform(engine.to_arrow(classified.duplicates), DUPLICATE_EVENTS)
        events = pa.concat_tables([events, new_events])
        duplicates = pa.concat_tables([duplicates, new_duplicates])
    assert sorted(events["event_id"].to_pylist()) == ["a", "another's", "b", "c"]
    reasons = zip(duplicates["event_id"].to_pylist(), duplicates["reason"].to_pylist(), strict=True)
    assert sorted(reasons) == [
        ("a", "same_event"),
        ("a again", "same_order_line"),
        ("b again", "same_order_line"),
    ]


def _random_records(seed: int, count: int) -> list[bytes]:
    """Records in which ids, payloads and order lines repeat often and in every combination."""
    source = random.Random(seed)
    records = []
    for _ in range(count):
        payload = VIEW | {"event_id": f"id{source.randrange(count // 3)}", "price": source.randrange(3)}
        payload["timestamp"] = f"2024-05-01T10:0{source.randrange(2)}:00Z"
        if source.random() < 0.5:
            payload |= {"event_type": "purchase", "order_id": f"o{source.randrange(count // 6)}"}
        records.append(b"broken" if source.random() < 0.05 else encode(payload))
    return records


@pytest.mark.slow
@pytest.mark.parametrize(
    "batch_sizes",
    [
        [120],
        pytest.param([40, 40, 40], marks=pytest.mark.long_on_spark),
        pytest.param([1, 7, 50, 2, 60], marks=pytest.mark.long),
    ],
)
def test_each_record_is_in_the_one_table_that_judging_one_by_one_gives(engine: Engine, batch_sizes):
    records = _random_records(seed=7, count=120)
    expected = [verdict for verdict, _ in verdicts(records)]
    assert len(set(expected)) == 4
    events, duplicates = EVENTS.arrow.empty_table(), DUPLICATE_EVENTS.arrow.empty_table()
    tables: dict[int, list[str]] = {offset: [] for offset in range(len(records))}
    start = 0
    for number, size in enumerate(batch_sizes, 1):
        df = parse(engine, raw_table(records[start : start + size], number, start))
        classified = judged(engine, df, events, duplicates)
        new = {
            "events": conform(engine.to_arrow(classified.events), EVENTS),
            "duplicates": conform(engine.to_arrow(classified.duplicates), DUPLICATE_EVENTS),
            "conflicts": engine.to_arrow(classified.conflicts),
            "rejected": engine.to_arrow(classified.rejected),
        }
        for name, rows in new.items():
            for offset in rows["offset"].to_pylist():
                tables[offset].append(name)
        events = pa.concat_tables([events, new["events"]])
        duplicates = pa.concat_tables([duplicates, new["duplicates"]])
        start += size
    assert tables == {offset: [verdict] for offset, verdict in enumerate(expected)}
    assert Counter(events["event_id"].to_pylist()).most_common(1)[0][1] == 1


@pytest.mark.long_on_spark
def test_conflict_says_which_record_came_first(engine: Engine):
    records = [VIEW | {"event_id": "x"}, VIEW | {"event_id": "x", "price": 1}]
    classified = judged(engine, parse(engine, raw_table(map(encode, records), first_offset=10)))
    (conflict,) = engine.to_arrow(classified.conflicts).to_pylist()
    assert (conflict["offset"], conflict["first_offset"]) == (11, 10)
    assert conflict["first_payload_hash"] == parsed(VIEW).payload_hash != conflict["payload_hash"]


@pytest.mark.parametrize(
    ("timestamp", "moment", "day"),
    [
        ("2024-03-30T23:30:00", "2024-03-30T22:30:00Z", "2024-03-30"),
        ("2024-03-31 00:30:00", "2024-03-30T23:30:00Z", "2024-03-31"),
        # Clocks pass over this time: it is read as if they had not been put forward yet.
        ("2024-03-31T02:30:00", "2024-03-31T01:30:00Z", "2024-03-31"),
        ("2024-04-01T00:00:00", "2024-03-31T22:00:00Z", "2024-04-01"),
        # They show this one twice: it is the first.
        ("2023-10-29T02:30:00", "2023-10-29T00:30:00Z", "2023-10-29"),
        ("2023-10-29T23:59:59", "2023-10-29T22:59:59Z", "2023-10-29"),
        # An offset wins, and so do seconds since 1970.
        ("2024-03-31T23:30:00Z", "2024-03-31T23:30:00Z", "2024-04-01"),
        ("2024-03-31T23:30:00-05:00", "2024-04-01T04:30:00Z", "2024-04-01"),
        (1711924200, "2024-03-31T22:30:00Z", "2024-04-01"),
        # Digits of the calendar are the shop's.
        (202403310030, "2024-03-30T23:30:00Z", "2024-03-31"),
    ],
)
def test_a_time_without_an_offset_and_the_day_are_those_of_the_shops_clock(timestamp, moment, day):
    berlin = ValidationRules.of(Settings(_env_file=None, shop_time_zone="Europe/Berlin"))
    event = parsed({**VIEW, "timestamp": timestamp}, berlin)
    assert EPOCH + event.event_time * MICROSECOND == datetime.fromisoformat(moment)
    assert EPOCH.date() + timedelta(days=event.event_date) == date.fromisoformat(day)


def test_the_first_day_of_a_shop_begins_at_its_midnight():
    rules = ValidationRules.of(
        Settings(_env_file=None, shop_time_zone="America/New_York", events_start_date="2024-05-01")
    )
    assert parsed({**VIEW, "timestamp": "2024-05-01T04:00:00Z"}, rules)
    with pytest.raises(Rejection, match="before_events_start_date"):
        parsed({**VIEW, "timestamp": "2024-05-01T03:59:59Z"}, rules)
