"""Rows of GA4's export that a query made flat are the events that the export's own rows are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clickstream_assets.ingest.dialects import dialect_of
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.settings import EventDialect
from clickstream_assets_tests.analytics.records import money
from clickstream_assets_tests.ingest.dialects import writers
from clickstream_assets_tests.ingest.dialects.test_dialects import found, kinds, one_of, rule_of, shown

ROW = {
    "event_name": "page_view",
    "event_timestamp": "2024-05-02 10:00:00",
    "user_pseudo_id": "11.22",
}


def flat(value: bytes, mark: str) -> dict[str, Any]:
    """Return a row of the export with its parameters, its one item and nested names as columns beside the others."""
    row = msgspec.json.decode(value)
    made: dict[str, Any] = {}
    for name, one in row.items():
        if name == "event_params":
            made |= {parameter["key"]: next(iter(parameter["value"].values())) for parameter in one}
        elif name == "items":
            made |= one[0] if one else {}
        elif isinstance(one, dict):
            made |= {f"{name}{mark}{inner}": value for inner, value in one.items()}
        else:
            made[name] = one
    return {name: value for name, value in made.items() if value is not None}


def one_product_each(seed: int) -> list[writers.Happening]:
    return [
        {**one, "products": one["products"][:1]}
        for one in writers.happenings(seed)
        if one["event_type"] != "identify"
    ]


@pytest.mark.parametrize("mark", ["_", "."])
def test_a_flat_table_is_the_same_events_as_the_export(mark: str, tmp_path: Path):
    nested = [writers.ga4(happened) for happened in one_product_each(1)]
    rows = [flat(value, mark) for value in nested]
    expected = [shown(event, set()) for event in found(*nested)]
    assert [shown(event, set()) for event in found(*rows)] == expected
    assert {event["event_type"] for event in expected} == set(kinds(found(*rows)))
    # As a file of text alone, too.
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
    events = EventFile(path)
    assert events.format == "CSV of ga4 events"
    assert [shown(event, set()) for event in found(*(value for _, value in events))] == expected


def test_columns_of_a_flat_table_are_read_by_their_names_and_the_others_are_kept():
    event = one_of(
        {
            **ROW,
            **{"event_id": "ev-1", "session_id": "s-9", "campaign": "spring", "currency": "EUR"},
            **{"source": "news", "medium": "email", "page_location": "https://shop.example/x"},
            **{"items_count": "0", "event_date": "20240502", "device_category": "mobile", "page_title": ""},
        }
    )
    read = (event.event_id, event.session_id, event.campaign, event.currency)
    assert read == ("ev-1", "s-9", "spring", "EUR")
    assert (event.event_type, event.anonymous_id) == ("page_view", "11.22")
    assert event.event_time == 1_714_644_000_000_000
    assert json.loads(event.properties) == {
        **{"source": "news", "medium": "email", "page_location": "https://shop.example/x"},
        **{"items_count": "0", "event_date": "20240502", "device_category": "mobile"},
    }


@pytest.mark.parametrize(
    ("columns", "product", "price", "quantity"),
    [
        ({"item_id": "P-1", "price": "12.50", "quantity": "2"}, "P-1", money("12.5"), 2),
        ({"item_id": "(not set)", "item_name": "Hat", "price": "9"}, "Hat", money("9"), None),
        ({"product_id": "P-1", "price": 3, "quantity": 1}, "P-1", money("3"), 1),
        ({"item_id": "P-1", "price": "", "price_in_usd": "4"}, "P-1", money("4"), None),
        # Of an app's purchase, whose amounts are millionths, nested or not.
        (
            {"event_name": "in_app_purchase", "product_id": "coins", "price": "1990000", "quantity": "1"},
            *("coins", money("1.99"), 1),
        ),
    ],
)
def test_the_product_of_a_flat_row_is_that_of_the_event(
    columns: dict[str, Any], product: str, price: Any, quantity: int | None
):
    order = {"transaction_id": "T-1", "item_category": "Hats", "item_variant": "red", "coupon": "(not set)"}
    event = one_of({**ROW, "event_name": "purchase", **order, **columns})
    assert (event.event_type, event.order_id, event.product_id) == ("purchase", "T-1", product)
    assert (event.price, event.quantity) == (price, quantity)
    left = json.loads(event.properties)
    assert left["item_variant"] == "red"
    assert not {"coupon", "transaction_id", "item_id"} & left.keys()


def test_a_flat_row_of_no_product_is_what_it_is_without_one():
    assert rule_of({**ROW, "event_name": "purchase", "transaction_id": "T-1", "value": "5"}) == (
        *("product_id", "missing"),
    )
    refund = one_of({**ROW, "event_name": "refund", "ecommerce_transaction_id": "T-1", "value": "70.5"})
    assert (refund.event_type, refund.order_id, refund.price) == ("refund", "T-1", money("70.5"))
    assert one_of({**ROW, "event_name": "view_item"}).event_type == "page_view"
    listed = one_of({**ROW, "event_name": "search", "search_term": "lamp", "item_id": "P-1"})
    assert (listed.query, json.loads(listed.properties)) == ("lamp", {"item_id": "P-1"})


def test_what_a_query_put_beside_the_exports_columns_is_kept():
    nested = {
        **ROW,
        **{"event_params": [{"key": "page_title", "value": {"string_value": "Own"}}], "platform": "WEB"},
        **{"user_properties": [{"key": "age", "value": {"int_value": "40"}}], "stream_id": "1"},
    }
    event = one_of({**nested, "page_title": "Other", "channel": "paid", "ga_session_id": "77"})
    assert json.loads(event.properties) == {"page_title": "Own", "channel": "paid"}
    assert event.session_id == "77"
    assert "40" not in (one_of({**ROW, "user_properties": "age 40"}).properties or "")


def test_a_flat_row_is_told_by_its_columns():
    for name in ("user_pseudo_id", "ga_session_id", "event_params"):
        row = {"event_name": "page_view", "event_timestamp": 1_714_644_000_000_000, name: "1"}
        assert dialect_of(row) is EventDialect.GA4
    assert dialect_of({"event_name": "x", "event_timestamp": 1}) is EventDialect.OWN
    assert rule_of({"ga_session_id": "77", **ROW, "user_pseudo_id": ""}) == ("user_id", "missing")
