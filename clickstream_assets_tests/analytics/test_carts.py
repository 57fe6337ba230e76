"""Carts, against cases by hand and a plain reading of their definition."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.carts import (
    CART_EVENTS,
    CartRules,
    cart_days,
    cart_states,
    carts,
    follow_carts,
    steps,
)
from clickstream_assets.catalogue import CART_DAYS, CART_STEPS, CARTS
from clickstream_assets.engine import Engine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.days import load, simulated_lines
from clickstream_assets_tests.analytics.records import at, event, event_table, money

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEPS = [
    timedelta(0),
    timedelta(seconds=20),
    2 * HOUR,
    23 * HOUR,
    DAY,
    25 * HOUR,
    3 * DAY,
    30 * DAY,
    31 * DAY,
]


def of_product(
    kind: str, time: str, product: str = "p", user: str = "u", price: str | None = "10", **more: Any
) -> dict[str, Any]:
    paid = None if price is None else Decimal(price)
    return event(kind, time, user, product_id=product, price=paid, **more)


add = partial(of_product, "add_to_cart")
remove = partial(of_product, "remove_from_cart")
purchase = partial(of_product, "purchase")


def rules(as_of: datetime) -> CartRules:
    return CartRules.of(Settings(_env_file=None), as_of)


def follow(engine: Engine, events: list[dict[str, Any]], as_of: datetime) -> tuple[list[dict], list[dict]]:
    """CARTS rows by opening, and what was abandoned from when to when."""
    followed = engine.persist(cart_states(engine, engine.from_arrow(event_table(events)), rules(as_of)))
    found = conform(engine.to_arrow(carts(followed)), CARTS)
    happened = conform(engine.to_arrow(steps(followed)), CART_STEPS).to_pylist()
    return (
        found.sort_by([("user_id", "ascending"), ("opened_at", "ascending")]).to_pylist(),
        pauses(happened, as_of),
    )


def pauses(happened: list[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """Return when carts of CART_STEPS rows were abandoned and, unless they still are, taken up."""
    found: list[dict[str, Any]] = []
    for one in sorted(happened, key=lambda row: (row["user_id"], row["cart_id"], row["at"], row["step"])):
        if one["step"] == "given_up" and one["at"] <= as_of:
            assert (one["given_up_at"], one["given_up_date"]) == (one["at"], one["step_date"])
            found.append({**one, "abandoned_at": one["at"], "ended_at": None})
        elif one["step"] == "taken_up":
            last = found[-1]
            same = ("cart_id", "value", "given_up_at", "given_up_date")
            assert [last[name] for name in same] == [one[name] for name in same]
            assert last["ended_at"] is None
            last["ended_at"] = one["at"]
    return sorted(found, key=lambda row: (row["user_id"], row["abandoned_at"]))


def states(engine: Engine, events: list[dict[str, Any]], as_of: str) -> list[str]:
    return [row["state"] for row in follow(engine, events, at(as_of))[0]]


def test_a_cart_that_was_bought_is_described_by_what_was_bought(engine: Engine):
    (row,), left = follow(
        engine,
        [
            add("2024-05-01 10:00", "a", price="2.50", quantity=2, currency="EUR"),
            add("2024-05-01 10:05", "b", price="7", currency="EUR"),
            add("2024-05-01 10:06", "c", currency="EUR"),
            purchase("2024-05-01 22:00", "b", price="6.50", currency="EUR", order_id="o1"),
            purchase("2024-05-01 22:00:01.5", "a", price=None, quantity=3, order_id="o1"),
            purchase("2024-05-01 22:00:02", "never there", order_id="o1"),
        ],
        at("2024-05-20 00:00"),
    )
    assert left == []
    assert row | {"cart_id": None} == {
        "cart_id": None,
        "user_id": "u",
        "state": "converted",
        "opened_at": at("2024-05-01 10:00"),
        "last_activity_at": at("2024-05-01 22:00:01.5"),
        "last_activity_date": date(2024, 5, 1),
        "items": 2,
        "quantity": 4,
        "value": money("14"),
        "currency": "EUR",
        "product_ids": ["a", "b"],
        "abandoned_at": None,
        "purchased_at": at("2024-05-01 22:00"),
        "seconds_to_purchase": 12 * 3600,
        "order_id": "o1",
    }


@pytest.mark.long_on_spark
def test_an_open_cart_holds_what_was_put_in_and_not_taken_out(engine: Engine):
    events = [
        add("2024-05-01 10:00", "a", price="1", quantity=3),
        add("2024-05-01 10:01", "a", price="2"),
        add("2024-05-01 10:02", "b", price=None),
        add("2024-05-01 10:03", "c", price="5", currency="EUR"),
        remove("2024-05-01 10:04", "a"),
        remove("2024-05-01 10:05", "c", quantity=9),
        remove("2024-05-01 10:06", "never there"),
    ]
    ((row,), _) = follow(engine, events, at("2024-05-01 11:00"))
    assert (row["state"], row["items"], row["quantity"], row["value"]) == ("open", 2, 4, money("6"))
    assert (row["currency"], row["product_ids"]) == (None, ["a", "b"])
    assert row["last_activity_at"] == at("2024-05-01 10:05")


@pytest.mark.parametrize(
    ("bought", "as_of", "state"),
    [
        (None, "2024-05-02 09:59", "open"),
        (None, "2024-05-02 10:00", "abandoned"),
        ("2024-05-02 09:59", "2024-06-30", "converted"),
        ("2024-05-02 10:00", "2024-06-30", "recovered"),
        ("2024-05-31 10:00", "2024-06-30", "recovered"),
        # Over by then: bought without a cart.
        ("2024-05-31 10:00:00.000001", "2024-06-30", "abandoned"),
    ],
)
def test_a_cart_is_abandoned_after_a_day_and_recovered_within_its_lifetime(
    duckdb_engine: Engine, bought: str | None, as_of: str, state: str
):
    events = [add("2024-05-01 10:00")] + ([purchase(bought)] if bought else [])
    ((row,), left) = follow(duckdb_engine, events, at(as_of))
    assert row["state"] == state
    abandoned_at = None if state in ("open", "converted") else at("2024-05-02 10:00")
    assert row["abandoned_at"] == abandoned_at
    ended_at = at(bought) if state == "recovered" and bought else None
    assert [(one["abandoned_at"], one["ended_at"], one["value"]) for one in left] == (
        [(abandoned_at, ended_at, money("10"))] if abandoned_at else []
    )


def test_bought_across_midnight_and_sessions_is_never_abandoned(duckdb_engine: Engine):
    events = [
        add("2024-05-01 23:59"),
        purchase("2024-05-02 00:01"),
        add("2024-05-01 12:00", user="v"),
        add("2024-05-02 11:00", "q", user="v"),
        purchase("2024-05-03 10:00", user="v"),
    ]
    assert states(duckdb_engine, events, "2024-07-01") == ["converted", "converted"]


def test_an_emptied_cart_is_neither_open_nor_abandoned_and_the_next_addition_opens_another(
    duckdb_engine: Engine,
):
    events = [add("2024-05-01 10:00"), remove("2024-05-01 10:01"), add("2024-05-01 10:02")]
    first, second = follow(duckdb_engine, events, at("2024-05-09"))[0]
    assert (first["state"], first["items"], first["value"], first["product_ids"]) == (
        "emptied",
        0,
        money("0"),
        [],
    )
    assert (second["state"], second["opened_at"]) == ("abandoned", at("2024-05-01 10:02"))


def test_an_idle_cart_is_over_after_its_lifetime_and_nothing_changes_it(duckdb_engine: Engine):
    events = [
        add("2024-05-01 10:00", "a"),
        remove("2024-06-01 10:00", "a"),
        add("2024-06-01 10:01", "b"),
    ]
    rows = follow(duckdb_engine, events, at("2024-06-01 11:00"))[0]
    assert [(row["state"], row["product_ids"]) for row in rows] == [("abandoned", ["a"]), ("open", ["b"])]


@pytest.mark.long_on_spark
def test_purchases_without_a_cart_make_none(engine: Engine):
    assert follow(engine, [purchase("2024-05-01 10:00"), remove("2024-05-01 10:01")], at("2024-05-02")) == (
        [],
        [],
    )


def test_lines_without_an_order_id_are_one_order_within_a_minute(duckdb_engine: Engine):
    events = [
        add("2024-05-01 10:00", "a"),
        add("2024-05-01 10:00", "b"),
        purchase("2024-05-01 10:05:01", "a"),
        purchase("2024-05-01 10:05:59", "b"),
        add("2024-05-02 10:00", "a"),
        add("2024-05-02 10:00", "b"),
        purchase("2024-05-02 10:05:59", "a"),
        purchase("2024-05-02 10:06:01", "b"),
    ]
    rows = follow(duckdb_engine, events, at("2024-07-01"))[0]
    assert [(row["state"], row["product_ids"]) for row in rows] == [
        ("converted", ["a", "b"]),
        ("converted", ["a"]),
    ]


def test_what_happens_at_one_moment_is_put_in_taken_out_and_bought_in_this_order(duckdb_engine: Engine):
    moment = "2024-05-01 10:00"
    events = [purchase(moment, event_id="1"), remove(moment, event_id="2"), add(moment, event_id="3")]
    assert states(duckdb_engine, events, "2024-05-01 10:00") == ["emptied"]
    assert states(duckdb_engine, [*events, add(moment, event_id="4")], "2024-05-01 10:00") == ["converted"]


def test_a_resumed_cart_was_abandoned_for_a_while(duckdb_engine: Engine):
    events = [add("2024-05-01 10:00", "a"), add("2024-05-04 10:00", "b")]
    ((row,), left) = follow(duckdb_engine, events, at("2024-05-04 11:00"))
    assert (row["state"], row["abandoned_at"], row["items"]) == ("open", at("2024-05-02 10:00"), 2)
    assert [(one["abandoned_at"], one["ended_at"], one["value"]) for one in left] == [
        (at("2024-05-02 10:00"), at("2024-05-04 10:00"), money("10"))
    ]


def random_history(seed: int, users: int = 25) -> list[dict[str, Any]]:
    """Additions, removals and purchases of few products, at intervals on both sides of every limit."""
    source = random.Random(seed)
    events: list[dict[str, Any]] = []
    for user in range(users):
        now = at("2024-01-01 00:00") + timedelta(minutes=source.randrange(1440))
        for _ in range(source.randrange(1, 25)):
            now += source.choice(STEPS)
            kind = source.choice(["add_to_cart", "add_to_cart", "remove_from_cart", "purchase", "view"])
            events.append(
                {
                    "user_id": f"u{user}",
                    "event_time": now,
                    "event_type": kind,
                    "product_id": source.choice("abc"),
                    "quantity": source.choice([None, 1, 2]),
                    "price": source.choice([None, Decimal("1.25"), Decimal("3")]),
                    "currency": source.choice([None, "EUR", "EUR", "USD"]),
                    "order_id": source.choice([None, f"o{user}-{source.randrange(3)}"]),
                    "event_id": f"{source.randrange(10**9)}-{len(events)}",
                }
            )
    source.shuffle(events)
    return events


def by_definition(events: Iterable[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """One dict per cart: its events are collected first, and then summed up."""
    turns = {kind: number for number, kind in enumerate(CART_EVENTS)}
    rows = []
    by_user: dict[str, list[dict[str, Any]]] = {}
    for one in events:
        if one["event_type"] in turns:
            by_user.setdefault(one["user_id"], []).append(one)
    for user, its in sorted(by_user.items()):
        its.sort(key=lambda one: (one["event_time"], turns[one["event_type"]], one["event_id"]))
        logs: list[list[dict[str, Any]]] = []
        for one in its:
            current = logs[-1] if logs and not _closed(logs[-1], one["event_time"]) else None
            kind, product = one["event_type"], one["product_id"]
            if kind == "add_to_cart":
                if current is None:
                    current = []
                    logs.append(current)
                current.append(one)
            elif current is not None and product in _content(current):
                current.append(one)
            elif kind == "purchase":
                sold = [log for log in logs if log[-1]["event_type"] == "purchase"]
                if sold:
                    first = next(i for i, e in enumerate(sold[-1]) if e["event_type"] == "purchase")
                    is_over = one["event_time"] - sold[-1][-1]["event_time"] > 30 * DAY
                    is_of_order = _order(sold[-1][first]) == _order(one)
                    if is_of_order and not is_over and product in _content(sold[-1][:first]):
                        sold[-1].append(one)
        rows += [_described(user, log, as_of) for log in logs]
    return rows


def _order(one: dict[str, Any]) -> object:
    return one["order_id"] or one["event_time"].replace(second=0, microsecond=0)


def _closed(log: list[dict[str, Any]], now: datetime) -> bool:
    return log[-1]["event_type"] == "purchase" or not _content(log) or now - log[-1]["event_time"] > 30 * DAY


def _content(log: list[dict[str, Any]]) -> dict[str, tuple[int, Decimal | None, str | None]]:
    content: dict[str, tuple[int, Decimal | None, str | None]] = {}
    for one in log:
        units, price, currency = content.get(one["product_id"], (0, None, None))
        if one["event_type"] == "add_to_cart":
            price = price if one["price"] is None else one["price"]
            content[one["product_id"]] = (
                units + (one["quantity"] or 1),
                price,
                one["currency"] or currency,
            )
        elif units > (one["quantity"] or 1):
            content[one["product_id"]] = (units - (one["quantity"] or 1), price, currency)
        else:
            del content[one["product_id"]]
    return content


def _described(user: str, log: list[dict[str, Any]], as_of: datetime) -> dict[str, Any]:
    sold = [one for one in log if one["event_type"] == "purchase"]
    shopping = [one for one in log if one["event_type"] != "purchase"]
    content = _content(shopping)
    times = [one["event_time"] for one in shopping] + [one["event_time"] for one in sold[:1]]
    pauses = [(a, b) for a, b in itertools.pairwise(times) if b - a >= DAY]
    left = [a + DAY for a, _ in pauses]
    if sold:
        state = "recovered" if left else "converted"
        lines = [
            (
                one["product_id"],
                one["quantity"] or 1,
                content[one["product_id"]][1] if one["price"] is None else one["price"],
                one["currency"] or content[one["product_id"]][2],
            )
            for one in sold
        ]
    else:
        lines = [(product, *line) for product, line in content.items()]
        state = "emptied" if not content else "abandoned" if as_of - times[-1] >= DAY else "open"
        left += [times[-1] + DAY] if state == "abandoned" else []
    currencies = {line[3] for line in lines}
    return {
        "user_id": user,
        "state": state,
        "opened_at": times[0],
        "last_activity_at": log[-1]["event_time"],
        "last_activity_date": log[-1]["event_time"].date(),
        "items": len({line[0] for line in lines}),
        "quantity": sum(line[1] for line in lines),
        "value": money(str(sum((line[1] * (line[2] or 0) for line in lines), Decimal(0)))),
        "currency": next(iter(currencies)) if len(currencies) == 1 else None,
        "product_ids": sorted({line[0] for line in lines}),
        "abandoned_at": left[-1] if left else None,
        "purchased_at": sold[0]["event_time"] if sold else None,
        "seconds_to_purchase": int((sold[0]["event_time"] - times[0]).total_seconds()) if sold else None,
        "order_id": sold[0]["order_id"] if sold else None,
    }


def days_of(engine: Engine, events: list[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """CART_DAYS rows by day."""
    found = engine.persist(cart_states(engine, engine.from_arrow(event_table(events)), rules(as_of)))
    return (
        conform(engine.to_arrow(cart_days(steps(found), rules(as_of))), CART_DAYS)
        .sort_by("report_date")
        .to_pylist()
    )


@pytest.mark.long_on_spark
def test_a_day_counts_what_happened_then_whatever_becomes_of_the_cart(engine: Engine):
    events = [
        add("2024-05-01 23:59:59"),
        add("2024-05-04 10:00"),
        add("2024-05-01 12:00", user="v"),
        purchase("2024-05-03 09:00", user="v"),
    ]
    assert [tuple(row.values()) for row in days_of(engine, events, at("2024-05-20 00:00"))] == [
        (date(2024, 5, 1), 2, 0, 0),
        # The last moment of the day after; it is taken up on the 4th and given up again.
        (date(2024, 5, 2), 0, 2, 0),
        (date(2024, 5, 3), 0, 0, 1),
        (date(2024, 5, 5), 0, 1, 0),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long_on_spark)])
def test_what_happened_to_carts_on_a_day_is_known_at_its_end(engine: Engine, seed: int):
    events = random_history(seed)
    as_of = max(one["event_time"] for one in events)
    days = days_of(engine, events, as_of)
    rows, left = follow(engine, events, as_of)
    expected = Counter(("opened", row["opened_at"].date()) for row in rows)
    expected += Counter(("abandoned", row["abandoned_at"].date()) for row in left)
    expected += Counter(("purchased", row["purchased_at"].date()) for row in rows if row["purchased_at"])
    names = ("opened", "abandoned", "purchased")
    assert {(n, row["report_date"]): row[n] for row in days for n in names if row[n]} == expected
    midnight = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) - 60 * DAY
    known = [one for one in events if one["event_time"] < midnight]
    then = [row for row in days_of(engine, known, midnight) if row["report_date"] < midnight.date()]
    assert then == [row for row in days if row["report_date"] < midnight.date()]
    assert len(then) > 20


def without_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "cart_id"} for row in rows]


@pytest.mark.parametrize(
    "seed",
    [1, pytest.param(2, marks=pytest.mark.long_on_spark), pytest.param(3, marks=pytest.mark.long_on_spark)],
)
def test_carts_are_those_of_the_definition(engine: Engine, seed: int):
    events = random_history(seed)
    as_of = max(one["event_time"] for one in events)
    rows, _ = follow(engine, events, as_of)
    assert without_ids(rows) == by_definition(events, as_of)
    assert len({row["cart_id"] for row in rows}) == len(rows)
    assert {row["state"] for row in rows} >= {"abandoned", "emptied", "converted", "recovered"}


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_simulated_shoppers_carts_are_those_of_the_definition(engine: Engine):
    events, _ = load(engine, simulated_lines(7))
    as_of = datetime(2024, 5, 4, tzinfo=UTC)
    found = engine.persist(cart_states(engine, events, rules(as_of)))
    table = conform(engine.to_arrow(carts(found)), CARTS)
    rows = table.sort_by([("user_id", "ascending"), ("opened_at", "ascending")]).to_pylist()
    assert without_ids(rows) == by_definition(engine.to_arrow(events).to_pylist(), as_of)
    assert len(rows) > 50


def test_the_order_in_which_events_are_stored_changes_nothing(duckdb_engine: Engine):
    events = random_history(9)
    as_of = max(one["event_time"] for one in events)
    again = random.Random(1).sample(events, len(events))
    assert follow(duckdb_engine, events, as_of) == follow(duckdb_engine, again, as_of)


def test_users_may_be_spread_over_any_batches():
    event_type = pa.struct(
        [
            ("at", pa.int64()),
            ("turn", pa.int32()),
            ("event_id", pa.string()),
            ("product_id", pa.string()),
            ("quantity", pa.int64()),
            ("price", pa.int64()),
            ("currency", pa.string()),
            ("order_id", pa.string()),
            ("hash", pa.int64()),
        ]
    )
    histories = [
        (f"u{n}", [(60_000_000 * n + m, 0, f"{m}", "p", 10_000, 5, None, None, m) for m in range(n)])
        for n in range(9)
    ]
    table = pa.table(
        {
            "user_id": [user for user, _ in histories],
            "carts": ["{}"] * len(histories),
            "history": pa.array(
                [[dict(zip(event_type.names, one, strict=True)) for one in its] for _, its in histories],
                pa.list_(event_type),
            ),
        }
    )
    whole, parts = (
        pa.Table.from_batches(
            follow_carts(
                iter(table.to_batches(max_chunksize=size)), rules(at("2024-05-01")), (date.min, date.max)
            )
        )
        for size in (9, 2)
    )
    by = [("what", "ascending"), ("user_id", "ascending"), ("at", "ascending")]
    assert whole.sort_by(by) == parts.sort_by(by)
    assert whole["quantity"].drop_null().to_pylist() == list(range(1, 9))


def test_the_settings_say_when_a_cart_is_abandoned_and_over():
    settings = Settings(_env_file=None, cart_abandoned_after_hours=2, cart_lifetime_days=3)
    own = CartRules.of(settings, datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    assert own == CartRules(as_of=1_000_005, abandoned_after=7_200_000_000, lifetime=259_200_000_000)
    assert date(1970, 1, 4) - date(1970, 1, 1) == timedelta(microseconds=own.lifetime)
