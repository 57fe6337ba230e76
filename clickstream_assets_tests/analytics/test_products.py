"""Products and categories of a day."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.products import category_conversion, product_performance
from clickstream_assets.catalogue import CATEGORY_CONVERSION, PRODUCT_PERFORMANCE
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics import by_hand, records
from clickstream_assets_tests.analytics.days import (
    FIRST,
    LAST,
    in_order,
    load,
    other_arrivals,
    simulated_lines,
    table_of,
)
from clickstream_assets_tests.analytics.records import day, event_table, money

DAYS = [FIRST + timedelta(days=number) for number in range(3)]


def event(user: str, time: str, product: str | None, kind: str = "view", **more: Any) -> dict[str, Any]:
    return records.event(kind, f"2024-05-0{time}", user, product_id=product, **more)


EVENTS = [
    event("a", "1 10:00", "p2", product_category="shoes"),
    event("b", "1 10:00", "p2", product_category="boots"),
    event("a", "1 09:00", "p1", product_category="hats"),
    event("a", "1 09:01", "p1"),
    event("a", "1 09:02", "p3", "click"),
    event("a", "1 09:03", "p3", "purchase", price=Decimal("9.99"), quantity=3),
    event("b", "1 09:04", "p3", "purchase", product_category="hats"),
    event("a", "1 09:05", None, "search"),
    event("c", "1 09:06", "p4", "add_to_cart", price=Decimal(5), product_category="bags"),
    event("c", "1 09:07", "p5", "remove_from_cart", product_category="belts"),
    event("a", "2 00:00", "p1", product_category="caps"),
]


def test_products_are_counted_and_ranked_by_views_each_day_for_itself(engine: Engine):
    rows = table_of(engine, product_performance(engine.from_arrow(event_table(EVENTS))), PRODUCT_PERFORMANCE)
    names = ("product_id", "view_count", "rank", "purchases", "quantity", "revenue", "users", "buyers")
    assert [
        tuple(row[name] for name in names) for row in rows if row["report_date"] == day("2024-05-01")
    ] == [
        ("p1", 2, 1, 0, 0, money("0"), 1, 0),
        ("p2", 2, 2, 0, 0, money("0"), 2, 0),
        ("p3", 0, 3, 2, 4, money("29.97"), 2, 2),
        ("p4", 0, 4, 0, 0, money("0"), 1, 0),
        ("p5", 0, 5, 0, 0, money("0"), 1, 0),
    ]
    # The last category that is named; of two at the same moment the same one whatever the order.
    assert [row["product_category"] for row in rows] == ["hats", "shoes", "hats", "bags", "belts", "caps"]
    assert [(row["product_id"], row["rank"]) for row in rows][-1] == ("p1", 1)
    # More purchases than views, none of them with a view before it.
    assert {row["conversion_rate"] for row in rows} == {Decimal("0.00")}


@pytest.mark.long_on_spark
def test_categories_are_those_that_the_events_name(engine: Engine):
    rows = table_of(engine, category_conversion(engine.from_arrow(event_table(EVENTS))), CATEGORY_CONVERSION)
    names = ("category", "views", "add_to_carts", "purchases", "revenue", "users", "conversion_rate")
    assert [
        tuple(row[name] for name in names) for row in rows if row["report_date"] == day("2024-05-01")
    ] == [
        ("bags", 0, 1, 0, money("0"), 1, Decimal("0.00")),
        ("boots", 1, 0, 0, money("0"), 1, Decimal("0.00")),
        ("hats", 1, 0, 1, money("0"), 2, Decimal("100.00")),
        ("shoes", 1, 0, 0, money("0"), 1, Decimal("0.00")),
        ("unknown", 1, 0, 1, money("29.97"), 1, Decimal("100.00")),
    ]


@pytest.mark.long_on_spark
def test_a_rate_rounds_halves_to_even_and_may_be_any_number_of_per_cent(engine: Engine):
    counts = {"a": (32, 1), "b": (32, 3), "c": (160, 1), "d": (1, 1500), "e": (3, 2), "f": (0, 7)}
    events = [
        event(f"u{number}", "1 10:00", category, kind, product_category=category)
        for category, (views, purchases) in counts.items()
        for kind, times in (("view", views), ("purchase", purchases))
        for number in range(times)
    ]
    rows = table_of(engine, category_conversion(engine.from_arrow(event_table(events))), CATEGORY_CONVERSION)
    assert [str(row["conversion_rate"]) for row in rows] == [
        "3.12",
        "9.38",
        "0.62",
        "150000.00",
        "66.67",
        "0.00",
    ]


def tables(engine: Engine, lines: list[bytes]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    events = shopper_events(*load(engine, lines), FIRST, LAST)
    return (
        table_of(engine, product_performance(events), PRODUCT_PERFORMANCE),
        table_of(engine, category_conversion(events), CATEGORY_CONVERSION),
    )


def test_the_tables_say_what_plain_loops_find_in_the_lines(engine: Engine):
    lines = simulated_lines(seed=3)
    read = by_hand.read(lines)
    products, categories = tables(engine, lines)
    assert products == in_order(
        (row for date in DAYS for row in by_hand.products(read, date)), PRODUCT_PERFORMANCE
    )
    assert categories == in_order(
        (row for date in DAYS for row in by_hand.categories(read, date)), CATEGORY_CONVERSION
    )
    assert sum(row["purchases"] for row in products) > 50


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_lines_that_come_late_twice_broken_or_in_another_order_make_the_same_tables(engine: Engine):
    clean = tables(engine, simulated_lines(4, bots=0.1))
    assert [tables(engine, arrived) for arrived in other_arrivals(4)] == [clean, clean]


@pytest.mark.long_on_spark
def test_what_is_sent_back_is_beside_what_was_sold(engine: Engine):
    shoe: dict[str, Any] = {"product_id": "shoe", "product_category": "shoes", "price": Decimal(20)}
    events = [
        records.event("purchase", "2024-05-01 10:00", **shoe, quantity=3),
        records.event("refund", "2024-05-01 12:00", "clerk", **shoe),
        # Of no product, and of no category.
        records.event("refund", "2024-05-01 12:00", product_id=None, price=Decimal(1)),
    ]
    df = engine.from_arrow(event_table(events))
    (row,) = table_of(engine, product_performance(df), PRODUCT_PERFORMANCE)
    sales = ("revenue", "refunds", "net_revenue")
    assert [row[name] for name in ("purchases", "quantity", *sales)] == [
        1,
        3,
        money("60"),
        money("20"),
        money("40"),
    ]
    rows = table_of(engine, category_conversion(df), CATEGORY_CONVERSION)
    assert [[row[name] for name in ("category", "purchases", "users", *sales)] for row in rows] == [
        ["shoes", 1, 1, money("60"), money("20"), money("40")],
        ["unknown", 0, 0, money("0"), money("1"), money("-1")],
    ]
