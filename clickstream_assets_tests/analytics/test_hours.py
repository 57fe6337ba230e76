"""A day, hour by hour."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.hours import hourly_summary
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.sessions import sessions
from clickstream_assets.catalogue import HOURLY_SUMMARY
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
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
)
from clickstream_assets_tests.analytics.records import at, day, event_table, money


def hours_of(
    engine: Engine,
    events: DataFrame,
    visits: DataFrame,
    first: date = FIRST,
    last: date = LAST,
    clock: ShopClock = UTC_CLOCK,
) -> list[dict[str, Any]]:
    shoppers = shopper_events(events, visits, first, last)
    return table_of(engine, hourly_summary(shoppers, visits, first, last, clock), HOURLY_SUMMARY)


def test_an_hour_has_its_events_its_amounts_and_what_began_in_it(engine: Engine):
    bought: dict[str, Any] = {"price": Decimal(10), "order_id": "o1"}
    events = engine.from_arrow(
        event_table(
            [
                records.event("view", "2024-05-01 10:50", "a"),
                records.event("purchase", "2024-05-01 10:59:59", "a", **bought),
                # The same order and the same visit, in the next hour.
                records.event("purchase", "2024-05-01 11:00", "a", quantity=2, product_id="p2", **bought),
                records.event("view", "2024-05-01 11:30", "b"),
                records.event("refund", "2024-05-01 13:00", "b", price=Decimal(3)),
                records.event("view", "2024-05-01 13:01", "robot", is_bot=True),
            ]
        )
    )
    visits = sessions(events, day("2024-05-01"), day("2024-05-01"), GAP, 60)
    first, second, third = hours_of(engine, events, visits, day("2024-05-01"), day("2024-05-01"))

    assert first == {
        "report_date": day("2024-05-01"),
        "hour_start": at("2024-05-01 10:00"),
        "total_events": 2,
        "users": 1,
        "sessions": 1,
        "converted_sessions": 1,
        "conversion_rate": Decimal("100.00"),
        "views": 1,
        "add_to_carts": 0,
        "purchases": 1,
        "orders": 1,
        "revenue": money("10"),
        "refunds": money("0"),
        "net_revenue": money("10"),
    }
    shown = ("hour_start", "users", "sessions", "converted_sessions", "orders", "revenue", "net_revenue")
    assert [tuple(hour[name] for name in shown) for hour in (second, third)] == [
        (at("2024-05-01 11:00"), 2, 1, 0, 0, money("20"), money("20")),
        (at("2024-05-01 13:00"), 1, 1, 0, 0, money("0"), money("-3")),
    ]


@pytest.mark.parametrize(
    ("spring_or_autumn", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-05-01", 24)]
)
def test_a_day_has_as_many_hours_as_its_clocks_show(engine: Engine, spring_or_autumn: str, hours: int):
    clock, its = ShopClock("Europe/Berlin"), day(spring_or_autumn)
    begin = clock.begin(its)
    events = engine.from_arrow(
        event_table(
            [
                {"event_type": "view", "event_time": begin + timedelta(minutes=30 * number), "user_id": "u"}
                for number in range(-1, 2 * hours + 1)
            ],
            clock,
        )
    )
    visits = sessions(events, its, its, GAP, 60, clock=clock)
    rows = hours_of(engine, events, visits, its, its, clock)
    assert [row["hour_start"] for row in rows] == [begin + timedelta(hours=number) for number in range(hours)]
    assert {row["total_events"] for row in rows} == {2}


def test_the_hours_are_what_plain_loops_find_in_the_lines(engine: Engine):
    lines = simulated_lines(seed=3)
    events, visits = load(engine, lines)
    rows = hours_of(engine, events, visits)
    expected = by_hand.hours(by_hand.read(lines), GAP)
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_lines_that_come_late_twice_broken_or_in_another_order_make_the_same_hours(engine: Engine):
    clean, *others = (
        hours_of(engine, *load(engine, arrived))
        for arrived in (simulated_lines(4, bots=0.1), *other_arrivals(4))
    )
    assert len(clean) > 24
    assert others == [clean, clean]
