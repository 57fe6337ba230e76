"""A day in one row."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.summary import daily_summary
from clickstream_assets.catalogue import DAILY_SUMMARY
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets_tests.analytics import by_hand, records
from clickstream_assets_tests.analytics.days import (
    FIRST,
    GAP,
    LAST,
    load,
    other_arrivals,
    simulated_lines,
    table_of,
    visits_of,
)
from clickstream_assets_tests.analytics.records import at, day, event_table, money


def summarise(engine: Engine, events: list[dict[str, Any]], first: str, last: str) -> list[dict[str, Any]]:
    df = engine.from_arrow(event_table(events))
    visits = visits_of(engine, df, day(first), day(last))
    return summaries(engine, df, visits, day(first), day(last))


def summaries(
    engine: Engine, events: DataFrame, visits: DataFrame, first: date = FIRST, last: date = LAST
) -> list[dict[str, Any]]:
    shoppers = shopper_events(events, visits, first, last)
    return table_of(
        engine, daily_summary(shoppers, user_segments(shoppers), events, visits, first, last), DAILY_SUMMARY
    )


def event(user: str, time: str, kind: str = "view", **more: Any) -> dict[str, Any]:
    return records.event(kind, f"2024-05-0{time}", user, **more)


def test_a_day_is_summed_up_without_bots_who_are_counted_apart(engine: Engine):
    start = at("2024-05-01 12:00")
    (row,) = summarise(
        engine,
        [
            event("a", "1 10:00"),
            event(
                "a", "1 10:05", "purchase", price=Decimal("10.01"), quantity=2, order_id="o1", currency="USD"
            ),
            event("a", "1 10:05:30", "purchase", price=Decimal("1"), order_id="o1", currency="USD"),
            # Without an order id: two in the same minute are one order, the third is another.
            event("b", "1 11:00:01", "purchase", price=Decimal("3")),
            event("b", "1 11:00:59", "purchase", price=Decimal("4"), product_id="p2"),
            event("b", "1 11:01:00", "purchase", price=Decimal("5"), currency="EUR"),
            # Another's order has the same id; what is only viewed has no part in the currencies.
            event("b", "1 11:02:00", "purchase", price=Decimal("0"), order_id="o1"),
            event("b", "1 11:03:00", price=Decimal("7"), currency="GBP"),
            event("c", "1 11:00:30", "add_to_cart"),
            event("d", "1 23:50"),
            event("d", "2 00:10"),
            event("robot", "1 12:00", is_bot=True),
            *({"user_id": "fast", "event_time": start + timedelta(milliseconds=n)} for n in range(100)),
        ],
        "2024-05-01",
        "2024-05-01",
    )
    assert row == {
        "report_date": day("2024-05-01"),
        "total_events": 10,
        "buyer_count": 2,
        "window_shopper_count": 2,
        "buyer_rate": Decimal("50.00"),
        "users": 4,
        "sessions": 4,
        "bounced_sessions": 1,
        "bounce_rate": Decimal("25.00"),
        "views": 3,
        "add_to_carts": 1,
        "purchases": 6,
        "orders": 4,
        "revenue": money("33.02"),
        "refunds": money("0"),
        "net_revenue": money("33.02"),
        "average_order_value": money("8.255"),
        "converted_sessions": 2,
        "conversion_rate": Decimal("50.00"),
        "bot_events": 101,
        "bot_sessions": 2,
        "currencies": ["EUR", "USD"],
        "currency": "USD",
        "unconverted": 0,
    }


@pytest.mark.long_on_spark
@pytest.mark.slow
def test_refunds_are_of_the_day_of_the_refund_and_leave_revenue_as_it_was(engine: Engine):
    sold: dict[str, Any] = {"price": Decimal(20), "order_id": "R1"}
    rows = summarise(
        engine,
        [
            event("u", "1 10:00", event_type="purchase", quantity=3, **sold),
            event("u", "3 10:00", event_type="refund", quantity=1, **sold),
            event("v", "3 11:00", event_type="purchase", price=Decimal(5)),
        ],
        first="2024-05-01",
        last="2024-05-03",
    )
    assert [
        (row["report_date"].day, row["orders"], row["revenue"], row["refunds"], row["net_revenue"])
        for row in rows
    ] == [(1, 1, money("60"), money("0"), money("60")), (3, 1, money("5"), money("20"), money("-15"))]


@pytest.mark.long_on_spark
def test_a_day_without_events_has_no_row_and_one_of_bots_alone_is_all_zero(engine: Engine):
    rows = summarise(engine, [event("robot", "2 12:00", is_bot=True)], first="2024-05-01", last="2024-05-03")
    (row,) = rows
    assert row["report_date"] == day("2024-05-02")
    assert {name for name, value in row.items() if value} == {"report_date", "bot_events", "bot_sessions"}
    assert row["average_order_value"] is None


def test_the_summary_says_what_plain_loops_find_in_the_lines(engine: Engine):
    lines = simulated_lines(seed=3)
    read = by_hand.read(lines)
    events, visits = load(engine, lines)
    rows = summaries(engine, events, visits)
    expected = [by_hand.summary(read, FIRST + timedelta(days=number), GAP) for number in range(3)]
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    assert [row["bot_events"] + row["bot_sessions"] for row in rows] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_lines_that_come_late_twice_broken_or_in_another_order_make_the_same_summary(engine: Engine):
    clean, *others = (
        summaries(engine, *load(engine, arrived))
        for arrived in (simulated_lines(4, bots=0.1), *other_arrivals(4))
    )
    assert all(row["bot_events"] for row in clean)
    assert others == [clean, clean]
