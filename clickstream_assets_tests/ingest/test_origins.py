"""Where a rejected record has its wrong field, in its sender's words, and mending it there."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.origins import origin_of
from clickstream_assets.ingest.parsing import decode_any, items_of, parse_record, read_payload
from clickstream_assets.ingest.record_paths import (
    Every,
    Having,
    Path,
    nodes,
    parse_path,
    with_value,
    without,
    write_path,
)
from clickstream_assets.ingest.rejected import field_in_words, mend, send_again
from clickstream_assets.settings import EventDialect
from clickstream_assets_tests.analytics.records import RULES, encode
from clickstream_assets_tests.ingest.dialects.writers import WRITERS, Happening, happenings, own

AUTO = EventDialect.AUTO
NOW = 1_760_000_000_000_000
WRITE: dict[str, Callable[[Happening], bytes]] = {**WRITERS, "own": own}


def events(value: bytes | None, rules: ValidationRules = RULES) -> list[Any]:
    """What a record says."""
    return list(parse_record(value, NOW, rules))


REGISTRY = b"\x00\x00\x00\x00\x07"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("event_type", ("event_type",)),
        ("properties.products[1].price", ("properties", "products", 1, "price")),
        ("products[*].price", ("products", Every(), "price")),
        ("event_params[key=ga_session_id].value", ("event_params", Having("key", "ga_session_id"), "value")),
        ("$set.e-mail address", ("$set", "e-mail address")),
        ('a["b.c \\"d\\""][0][12]', ("a", 'b.c "d"', 0, 12)),
        ('["a=b"]', ("a=b",)),
    ],
)
def test_a_path_is_read_as_it_is_written(text: str, path: Any):
    assert parse_path(text) == path
    assert write_path(path) == text


@pytest.mark.parametrize("text", ["", ".a", "a.", "a..b", "a[", "a[x]", "a[1", "a]b", "a=b", "[key=]x"])
def test_what_is_no_path_is_refused(text: str):
    with pytest.raises(ValueError, match="path"):
        parse_path(text)


RECORD = {
    "a": {"b": [{"key": "x", "v": 1}, {"key": "y", "v": 2}, 3]},
    "json": '{"c": [1.50, {"d": "e"}]}',
    "n": None,
}


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("a.b[1].v", {**RECORD, "a": {"b": [{"key": "x", "v": 1}, {"key": "y", "v": 9}, 3]}}),
        ("a.b[key=x].v", {**RECORD, "a": {"b": [{"key": "x", "v": 9}, {"key": "y", "v": 2}, 3]}}),
        ("a.b[*].v", {**RECORD, "a": {"b": [{"key": "x", "v": 9}, {"key": "y", "v": 9}, 3]}}),
        ("a.b[*]", {**RECORD, "a": {"b": [9, 9, 9]}}),
        ("json.c[1].d", {**RECORD, "json": '{"c":[1.50,{"d":9}]}'}),
        ("n.new.one", {**RECORD, "n": {"new": {"one": 9}}}),
        ("z.new", {**RECORD, "z": {"new": 9}}),
        # What is not there is not made up.
        ("a.b[7].v", RECORD),
        ("a.b[key=z].v", RECORD),
        ("a.b[2].v.w", RECORD),
        ("z.list[1].v", RECORD),
        ("n.list[*]", RECORD),
        ("a.b[*].v.w", RECORD),
    ],
)
def test_a_value_is_set_where_the_path_leads(path: str, changed: Any):
    assert with_value(RECORD, parse_path(path), 9, decode_any) == changed


def test_a_value_is_taken_out_where_the_path_leads():
    assert without(RECORD, parse_path("a.b[*].v"), decode_any)["a"] == {"b": [{"key": "x"}, {"key": "y"}, 3]}
    assert without(RECORD, parse_path("a.b[0]"), decode_any)["a"] == {"b": [{"key": "y", "v": 2}, 3]}
    assert without(RECORD, parse_path("json.c[1].d"), decode_any)["json"] == '{"c":[1.50,{}]}'
    for nowhere in ("a.c", "z", "a.b[9].v", "n.x", "a.b[2].v"):
        assert without(RECORD, parse_path(nowhere), decode_any) == RECORD


def purchase(form: str) -> tuple[bytes, int]:
    """An order of several products as a tracker writes it, and how many they are."""
    happened = next(h for h in happenings(3) if h["event_type"] == "purchase" and len(h["products"]) > 1)
    return WRITE[form](happened), len(happened["products"])


def broken(value: bytes, path: str, wrong: Any) -> bytes:
    """The record with another value at a path; `wrong` of None takes it out."""
    return mend(value, {} if wrong is None else {parse_path(path): wrong}, [parse_path(path)], AUTO) or b""


_SNOWPLOW = "contexts_com_snowplowanalytics_snowplow_ecommerce"


@pytest.mark.parametrize(
    ("form", "field", "path", "wrong"),
    [
        ("own", "price", "items[1].price", "abc"),
        ("own", "product_id", "items[1].product_id", None),
        ("own", "timestamp", "timestamp", None),
        ("segment", "price", "properties.products[1].price", "abc"),
        ("segment", "price", "properties.products[1].price", {"amount": 3}),
        ("segment", "quantity", "properties.products[1].quantity", "many"),
        ("segment", "product_id", "properties.products[1].product_id", None),
        ("segment", "product_id", "properties.products[1].product_id", ""),
        ("segment", "timestamp", "timestamp", "yesterday"),
        ("segment", "event_type", "event", None),
        ("ga4", "price", "items[1].price", "abc"),
        ("ga4", "product_id", "items[1].item_id", None),
        ("ga4", "quantity", "items[1].quantity", "1,5,5"),
        ("ga4", "timestamp", "event_timestamp", "-"),
        ("shopify", "price", "data.checkout.lineItems[1].finalLinePrice.amount", "abc"),
        ("shopify", "quantity", "data.checkout.lineItems[1].quantity", "many"),
        ("shopify", "timestamp", "timestamp", None),
        ("snowplow", "price", f"{_SNOWPLOW}_product_1[1].price", "abc"),
        ("snowplow", "product_id", f"{_SNOWPLOW}_product_1[1].id", None),
        ("snowplow", "timestamp", "derived_tstamp", "1. Mai"),
        ("snowplow_contexts", "price", "contexts.data[2].data.price", "abc"),
        ("snowplow_tsv", "price", "contexts.data[2].data.price", "abc"),
        ("snowplow_tsv", "product_id", "contexts.data[2].data.id", None),
        ("snowplow_tsv", "timestamp", "derived_tstamp", "1. Mai"),
    ],
)
def test_a_wrong_field_is_found_in_its_senders_words_and_mended_there(
    form: str, field: str, path: str, wrong: Any
):
    value, number = purchase(form)
    before = events(value)
    assert len(before) == number
    record = broken(value, path, wrong)
    found = events(record)
    item, rejection = next((n, one) for n, one in enumerate(found, 1) if isinstance(one, Rejection))
    assert rejection.field == field
    assert item == (2 if "[" in path else 1)
    origin = origin_of(record, item, field, RULES)
    assert origin
    assert (origin.words, origin.dialect) == (path, form.partition("_")[0])
    assert origin.path
    (good,) = [node for place, node in _nodes(value) if place == path]
    assert events(mend(record, {origin.path: good}, [], AUTO)) == before


def _nodes(value: bytes) -> list[tuple[str, Any]]:
    return [(write_path(path), node) for path, node in nodes(read_payload(value, AUTO)[0], decode_any)]


@pytest.mark.parametrize("form", WRITE)
def test_every_own_field_of_every_record_is_found_where_its_dialect_reads_it(form: str):
    """What is written at the place is what the item then has, whatever the product and the tracker."""
    passed_on = 0
    for happened in happenings(8, 40):
        if form == "shopify" and happened["event_type"] in ("click", "add_to_wishlist", "refund", "identify"):
            continue
        value = WRITE[form](happened)
        payload, dialect = read_payload(value, AUTO)
        for item, translated in enumerate(items_of(payload, dialect), start=1):
            assert not isinstance(translated, Rejection)
            fields, _ = translated
            for field in fields.keys() & {
                "user_id",
                "anonymous_id",
                "timestamp",
                "product_id",
                "price",
                "quantity",
            }:
                origin = origin_of(value, item, field, RULES)
                assert origin
                assert origin.path, (field, value)
                other = with_value(payload, origin.path, "other", decode_any)
                assert items_of(other, dialect)[item - 1][0][field] == "other"  # type: ignore[index]
                passed_on += 1
    assert passed_on > 100


def test_a_call_of_a_batch_and_an_event_of_posthogs_are_mended_in_their_place():
    call = {
        "type": "track",
        "event": "Product Added",
        "timestamp": "2024-05-01T12:00:00Z",
        "properties": {"sku": "p"},
    }
    batch = encode(
        {"batch": [{**call, "userId": "u"}, {**call, "messageId": "m"}], "sentAt": "2024-05-01T12:00:01Z"}
    )
    assert field_in_words(batch, 2, "user_id", RULES) == "user_id (batch[1].userId in segment)"
    mended = mend(batch, {parse_path("batch[*].userId"): "v"}, [], AUTO)
    assert [event.user_id for event in events(mended)] == ["v", "v"]

    properties = {"$lib": "web", "product_id": "p", "price": "free"}
    text = msgspec.json.encode(properties).decode()
    posthog = encode(
        {
            "event": "order completed",
            "distinct_id": "d",
            "timestamp": "2024-05-01T12:00:00Z",
            "properties": text,
        }
    )
    assert field_in_words(posthog, 1, "price", RULES) == "price (properties.price in segment)"
    mended = mend(posthog, {parse_path("properties.price"): Decimal("1.50")}, [], AUTO)
    assert mended
    assert msgspec.json.decode(mended)["properties"] == text.replace('"free"', "1.50")
    (event,) = events(mended)
    assert (event.event_type, event.price) == ("purchase", Decimal("1.5"))


def test_a_parameter_of_ga4s_is_named_by_its_key():
    row = {
        "event_name": "search",
        "event_timestamp": "1714564800000000",
        "user_pseudo_id": "a",
        "event_params": [
            {"key": "ga_session_id", "value": {"int_value": "7"}},
            {"key": "search_term", "value": {"string_value": {"bad": 1}}},
        ],
    }
    words = field_in_words(encode(row), 1, "query", RULES)
    assert words == "query (event_params[key=search_term].value.string_value in ga4)"


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[1]", b"Obj\x01avro", b"\x00\x00\x00\x00\x09\x0c\x0a\x02", b"a\tb"]
)
def test_what_has_no_fields_is_in_no_ones_words(value: bytes | None):
    assert origin_of(value, 1, None, RULES) is None
    assert field_in_words(value, 1, None, RULES) == "(record)"
    with pytest.raises(Rejection):
        mend(value, {("event_type",): "view"}, [], AUTO)


def test_what_is_around_a_record_stays_and_a_line_keeps_its_other_columns():
    value, _ = purchase("segment")
    mended = mend(REGISTRY + value, {("userId",): "new"}, [], AUTO)
    assert mended
    assert mended.startswith(REGISTRY + b'{"type"')
    assert {event.user_id for event in events(mended)} == {"new"}

    line, _ = purchase("snowplow_tsv")
    line = b"a-shop\tweb" + line[1:] + b"\r\n"
    changes: dict[Path, Any] = {
        ("user_id",): "u\tv",
        ("mkt_campaign",): None,
        ("true_tstamp",): "2024-05-01 12:00:00",
    }
    mended = mend(line, changes, [("derived_tstamp",)], AUTO)
    assert mended
    columns = mended.removesuffix(b"\r\n").split(b"\t")
    assert (len(columns), columns[:2], columns[12]) == (131, [b"a-shop", b"web"], b"u v")
    assert {event.user_id for event in events(mended)} == {"u v"}
    with pytest.raises(Rejection, match="no_such_column"):
        mend(line, {("price",): 1}, [], AUTO)


def test_a_mended_record_is_sent_to_its_topic_and_stays_in_its_dialect():
    value, _ = purchase("segment")
    row = {"partition": 0, "offset": 3, "key": b"k", "item": 2}
    records = [
        {**row, "topic": "web", "value": broken(value, "properties.products[1].price", "abc")},
        {**row, "topic": "gone", "value": value},
        {**row, "topic": "own", "value": own(next(happenings(1)))},
    ]
    sent: list[tuple[bytes | None, bytes, str]] = []
    rules = replace(RULES, topic_dialects="web=segment,own=own")
    price = {parse_path("properties.products[*].price"): Decimal("2.5")}
    resent = send_again(records, lambda *one: sent.append(one), rules, ["web", "own"], NOW, price)
    assert [(key, topic) for key, _, topic in sent] == [(b"k", "web"), (b"k", "own")]
    assert {event.price for event in events(sent[0][1], rules.of_topic("web"))} == {Decimal("2.5")}
    assert resent.still_rejected == {"topic_not_read": 1}
    # An own field would make it an own record.
    changes: dict[Path, Any] = {("event_type",): "view"}
    told = send_again(records[:1], lambda *_: None, RULES, ["web"], NOW, changes)
    assert (told.still_rejected, told.example) == (
        {"other_dialect": 1},
        "web/0, offset 3: (record): other_dialect",
    )
