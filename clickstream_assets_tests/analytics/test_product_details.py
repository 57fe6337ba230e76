"""What events say of products, and what a feed says instead."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.product_details import (
    IMAGES,
    LINKS,
    NAMES,
    NAMING_TYPES,
    kinds,
    latest,
    products,
    seen_products,
)
from clickstream_assets.catalogue import EXCHANGE_RATES, PRODUCT_FEED, PRODUCTS, SEEN_PRODUCTS
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics import records
from clickstream_assets_tests.analytics.records import at, event_table, money, rows_of

Row = dict[str, Any]


def event(kind: str, time: str, product: str | None = "p1", properties: Any = None, **more: Any) -> Row:
    text = None if properties is None else json.dumps(properties, sort_keys=True, separators=(",", ":"))
    return records.event(kind, f"2024-05-01 {time}", product_id=product, properties=text, **more)


def seen(engine: Engine, *events: Row) -> list[Row]:
    return rows_of(engine, seen_products(engine.from_arrow(event_table(events))), "product_id")


def fed(engine: Engine, *rows: Row) -> Any:
    whole = [dict.fromkeys(PRODUCT_FEED.column_names) | {"withdrawn": False} | row for row in rows]
    return engine.from_arrow(pa.Table.from_pylist(whole, schema=PRODUCT_FEED.arrow))


@pytest.mark.long_on_spark
def test_the_last_that_is_said_counts_for_each_column_by_itself(engine: Engine):
    rows = seen(
        engine,
        event("view", "10:00", properties={"name": "Shoe"}, brand="Acme", price=Decimal(20), currency="EUR"),
        event("view", "10:02", properties={"item_name": " Red shoe "}, price=Decimal(18)),
        event("view", "10:01", properties={"name": "Old"}, product_category="shoes.red", brand="Ajax"),
        # What was given back need not be the price, and is later than all.
        event("refund", "10:05", price=Decimal(3), currency="EUR"),
        event("view", "10:03", "p2", price=Decimal("-1")),
        event("search", "10:04", None, {"name": "no product"}),
        event("custom", "10:06", "p3", {"name": "a test"}),
    )
    assert [row["product_id"] for row in rows] == ["p1", "p2"]
    assert {name: value for name, value in rows[0].items() if value is not None} == {
        "product_id": "p1",
        "name": "Red shoe",
        "name_at": at("2024-05-01 10:02"),
        "category": "shoes.red",
        "category_at": at("2024-05-01 10:01"),
        "brand": "Ajax",
        "brand_at": at("2024-05-01 10:01"),
        "price": money("18"),
        "price_at": at("2024-05-01 10:02"),
    }
    assert set(rows[1].values()) == {"p2", None}


def test_a_category_without_a_name_is_of_the_kind_of_its_id(engine: Engine):
    said = engine.from_arrow(
        event_table(
            [
                event(
                    "view", "10:00", "named", {"category_id": "17"}, product_category="shoes", brand="Acme"
                ),
                event("view", "10:00", "unnamed", {"category_id": "16"}),
                event("view", "10:01", "unnamed", {"category_id": 17}),
                event("view", "10:00", "neither", {"of": {"category_id": "17"}}),
            ]
        )
    )
    seen_rows = seen_products(said)
    found = kinds(products(seen_rows, fed(engine, {"product_id": "fed", "category": "hats"})), seen_rows)
    assert rows_of(engine, found, "product_id") == [
        {"product_id": "fed", "category": "hats", "brand": None},
        {"product_id": "named", "category": "shoes", "brand": "Acme"},
        {"product_id": "neither", "category": None, "brand": None},
        {"product_id": "unnamed", "category": "17", "brand": None},
    ]


@pytest.mark.long_on_spark
def test_what_trackers_call_a_name_a_picture_or_a_page_is_one(engine: Engine):
    address = "https://shop.example/a?b=1&c=ü"
    names = [event("view", "10:00", f"n{n}", {name: 'Käse \'n "x"'}) for n, name in enumerate(NAMES)]
    images = [event("view", "10:00", f"i{n}", {name: address}) for n, name in enumerate(IMAGES)]
    links = [event("view", "10:00", f"l{n}", {name: address}) for n, name in enumerate(LINKS)]
    rows = seen(engine, *names, *images, *links)
    assert {row["name"] for row in rows if row["product_id"][0] == "n"} == {'Käse \'n "x"'}
    assert {row["image"] for row in rows if row["product_id"][0] == "i"} == {address}
    assert {row["link"] for row in rows if row["product_id"][0] == "l"} == {address}


@pytest.mark.long_on_spark
@pytest.mark.parametrize(
    "properties",
    [
        {"context": {"library": {"name": "analytics.js"}}},
        {"name": ["a", "b"]},
        {"name": {"de": "Schuh"}},
        {"name": None, "image": None},
        {"name": "  "},
        {"name": "x" * 513},
        {"image": "javascript:alert(1)"},
        {"image_url": "/pictures/1.png"},
        {"link": "data:text/html,x"},
        {"url": 'https://shop.example/"onload="x'},
        {"url": "https://shop.example/a b"},
        {"url": f"https://shop.example/{'x' * 2048}"},
    ],
)
def test_what_is_no_name_and_no_address_of_the_web_is_left_out(engine: Engine, properties: Any):
    # The address that follows is taken, though it has another name.
    others = {"image_link": "http://shop.example/i.png", "product_url": "http://shop.example/p"}
    (row,) = seen(engine, event("view", "10:00", properties=properties))
    assert [row[name] for name in ("name", "image", "link")] == [None] * 3
    (row,) = seen(engine, event("view", "10:00", properties=properties | others))
    assert [row[name] for name in ("name", "image", "link")] == [None, *others.values()]


@pytest.mark.long_on_spark
def test_a_short_description_stands_for_a_name_where_there_is_none(engine: Engine):
    rows = seen(
        engine,
        event("purchase", "10:00", "a", {"description": "WHITE LANTERN", "country": "UK"}),
        event("view", "10:00", "b", {"description": "Soft", "name": "Jumper"}),
        event("view", "10:00", "c", {"description": "Soft. " * 20}),
    )
    assert [row["name"] for row in rows] == ["WHITE LANTERN", "Jumper", None]


@pytest.mark.long_on_spark
def test_robots_name_no_product(engine: Engine):
    assert seen(engine, event("view", "10:00", properties={"name": "x"}, is_bot=True)) == []


def by_hand(events: list[Row]) -> dict[str, Row]:
    """The latest of each column, by plain loops; of one moment the greatest."""
    found: dict[str, Row] = {}
    for each in sorted(events, key=lambda row: row["event_time"]):
        row = found.setdefault(each["product_id"], dict.fromkeys(SEEN_PRODUCTS.column_names))
        row["product_id"] = each["product_id"]
        said = {
            "name": json.loads(each["properties"] or "{}").get("name"),
            "category": each.get("product_category"),
            "price": each.get("price") if each["event_type"] != "refund" else None,
        }
        for field, value in said.items():
            if value is None:
                continue
            rank = (each["event_time"], value)
            if row[field] is None or rank >= (row[f"{field}_at"], row[field]):
                row[field], row[f"{field}_at"] = value, each["event_time"]
    return found


@pytest.mark.long_on_spark
@pytest.mark.parametrize("seed", range(3))
def test_in_whatever_order_and_parts_events_come_the_same_is_known(engine: Engine, seed: int):
    source = random.Random(seed)
    events = [
        event(
            source.choice(NAMING_TYPES),
            f"10:{source.randrange(20):02}",
            f"p{source.randrange(6)}",
            {"name": f"n{source.randrange(9)}"} if source.random() < 0.5 else None,
            product_category=source.choice([None, "a", "b.c"]),
            price=source.choice([None, *map(money, ("1", "2.5"))]),
        )
        for _ in range(150)
    ]
    expected = [row for _, row in sorted(by_hand(events).items())]
    assert seen(engine, *events) == expected
    source.shuffle(events)
    parts = [events[:40], events[40:50], events[50:]]
    known = engine.from_arrow(SEEN_PRODUCTS.arrow.empty_table())
    for part in parts:
        new = seen_products(engine.from_arrow(event_table(part)))
        known = engine.from_arrow(engine.to_arrow(latest(known.union(new))))
    assert rows_of(engine, known, "product_id") == expected


def test_a_feed_overrides_field_by_field_and_a_price_comes_with_its_currency(engine: Engine):
    known = seen_products(
        engine.from_arrow(
            event_table(
                [
                    event(
                        "view", "10:00", "both", {"name": "Seen", "image": "http://a.example/i"}, brand="B"
                    ),
                    event("view", "10:00", "both", price=Decimal(9), currency="EUR"),
                    event("view", "10:00", "gone", {"name": "Gone"}, price=Decimal(9)),
                    event("view", "10:00", "seen", {"name": "Seen"}, price=Decimal(9), currency="EUR"),
                ]
            )
        )
    )
    feed = fed(
        engine,
        {"product_id": "both", "name": "Told", "price": Decimal(7), "available": True},
        {"product_id": "gone", "name": "Old name", "withdrawn": True, "available": True},
        {"product_id": "told", "category": "a.b", "price": Decimal(5), "currency": "USD", "available": False},
    )
    rows = rows_of(engine, products(known, feed, "EUR"), "product_id")
    assert [{name: value for name, value in row.items() if value is not None} for row in rows] == [
        {
            "product_id": "both",
            "name": "Told",
            "brand": "B",
            "image": "http://a.example/i",
            "price": money("7"),
            "currency": "EUR",
            "available": True,
        },
        # It stays known by its name, and cannot be bought.
        {
            "product_id": "gone",
            "name": "Old name",
            "price": money("9"),
            "currency": "EUR",
            "available": False,
        },
        {"product_id": "seen", "name": "Seen", "price": money("9"), "currency": "EUR"},
        {"product_id": "told", "category": "a.b", "price": money("5"), "currency": "USD", "available": False},
    ]
    assert list(rows[0]) == PRODUCTS.column_names


@pytest.mark.long_on_spark
def test_prices_that_events_say_are_in_the_shops_currency_where_there_is_a_rate(engine: Engine):
    known = seen_products(
        engine.from_arrow(
            event_table(
                event("view", "10:00", name, price=Decimal(10), currency=code)
                for name, code in (("chf", "CHF"), ("dkk", "DKK"), ("eur", "EUR"), ("none", None))
            )
        )
    )
    day = date(2024, 5, 1)
    rate = {"currency": "CHF", "since": day - timedelta(days=9), "rate": Decimal("1.05"), "is_shops": False}
    rates = engine.from_arrow(pa.Table.from_pylist([rate], schema=EXCHANGE_RATES.arrow))
    rows = rows_of(engine, products(known, fed(engine), "EUR", rates), "product_id")
    assert [(row["product_id"], row["price"], row["currency"]) for row in rows] == [
        ("chf", money("10.5"), "EUR"),
        ("dkk", money("10"), "DKK"),
        ("eur", money("10"), "EUR"),
        ("none", money("10"), "EUR"),
    ]
    rows = rows_of(engine, products(known, fed(engine)), "product_id")
    assert [row["currency"] for row in rows] == ["CHF", "DKK", "EUR", None]
