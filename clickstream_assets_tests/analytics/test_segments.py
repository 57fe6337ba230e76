"""Buyers and window shoppers."""

from __future__ import annotations

from decimal import Decimal

from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics.days import table_of
from clickstream_assets_tests.analytics.records import day, event, event_table, money


def test_who_purchased_that_day_is_a_buyer_that_day_alone(engine: Engine):
    events = event_table(
        [
            event("view", "2024-05-01 10:00", "a"),
            event("purchase", "2024-05-01 10:01", "a", price=Decimal("2.5"), quantity=2),
            event("view", "2024-05-02 10:00", "a"),
            event("add_to_cart", "2024-05-01 10:00", "b", price=Decimal(9)),
            event("search", "2024-05-01 23:59", "c", product_id=None),
        ]
    )
    rows = table_of(engine, user_segments(engine.from_arrow(events)), USER_SEGMENTS)
    assert [(r["report_date"], r["user_id"], r["segment"], r["events"], r["revenue"]) for r in rows] == [
        (day("2024-05-01"), "a", "buyer", 2, money("5")),
        (day("2024-05-01"), "b", "window_shopper", 1, money("0")),
        (day("2024-05-01"), "c", "window_shopper", 1, money("0")),
        (day("2024-05-02"), "a", "window_shopper", 1, money("0")),
    ]
