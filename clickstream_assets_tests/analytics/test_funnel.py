"""From a view to a purchase, against trying every view with every later step."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.funnel import funnel
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.catalogue import FUNNEL
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets_tests.analytics import by_hand, records
from clickstream_assets_tests.analytics.days import (
    FIRST,
    LAST,
    load,
    other_arrivals,
    simulated_lines,
    table_of,
    visits_of,
)
from clickstream_assets_tests.analytics.records import day, event_table

HOUR = timedelta(hours=1)
Rows = list[dict[str, Any]]
Customers = dict[tuple[date, str], str | None]


def customers_of(engine: Engine, customers: Customers) -> DataFrame:
    """CUSTOMER_SEGMENTS rows, as far as the funnel reads them; none is null."""
    rows = [(*key, segment) for key, segment in customers.items()]
    days, users, names = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        "report_date": (days, pa.date32()),
        "user_id": (users, pa.string()),
        "rfm_segment": (names, pa.string()),
    }
    return engine.from_arrow(
        pa.table({name: pa.array(values, type_) for name, (values, type_) in columns.items()})
    )


def follow(
    engine: Engine,
    events: DataFrame,
    visits: DataFrame,
    first: date,
    last: date,
    window: timedelta,
    customers: Customers | None = None,
) -> Rows:
    shoppers = shopper_events(events, visits, first, last + timedelta(days=1))
    known = customers_of(engine, customers or {})
    return table_of(engine, funnel(shoppers, known, first, last, window), FUNNEL)


def of_day(engine: Engine, events: Rows, date_text: str = "2024-05-01") -> Rows:
    df = engine.from_arrow(event_table(events))
    the_day = day(date_text)
    return follow(engine, df, visits_of(engine, df, the_day, the_day), the_day, the_day, HOUR)


def counts(rows: Rows, date_: date | None = None) -> dict[tuple[str, str], tuple[int, ...]]:
    found: dict[tuple[str, str], dict[int, int]] = {}
    for row in rows:
        if date_ in (None, row["report_date"]):
            found.setdefault((row["dimension"], row["value"]), {})[row["step_number"]] = row["users"]
    return {group: tuple(steps[number] for number in (1, 2, 3)) for group, steps in found.items()}


def event(
    time: str, kind: str, user: str = "u", category: str | None = "shoes", **more: Any
) -> dict[str, Any]:
    return records.event(kind, f"2024-05-{time}", user, product_category=category, **more)


STEPS = {
    "in order": (["01 10:00 view", "01 10:10 add_to_cart", "01 10:20 purchase"], (1, 1, 1)),
    "a view alone": (["01 10:00 view"], (1, 0, 0)),
    "no cart": (["01 10:00 view", "01 10:20 purchase"], (1, 0, 0)),
    "cart before the view": (["01 10:00 add_to_cart", "01 10:01 view"], (1, 0, 0)),
    "purchase before the cart": (["01 10:00 view", "01 10:05 purchase", "01 10:10 add_to_cart"], (1, 1, 0)),
    "at the end of the window": (["01 10:00 view", "01 11:00 add_to_cart"], (1, 1, 0)),
    "after the window": (["01 10:00 view", "01 11:00:00.000001 add_to_cart"], (1, 0, 0)),
    "counted from the view": (["01 10:00 view", "01 10:50 add_to_cart", "01 11:10 purchase"], (1, 1, 0)),
    "a later view works": (
        ["01 10:00 view", "01 10:30 view", "01 10:50 add_to_cart", "01 11:10 purchase"],
        (1, 1, 1),
    ),
    "an earlier view works": (
        ["01 10:00 view", "01 10:01 add_to_cart", "01 10:02 view", "01 10:50 purchase"],
        (1, 1, 1),
    ),
    "no view has both": (
        ["01 10:00 view", "01 10:01 add_to_cart", "01 10:30 view", "01 11:10 purchase"],
        (1, 1, 0),
    ),
    "at the same moment": (["01 10:00 view", "01 10:00 add_to_cart", "01 10:00 purchase"], (1, 1, 1)),
    "past midnight": (["01 23:30 view", "02 00:10 add_to_cart", "02 00:30 purchase"], (1, 1, 1)),
    "in the last moment": (
        ["01 23:59:59.999999 view", "02 00:59:59.999999 add_to_cart", "02 01:00 purchase"],
        (1, 1, 0),
    ),
    "too long past midnight": (["01 23:30 view", "02 00:30:00.000001 add_to_cart"], (1, 0, 0)),
    "only the day's own views": (["02 00:05 view", "02 00:10 add_to_cart", "01 12:00 view"], (1, 0, 0)),
    "no view": (["01 10:00 add_to_cart", "01 10:00 purchase"], None),
}


def test_steps_count_in_order_and_within_the_window_of_one_view(engine: Engine):
    # A category each, so that one table says how all of them ended.
    events = [
        event(time, kind, user=name, category=name)
        for name, (steps, _) in STEPS.items()
        for time, kind in (step.rsplit(" ", 1) for step in steps)
    ]
    found = counts(of_day(engine, events))
    assert {value: users for (dimension, value), users in found.items() if dimension == "category"} == {
        name: reached for name, (_, reached) in STEPS.items() if reached
    }
    totals = [
        sum(users) for users in zip(*(reached for _, reached in STEPS.values() if reached), strict=True)
    ]
    assert found["overall", "all"] == tuple(totals)


@pytest.mark.slow
def test_a_category_needs_all_its_steps_and_segments_are_those_of_the_day(engine: Engine):
    rows = of_day(
        engine,
        [
            event("01 10:00", "view", "a", "shoes"),
            event("01 10:01", "add_to_cart", "a", "hats"),
            event("01 10:02", "purchase", "a", "hats"),
            event("01 10:00", "view", "b", None),
            # A purchase on the day after makes nobody a buyer of this day.
            event("01 23:50", "view", "c", "hats"),
            event("02 00:01", "add_to_cart", "c", "hats"),
            event("02 00:02", "purchase", "c", "hats"),
            event("01 10:00", "view", "robot", "hats", is_bot=True),
        ],
    )
    assert counts(rows) == {
        ("overall", "all"): (3, 2, 2),
        ("category", "shoes"): (1, 0, 0),
        ("category", "unknown"): (1, 0, 0),
        ("category", "hats"): (1, 1, 1),
        ("segment", "buyer"): (1, 1, 1),
        ("segment", "window_shopper"): (2, 1, 1),
        ("rfm", "not_a_customer"): (3, 2, 2),
    }
    overall = [row for row in rows if row["dimension"] == "overall"]
    assert [
        (r["step"], r["conversion_from_previous"], r["conversion_from_first"])
        for r in sorted(overall, key=lambda r: r["step_number"])
    ] == [
        ("view", None, Decimal("100.00")),
        ("add_to_cart", Decimal("66.67"), Decimal("66.67")),
        ("purchase", Decimal("100.00"), Decimal("66.67")),
    ]
    shoes = [row for row in rows if row["value"] == "shoes" and row["step"] == "purchase"]
    assert [row["conversion_from_previous"] for row in shoes] == [Decimal("0.00")]


@pytest.mark.slow
@pytest.mark.long_on_spark
@pytest.mark.parametrize("minutes", [5, 60, 1440])
def test_the_funnel_is_that_of_every_view_tried_with_every_later_step(engine: Engine, minutes: int):
    lines = simulated_lines(seed=3)
    window = timedelta(minutes=minutes)
    read = by_hand.read(lines)
    users = sorted({line.user for line in read})
    # Of every day, the last day's too, which nobody should look at; and some who have no segment.
    names = ("champions", "lost", None)
    customers = {
        (FIRST + timedelta(days=number), user): names[(place + number) % 3]
        for number in range(-1, 3)
        for place, user in enumerate(users)
        if place % 4
    }
    known = {key: name for key, name in customers.items() if name}
    rows = follow(engine, *load(engine, lines), FIRST, LAST, window, customers)
    for number in range(3):
        the_day = FIRST + timedelta(days=number)
        assert counts(rows, the_day) == by_hand.funnel(read, the_day, window, known)
    assert {row["value"] for row in rows if row["dimension"] == "rfm"} == {
        "champions",
        "lost",
        "not_a_customer",
    }


@pytest.mark.long
def test_days_one_by_one_or_from_lines_in_another_order_have_the_same_funnels(engine: Engine):
    events, visits = load(engine, simulated_lines(4, bots=0.1))
    whole = follow(engine, events, visits, FIRST, LAST, HOUR)
    days = [FIRST + timedelta(days=number) for number in (0, 1, 2)]
    assert [row for one in days for row in follow(engine, events, visits, one, one, HOUR)] == whole
    for arrived in other_arrivals(4):
        assert follow(engine, *load(engine, arrived), FIRST, LAST, HOUR) == whole
