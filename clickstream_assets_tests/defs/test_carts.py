"""Carts day by day, late events and all, against the same events at once and a plain reading of the definition."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clickstream_assets.analytics.carts import cart_days, cart_states, carts, states, steps
from clickstream_assets.catalogue import (
    CART_DAYS,
    CART_INPUTS,
    CART_STATES,
    CART_STEPS,
    CARTS,
    SHOPPER_EVENTS,
    Table,
)
from clickstream_assets.defs import partitions
from clickstream_assets.defs.sessions import carts as cart_updates
from clickstream_assets.defs.sessions.carts import update_carts
from clickstream_assets.defs.shopper_days import files_by
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.analytics.records import at, event_table
from clickstream_assets_tests.analytics.test_carts import (
    DAY,
    add,
    by_definition,
    purchase,
    random_history,
    remove,
    rules,
    without_ids,
)

Event = dict[str, Any]
PLAIN = dict.fromkeys(("price", "quantity", "currency", "order_id"))
TABLES = (CARTS, CART_STEPS, CART_STATES, CART_DAYS)


class Killed(Exception):
    """An error by which a test ends a run."""


class Shop:
    """Events, by their ids, in a lake; and the carts that are made of them there.

    Only what is tried runs on the engine that it is tried on. Events are written, and tables read and compared, on
    DuckDB: Spark takes a second for each day that is written.
    """

    def __init__(self, engine: Engine, quick: DuckDBEngine, folder: str | Path) -> None:
        self.tried = Lake(str(folder), engine)
        self.lake = Lake(str(folder), quick)
        self.events: dict[str, Event] = {}
        self.as_of = at("1970-01-01 00:00")

    def change(self, *events: Event, without: Iterable[str] = ()) -> None:
        """Add events, or give those that are there another content, and take out others; write their days."""
        events = tuple({**PLAIN, **one} for one in events)
        others = [self.events.pop(name) for name in without]
        others += [self.events[one["event_id"]] for one in events if one["event_id"] in self.events]
        self.events |= {one["event_id"]: one for one in events}
        self.as_of = max([self.as_of, *(one["event_time"] for one in events)])
        for day in sorted({one["event_time"].date() for one in [*others, *events]}):
            rows = [one for one in self.events.values() if one["event_time"].date() == day]
            df = self.lake.engine.from_arrow(shopper_events(rows))
            self.lake.replace(SHOPPER_EVENTS, df, days=(day, day))

    def update(self) -> date | None:
        return update_carts(self.tried, rules(self.as_of))

    def rows(self, table: Table, df: DataFrame | None = None) -> list[dict[str, Any]]:
        """Rows of a table, or of what is to be it, in the order of its key."""
        found = conform(self.lake.engine.to_arrow(self.lake.read(table) if df is None else df), table)
        return found.sort_by([(name, "ascending") for name in table.key]).to_pylist()

    def assert_right(self) -> None:
        """The tables are those of all events at once, and the carts those of the definition."""
        events = self.lake.engine.from_arrow(event_table(self.events.values()))
        followed = self.lake.engine.persist(cart_states(self.lake.engine, events, rules(self.as_of)))
        happened = steps(followed)
        at_once = (carts(followed), happened, states(followed), cart_days(happened, rules(self.as_of)))
        for table, df in zip(TABLES, at_once, strict=True):
            assert self.rows(table) == self.rows(table, df), table.name
        found = sorted(self.rows(CARTS), key=lambda row: (row["user_id"], row["opened_at"]))
        assert without_ids(found) == by_definition(self.events.values(), self.as_of)
        self.lake.engine.release(followed)

    def files(self, table: Table) -> dict[date, str]:
        return files_by(self.lake.snapshot(table), str(table.day))


def shopper_events(rows: list[Event]) -> pa.Table:
    table = event_table(rows)
    columns = {
        name: table[name if name in table.column_names else name.removeprefix("sent_")]
        for name in SHOPPER_EVENTS.column_names
    }
    return pa.table(columns)


@pytest.fixture
def shop(engine: Engine, duckdb_engine: DuckDBEngine, tmp_path: Path) -> Shop:
    return Shop(engine, duckdb_engine, tmp_path)


@pytest.fixture
def quick_shop(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Shop:
    return Shop(duckdb_engine, duckdb_engine, tmp_path)


def parts_of_history(seed: int, parts: int, users: int) -> list[list[Event]]:
    """A history whose events come in parts, most of them in the order of days and some late."""
    source = random.Random(seed)
    events = sorted(random_history(seed, users), key=lambda one: one["event_time"])
    found: list[list[Event]] = [[] for _ in range(parts)]
    for number, one in enumerate(events):
        part = number * parts // len(events)
        found[source.randrange(part, parts) if source.random() < 0.2 else part].append(one)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "users", "parts", "most"),
    [
        pytest.param("duckdb", 2, 2, 12, id="duckdb-few"),
        pytest.param("spark", 2, 1, 12, id="spark-few", marks=pytest.mark.long),
        *(
            pytest.param(engine, 12, 3, most, id=f"{engine}-{name}", marks=pytest.mark.long)
            for engine in ("duckdb", "spark")
            for most, name in ((20, "in chunks"), (1_000_000, "at once"))
        ),
    ],
    indirect=["engine"],
)
def test_carts_of_parts_are_those_of_all(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, users: int, parts: int, most: int
):
    monkeypatch.setattr(cart_updates, "EVENTS_PER_CHUNK", most)
    for part in parts_of_history(3, parts, users):
        shop.change(*part)
        shop.update()
        shop.assert_right()
    # Who they are, and that they were no bots, is known later.
    names = sorted(shop.events)[::9]
    shop.change(*({**shop.events[name], "user_id": "tied"} for name in names[::2]), without=names[1::2])
    shop.update()
    shop.assert_right()


MOMENTS = st.sampled_from([DAY * 0, DAY / 8640, DAY - DAY / 1440, DAY, DAY * 2, DAY * 29, DAY * 30, DAY * 31])
EVENTS = st.builds(
    lambda back, kind, user, product, order, name: {
        "event_time": at("2024-03-01 10:00") + back,
        "event_type": kind,
        "user_id": user,
        "product_id": product,
        "order_id": order,
        "event_id": name,
        "quantity": 1,
        "price": None,
    },
    st.builds(lambda one, other: one + other, MOMENTS, MOMENTS),
    st.sampled_from(["add_to_cart", "add_to_cart", "remove_from_cart", "purchase", "view"]),
    st.sampled_from("uv"),
    st.sampled_from("ab"),
    st.sampled_from([None, "o"]),
    st.sampled_from([f"e{number}" for number in range(20)]),
)
CHANGES = st.lists(
    st.tuples(st.lists(EVENTS, min_size=1, max_size=8), st.integers(0, 3)), min_size=2, max_size=5
)


@pytest.mark.long
@given(changes=CHANGES, most=st.sampled_from([2, 1_000_000]), killed=st.none() | st.integers(0, 12))
@hypothesis_settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_whatever_comes_when_carts_are_those_of_all(
    duckdb_engine: DuckDBEngine, changes: list[tuple[list[Event], int]], most: int, killed: int | None
):
    """Late events, other persons, events that are gone, runs in chunks, and one that is killed at some commit."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(cart_updates, "EVENTS_PER_CHUNK", most)
        shop = Shop(duckdb_engine, duckdb_engine, folder)
        for number, (events, gone) in enumerate(changes):
            # An event stays what it is, on its day; its person can change.
            kept = [
                {**shop.events[one["event_id"]], "user_id": one["user_id"]}
                if one["event_id"] in shop.events
                else one
                for one in events
            ]
            names = {one["event_id"] for one in kept}
            shop.change(*kept, without=[name for name in sorted(shop.events) if name not in names][:gone])
            if killed is not None and number == len(changes) - 1:
                kill_at(patched, killed, shop)
            shop.update()
            shop.assert_right()


