"""Campaigns' shares of orders, against cases by hand and a plain reading of the models."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.attribution import attributed_days, campaign_attribution, campaign_touches
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.catalogue import CAMPAIGN_ATTRIBUTION, SESSIONS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics.days import FIRST, GAP, LAST, load, simulated_lines, table_of
from clickstream_assets_tests.analytics.records import at, day, days_of, event_table

LOOKBACK = timedelta(days=30)
DAY = timedelta(days=1)
Shares = dict[tuple[date, str, str], tuple[Decimal, Decimal]]


def touch(time: str, campaign: str | None, user: str = "u", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "event_time": at(time), "campaign": campaign, **more}


def buy(
    time: str, price: str | None, campaign: str | None = None, user: str = "u", **more: Any
) -> dict[str, Any]:
    amount = None if price is None else Decimal(price)
    return touch(time, campaign, user, event_type="purchase", price=amount, **more)


def shares_of(rows: list[dict[str, Any]]) -> Shares:
    return {
        (row["report_date"], row["model"], row["campaign"]): (row["orders"], row["revenue"]) for row in rows
    }


def attribute(engine: Engine, events: list[dict[str, Any]], first: str, last: str = "") -> Shares:
    df = engine.from_arrow(event_table(events))
    nobody = engine.from_arrow(SESSIONS.arrow.empty_table())
    days = day(first), day(last or first)
    shoppers = shopper_events(df, nobody, days[0] - LOOKBACK - DAY, days[1])
    rows = campaign_attribution(shoppers, campaign_touches(shoppers, GAP), *days, LOOKBACK, GAP)
    return shares_of(table_of(engine, rows, CAMPAIGN_ATTRIBUTION))


def of_model(found: Shares, model: str) -> dict[str, tuple[str, str]]:
    return {
        campaign: (f"{orders.normalize():f}", f"{revenue.normalize():f}")
        for (_, its, campaign), (orders, revenue) in found.items()
        if its == model
    }


@pytest.mark.long_on_spark
def test_each_model_shares_out_the_whole_order(engine: Engine):
    events = [
        touch("2024-05-01 10:00", "mail"),
        touch("2024-05-03 10:00", "search"),
        touch("2024-05-05 10:00", "mail"),
        touch("2024-05-06 10:00", None),
        buy("2024-05-06 10:01", "60.01", order_id="o"),
        buy("2024-05-06 10:02", "39.99", order_id="o"),
        touch("2024-05-06 10:03", "too late"),
    ]
    found = attribute(engine, events, "2024-05-06")
    assert of_model(found, "last_touch") == {"mail": ("1", "100")}
    assert of_model(found, "first_touch") == {"mail": ("1", "100")}
    assert of_model(found, "linear") == {"mail": ("0.6667", "66.6667"), "search": ("0.3333", "33.3333")}


def test_an_order_without_a_campaign_is_direct(engine: Engine):
    events = [
        touch("2024-05-01 10:00", "mail", user="another"),
        touch("2024-05-01 10:00", "robots", is_bot=True),
        buy("2024-05-06 10:01", "5"),
        buy("2024-05-06 10:02", None),
    ]
    found = attribute(engine, events, "2024-05-06")
    for model in ("last_touch", "first_touch", "linear"):
        assert of_model(found, model) == {"(direct)": ("2", "5")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("time", "campaign"),
    [
        ("2024-05-01 10:00", "mail"),
        ("2024-05-01 09:59:59.999999", "(direct)"),
        ("2024-05-31 10:00", "mail"),
        ("2024-05-31 10:00:00.000001", "(direct)"),
    ],
)
def test_what_counts_is_from_the_lookback_to_the_order(duckdb_engine: Engine, time: str, campaign: str):
    found = attribute(duckdb_engine, [touch(time, "mail"), buy("2024-05-31 10:00", "5")], "2024-05-31")
    assert {its for _, _, its in found} == {campaign}


def test_the_purchase_itself_is_a_touch(duckdb_engine: Engine):
    found = attribute(
        duckdb_engine, [touch("2024-05-01 10:00", "a"), buy("2024-05-06 10:00", "5", "b")], "2024-05-06"
    )
    assert of_model(found, "last_touch") == {"b": ("1", "5")}
    assert of_model(found, "first_touch") == {"a": ("1", "5")}


def test_a_visits_touches_of_one_campaign_are_one_until_another_comes_between(duckdb_engine: Engine):
    events = [
        *(touch(f"2024-05-01 10:{minute:02}", "a") for minute in (0, 10, 40)),
        touch("2024-05-01 10:41", None),
        touch("2024-05-01 10:50", "b"),
        touch("2024-05-01 10:51", "a"),
        # More than the gap after the last.
        touch("2024-05-01 11:22", "a"),
        buy("2024-05-01 12:00", "4"),
    ]
    found = attribute(duckdb_engine, events, "2024-05-01")
    assert of_model(found, "linear") == {"a": ("0.75", "3"), "b": ("0.25", "1")}


@pytest.mark.long_on_spark
def test_touches_at_one_moment_go_by_event_id(engine: Engine):
    events = [
        touch("2024-05-01 10:00", "b", event_id="2"),
        touch("2024-05-01 10:00", "a", event_id="1"),
        buy("2024-05-01 10:00", "1", event_id="0"),
    ]
    found = attribute(engine, events, "2024-05-01")
    assert of_model(found, "first_touch") == {"a": ("1", "1")}
    assert of_model(found, "last_touch") == {"b": ("1", "1")}


@pytest.mark.long_on_spark
def test_a_touch_goes_on_past_midnight(engine: Engine):
    events = [
        *(touch(f"2024-05-01 {time}", "a") for time in ("23:40", "23:50")),
        touch("2024-05-02 00:20", "a"),
        touch("2024-05-02 00:51", "a"),
        touch("2024-05-02 01:00", "b"),
        buy("2024-05-02 02:00", "3"),
    ]
    assert of_model(attribute(engine, events, "2024-05-02"), "linear") == {
        "a": ("0.6666", "2"),
        "b": ("0.3334", "1"),
    }


def by_definition(events: list[dict[str, Any]], first: date, last: date) -> Shares:
    """The shares of each order, one after another."""
    orders: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for one in events:
        if one.get("event_type") == "purchase" and first <= one["event_time"].date() <= last:
            minute = one["event_time"].replace(second=0, microsecond=0)
            key = (one["user_id"], one.get("order_id") or minute, one["event_time"].date())
            orders[key].append(one)
    shares: dict[tuple[date, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for (user, _, when), lines in orders.items():
        end = max(line["event_time"] for line in lines)
        units = sum(int((line["price"] or 0) * (line.get("quantity") or 1) * 10_000) for line in lines)
        seen = sorted(
            (one["event_time"], one["event_id"], one["campaign"])
            for one in events
            if one["user_id"] == user and one["campaign"] and end - LOOKBACK <= one["event_time"] <= end
        )
        touches: list[tuple[datetime, str]] = []
        for time, _, campaign in seen:
            if touches and touches[-1][1] == campaign and time - touches[-1][0] <= GAP:
                touches[-1] = (time, campaign)
            else:
                touches.append((time, campaign))
        campaigns = [campaign for _, campaign in touches] or ["(direct)"]
        parts = {
            "first_touch": [(campaigns[0], 10_000, units)],
            "last_touch": [(campaigns[-1], 10_000, units)],
            "linear": [(its, 10_000 // len(campaigns), units // len(campaigns)) for its in campaigns],
        }
        parts["linear"].append((campaigns[-1], 10_000 % len(campaigns), units % len(campaigns)))
        for model, its in parts.items():
            for campaign, order_part, part in its:
                shares[when, model, campaign][0] += order_part
                shares[when, model, campaign][1] += part
    return {key: (Decimal(o).scaleb(-4), Decimal(r).scaleb(-4)) for key, (o, r) in shares.items()}


def random_events(seed: int, users: int = 10) -> list[dict[str, Any]]:
    source = random.Random(seed)
    events: list[dict[str, Any]] = []
    for user in range(users):
        now = at("2024-04-01 00:00")
        for _ in range(source.randrange(60)):
            now += source.choice(
                [timedelta(0), timedelta(minutes=1), GAP, timedelta(minutes=31), timedelta(hours=9), 3 * DAY]
            )
            events.append(
                {
                    "user_id": f"u{user}",
                    "event_time": now,
                    "event_id": f"{source.randrange(10**9)}-{len(events)}",
                    "event_type": source.choice(["view", "view", "purchase"]),
                    "campaign": source.choice([None, None, "a", "b", "c"]),
                    "price": source.choice([None, Decimal("9.99"), Decimal("0.0001"), Decimal("12345678.9")]),
                    "quantity": source.choice([None, 3]),
                    "order_id": source.choice([None, f"o{user}"]),
                }
            )
    source.shuffle(events)
    return events


@pytest.mark.long_on_spark
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_shares_are_those_of_the_definition_whole_or_day_by_day(engine: Engine, seed: int):
    events = random_events(seed)
    expected = by_definition(events, day("2024-04-20"), day("2024-05-10"))
    found = attribute(engine, events, "2024-04-20", "2024-05-10")
    assert found == expected
    assert len(found) > 15
    one_day = max(when for when, _, _ in expected)
    assert attribute(engine, events, str(one_day)) == {
        key: shares for key, shares in expected.items() if key[0] == one_day
    }


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_simulated_orders_are_shared_out_to_the_last_unit(engine: Engine):
    events, sessions = load(engine, simulated_lines(3, bots=0.2))
    shoppers = shopper_events(events, sessions, FIRST, LAST)
    rows = table_of(
        engine,
        campaign_attribution(shoppers, campaign_touches(shoppers, GAP), FIRST, LAST, LOOKBACK, GAP),
        CAMPAIGN_ATTRIBUTION,
    )
    persons = engine.to_arrow(sessions).to_pylist()
    revenue = sum(row["revenue"] for row in persons if not row["is_bot"] and row["session_date"] <= LAST)
    by_model: dict[str, Decimal] = defaultdict(Decimal)
    orders: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        by_model[row["model"]] += row["revenue"]
        orders[row["model"]] += row["orders"]
    assert set(by_model.values()) == {revenue}
    assert len(set(orders.values())) == 1
    assert len({row["campaign"] for row in rows}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_computing_the_attributed_days_again_brings_everything_up_to_date(duckdb_engine: Engine, seed: int):
    engine, source = duckdb_engine, random.Random(seed)
    events = random_events(seed)
    late = [
        one
        for one in source.sample(events, 12)
        if one["campaign"] is not None and one["event_type"] == "view"
    ]
    early = [one for one in events if one not in late]
    first, last = "2024-04-01", "2024-06-30"
    known = attribute(engine, early, first, last)
    everything = attribute(engine, events, first, last)
    days = attributed_days(
        engine.from_arrow(event_table(late)),
        engine.from_arrow(event_table(events)),
        LOOKBACK,
        *days_of(event_table(late)),
    )
    again = set(engine.to_arrow(days)["event_date"].to_pylist())
    kept = {key: shares for key, shares in known.items() if key[0] not in again}
    assert kept | {key: shares for key, shares in everything.items() if key[0] in again} == everything
    assert known != everything


def test_attributed_days_are_those_of_the_users_purchases_within_the_lookback(engine: Engine):
    events = [
        buy("2024-05-01 10:00", "1"),
        buy("2024-05-10 09:00", "1"),
        buy("2024-05-20 10:00", "1"),
        buy("2024-06-09 10:00", "1"),
        buy("2024-06-10 10:00", "1"),
        buy("2024-05-21 10:00", "1", user="another"),
        touch("2024-05-22 10:00", None),
    ]
    late = [touch("2024-05-10 10:00", "mail"), touch("2024-05-21 10:00", None, user="another")]
    days = attributed_days(
        engine.from_arrow(event_table(late)),
        engine.from_arrow(event_table(events)),
        LOOKBACK,
        *days_of(event_table(late)),
    )
    found = sorted(engine.to_arrow(days)["event_date"].to_pylist())
    assert found == [day("2024-05-10"), day("2024-05-20"), day("2024-06-09")]


def test_a_lookback_over_a_day_of_23_hours_reaches_into_a_day_more(duckdb_engine: Engine):
    clock = ShopClock("Europe/Berlin")
    late = event_table([touch("2024-03-02 22:30", "mail")], clock)
    orders = event_table([buy("2024-04-01 22:20", "1"), buy("2024-04-01 22:40", "1", user="v")], clock)
    frames = (duckdb_engine.from_arrow(late), duckdb_engine.from_arrow(orders))
    days = attributed_days(*frames, LOOKBACK, *days_of(late), clock)
    # From 23:30 on 2 March to 00:20 on 2 April are 30 days, less ten minutes.
    assert duckdb_engine.to_arrow(days)["event_date"].to_pylist() == [day("2024-04-02")]
    assert clock.day_of(at("2024-03-02 22:30")) == day("2024-03-02")
