"""Buyers and window shoppers."""

from __future__ import annotations

from decimal import Decimal

from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import Engine
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.records import at, day, event_table, money


def test_who_purchased_that_day_is_a_buyer_that_day_alone(engine: Engine):
    events = event_table(
        [
            {"user_id": "a", "event_time": at("2024-05-01 10:00")},
            {
                "user_id": "a",
                "event_time": at("2024-05-01 10:01"),
                "event_type": "purchase",
                "price": Decimal("2.5"),
                "quantity": 2,
            },
            {"user_id": "a", "event_time": at("2024-05-02 10:00")},
            {
                "user_id": "b",
                "event_time": at("2024-05-01 10:00"),
                "event_type": "add_to_cart",
                "price": Decimal(9),
            },
            {
                "user_id": "c",
                "event_time": at("2024-05-01 23:59"),
                "event_type": "search",
                "product_id": None,
            },
        ]
    )
    table = conform(engine.to_arrow(user_segments(engine.from_arrow(events))), USER_SEGMENTS)
    rows = table.sort_by([("report_date", "ascending"), ("user_id", "ascending")]).to_pylist()
    assert [(r["report_date"], r["user_id"], r["segment"], r["events"], r["revenue"]) for r in rows] == [
        (day("2024-05-01"), "a", "buyer", 2, money("5")),
        (day("2024-05-01"), "b", "window_shopper", 1, money("0")),
        (day("2024-05-01"), "c", "window_shopper", 1, money("0")),
        (day("2024-05-02"), "a", "window_shopper", 1, money("0")),
    ]