def kill_at(patched: pytest.MonkeyPatch, commit: int, shop: Shop) -> None:
    """Have one run end before it makes some commit, if it makes so many."""
    replace = Lake.replace
    done = 0

    def replace_or_end(*given: Any, **more: Any) -> None:
        nonlocal done
        if done == commit:
            raise Killed
        done += 1
        replace(*given, **more)

    with patched.context() as dying:
        dying.setattr(Lake, "replace", replace_or_end)
        try:
            shop.update()
        except Killed:
            assert done == commit


@pytest.mark.slow
def test_a_late_event_writes_the_days_of_its_own_person_alone(
    quick_shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    shop = quick_shop
    # Days of so few rows would be written along with those beside them.
    monkeypatch.setattr(partitions, "ROWS_PER_GAP", 0)
    days = [at("2024-05-01 10:00") + DAY * number for number in range(12)]
    shop.change(
        *(add(f"{one:%F %H:%M}", user=f"u{one.day}", event_id=f"a{one.day}") for one in days),
        *(add(f"{one:%F %H:%M}", user="daily", event_id=f"d{one.day}") for one in days[::2]),
    )
    assert shop.update() == date(2024, 5, 1)
    before = {table: shop.files(table) for table in (CARTS, CART_STEPS, CART_STATES)}
    assert shop.update() is None

    # Bought, so that what comes after is another cart: until the next day with cart events, of which the state has it.
    shop.change(purchase("2024-05-05 12:00", user="daily", event_id="late"))
    assert shop.update() == date(2024, 5, 5)
    shop.assert_right()
    changed = {
        table: sorted(day.day for day, files in shop.files(table).items() if files != its.get(day))
        for table, its in before.items()
    }
    assert changed == {
        # The open cart of the last of its days is another now, with less in it.
        CARTS: [5, 11],
        CART_STEPS: [5, 6, 7, 8, 9, 10, 11, 12],
        CART_STATES: [5, 7, 9, 11],
    }
    # Of somebody else, and from his day on.
    shop.change(remove("2024-05-09 12:00", user="u9", event_id="later"))
    before = {table: shop.files(table) for table in before}
    assert shop.update() == date(2024, 5, 9)
    shop.assert_right()
    assert {day.day for day, files in shop.files(CARTS).items() if files != before[CARTS].get(day)} == {9}


@pytest.mark.slow
def test_the_clock_abandons_carts_whose_persons_do_nothing(quick_shop: Shop):
    shop = quick_shop
    shop.change(
        add("2024-05-01 10:00", user="u", event_id="1"),
        add("2024-05-02 09:00", user="v", event_id="2"),
        add("2024-05-02 09:59", user="w", event_id="3"),
    )
    shop.update()
    assert {row["user_id"]: row["state"] for row in shop.rows(CARTS)} == {
        "u": "open",
        "v": "open",
        "w": "open",
    }
    states_before = shop.files(CART_STATES)
    shop.as_of = at("2024-05-03 09:00")
    assert shop.update() == date(2024, 5, 1)
    shop.assert_right()
    assert {row["user_id"]: row["abandoned_at"] for row in shop.rows(CARTS)} == {
        "u": at("2024-05-02 10:00"),
        "v": at("2024-05-03 09:00"),
        "w": None,
    }
    assert shop.files(CART_STATES) == states_before
    assert [(row["report_date"].day, row["abandoned"]) for row in shop.rows(CART_DAYS)] == [
        (1, 0),
        (2, 1),
        (3, 1),
    ]


@pytest.mark.slow
def test_other_settings_and_an_earlier_clock_make_all_carts_anew(quick_shop: Shop):
    shop = quick_shop
    shop.change(*parts_of_history(5, 1, users=3)[0])
    shop.update()
    other = rules(shop.as_of)
    other = type(other)(other.as_of, other.abandoned_after // 2, other.lifetime // 2)
    first = min(row["step_date"] for row in shop.rows(CART_STEPS))
    assert update_carts(shop.tried, other) == first
    assert {row["rules"] for row in shop.rows(CART_INPUTS)} == {other.text}
    shop.update()
    shop.assert_right()
    shop.as_of -= timedelta(days=40)
    shop.update()
    assert {row["as_of"] for row in shop.rows(CART_INPUTS)} == {shop.as_of}
    found = sorted(shop.rows(CARTS), key=lambda row: (row["user_id"], row["opened_at"]))
    assert without_ids(found) == by_definition(shop.events.values(), shop.as_of)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_that_is_lost_alone_is_made_anew(quick_shop: Shop, table: Table):
    quick_shop.change(
        add("2024-05-01 10:00", event_id="a"),
        purchase("2024-05-03 10:00", event_id="b"),
        add("2024-05-05 10:00", user="v", event_id="c"),
    )
    quick_shop.update()
    shutil.rmtree(quick_shop.lake.path(table))
    quick_shop.update()
    quick_shop.assert_right()


@pytest.mark.slow
def test_a_shop_without_carts_is_not_followed_from_its_beginning_each_time(quick_shop: Shop):
    quick_shop.change(purchase("2024-05-01 10:00", event_id="a"))
    quick_shop.update()
    quick_shop.assert_right()
    versions = [quick_shop.lake.version(table) for table in TABLES]
    quick_shop.change(purchase("2024-05-02 10:00", user="v", event_id="b"))
    quick_shop.update()
    quick_shop.assert_right()
    assert [quick_shop.lake.version(table) for table in TABLES[:2]] == versions[:2]


@pytest.mark.slow
def test_a_late_line_of_an_order_is_bought_from_its_cart_for_a_lifetime(quick_shop: Shop):
    shop = quick_shop
    bought: datetime = at("2024-05-01 10:00")
    shop.change(
        add("2024-05-01 09:00", "a", event_id="1"),
        add("2024-05-01 09:00", "b", event_id="2"),
        purchase("2024-05-01 10:00", "a", order_id="o", event_id="3"),
    )
    shop.update()
    shop.change(purchase(f"{bought + 30 * DAY:%F %H:%M}", "b", order_id="o", event_id="4"))
    shop.update()
    (row,) = shop.rows(CARTS)
    assert (row["product_ids"], row["last_activity_at"]) == (["a", "b"], bought + 30 * DAY)
    shop.change(purchase(f"{bought + 61 * DAY:%F %H:%M}", "b", order_id="o", event_id="5"))
    shop.update()
    assert shop.rows(CARTS) == [row]
    shop.assert_right()


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_without_events_there_are_no_carts(shop: Shop):
    shop.update()
    assert [shop.rows(table) for table in (*TABLES, CART_INPUTS)] == [[]] * 5
    shop.change(add("2024-05-01 09:00", event_id="1"))
    shop.update()
    assert [len(shop.rows(table)) for table in TABLES] == [1, 2, 1, 1]
    shop.change(without=["1"])
    shop.update()
    assert [shop.rows(table) for table in (*TABLES, CART_INPUTS)] == [[]] * 5
