"""Sessions, against a plain reading of their definition."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.sessions import days_reached, sessions, spilled, without_bots
from clickstream_assets.catalogue import SESSIONS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.engine import Engine, functions_of
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.days import visits_of
from clickstream_assets_tests.analytics.records import at, day, days_of, event, event_table, money, rows_of

GAP = timedelta(minutes=30)
DAY = timedelta(days=1)


def compute(
    engine: Engine, events: list[dict], first: str, last: str, views: int = 60, **cuts: Any
) -> list[dict]:
    df = sessions(engine.from_arrow(event_table(events)), day(first), day(last), GAP, views, **cuts)
    order = [("user_id", "ascending"), ("start_time", "ascending")]
    return conform(engine.to_arrow(df), SESSIONS).sort_by(order).to_pylist()


def views(user: str, *times: str, **more) -> list[dict]:
    return [{"user_id": user, "event_time": at(time), **more} for time in times]


def changed_days(engine: Engine, new: pa.Table, events: pa.Table, clock: ShopClock = UTC_CLOCK) -> list[date]:
    of_new = engine.from_arrow(new)
    F, _ = functions_of(of_new)
    us = F.unix_micros("event_time")
    spans = of_new.groupBy("user_id", "event_date").agg(
        F.min(us).alias("first_us"), F.max(us).alias("last_us")
    )
    df = days_reached(engine.persist(spans), engine.from_arrow(events), GAP, *days_of(new), clock)
    days = set()
    for row in engine.to_arrow(df).to_pylist():
        days.add(row["event_date"])
        days |= {row["event_date"] - DAY} if row["day_before"] else set()
        days |= {row["event_date"] + DAY, row["event_date"] + 2 * DAY} if row["days_after"] else set()
    return sorted(days)


def spans(rows: list[dict]) -> list[tuple[str, str, int]]:
    return [(f"{r['start_time']:%d %H:%M}", f"{r['end_time']:%d %H:%M}", r["total_events"]) for r in rows]


@pytest.mark.long_on_spark
def test_a_gap_of_exactly_the_limit_does_not_end_a_session(engine: Engine):
    events = views("u", "2024-05-01 10:00", "2024-05-01 10:30", "2024-05-01 11:00:00.000001")
    assert spans(compute(engine, events, "2024-05-01", "2024-05-01")) == [
        ("01 10:00", "01 10:30", 2),
        ("01 11:00", "01 11:00", 1),
    ]


@pytest.mark.slow
def test_a_session_belongs_to_the_day_it_starts_on_and_is_whole_across_midnight(engine: Engine):
    events = views("u", "2024-05-01 23:50", "2024-05-02 00:10", "2024-05-02 09:00")
    assert spans(compute(engine, events, "2024-05-01", "2024-05-01")) == [("01 23:50", "02 00:10", 2)]
    assert spans(compute(engine, events, "2024-05-02", "2024-05-02")) == [("02 09:00", "02 09:00", 1)]
    assert compute(engine, events, "2024-04-30", "2024-04-30") == []


def test_a_session_says_what_happened_in_it(engine: Engine):
    rows = compute(
        engine,
        [
            event("search", "2024-05-01 10:00", product_id=None),
            event("view", "2024-05-01 10:01", product_id="a"),
            event("add_to_cart", "2024-05-01 10:02", product_id="b"),
            event("purchase", "2024-05-01 10:03:30", product_id="b", price=Decimal("19.99"), quantity=3),
            event("purchase", "2024-05-01 10:03:30.500", product_id="c"),
        ],
        "2024-05-01",
        "2024-05-01",
    )
    (row,) = rows
    assert row["session_date"] == day("2024-05-01")
    assert row["duration_seconds"] == 210
    counts = ("total_events", "views", "add_to_carts", "purchases", "searches")
    assert [row[name] for name in counts] == [5, 1, 1, 2, 1]
    assert (row["distinct_products"], row["entry_product_id"], row["exit_product_id"]) == (3, "a", "c")
    assert row["revenue"] == money("59.97")
    assert (row["is_bot"], row["bot_reason"]) == (False, None)
    assert (row["furthest_step"], row["campaign"], row["client_session_ids"]) == ("purchase", None, None)


@pytest.mark.long_on_spark
@pytest.mark.slow
def test_a_session_says_how_far_it_came_and_what_brought_it(engine: Engine):
    def steps(user: str, *types: str) -> list[dict]:
        start = at("2024-05-01 10:00")
        return [
            {"user_id": user, "event_time": start + timedelta(seconds=number), "event_type": kind}
            for number, kind in enumerate(types)
        ]

    events = [
        *steps("a", "search", "remove_from_cart"),
        *steps("b", "search", "click"),
        *steps("c", "add_to_cart", "view"),
        *steps("d", "purchase", "add_to_cart"),
        *views("e", "2024-05-01 10:00", session_id="z"),
        *views("e", "2024-05-01 10:01", session_id="y", campaign="mail"),
        *views("e", "2024-05-01 10:02", session_id="z", campaign="another"),
        *views("e", "2024-05-01 10:03"),
    ]
    rows = compute(engine, events, "2024-05-01", "2024-05-01")
    assert [row["furthest_step"] for row in rows] == ["none", "view", "add_to_cart", "purchase", "view"]
    assert (rows[-1]["campaign"], rows[-1]["client_session_ids"]) == ("mail", ["y", "z"])
    assert {(row["campaign"], row["client_session_ids"]) for row in rows[:-1]} == {(None, None)}


@pytest.mark.long_on_spark
def test_a_cut_at_midnight_ends_a_visit_there(engine: Engine):
    events = views("u", "2024-05-01 23:50", "2024-05-02 00:00", "2024-05-02 00:10")
    whole = compute(engine, events, "2024-05-01", "2024-05-02", cut_at_midnight=True)
    assert spans(whole) == [("01 23:50", "01 23:50", 1), ("02 00:00", "02 00:10", 2)]
    assert [row["is_bot"] for row in whole] == [False, False]


@pytest.mark.long_on_spark
def test_a_cut_at_campaigns_is_where_another_one_than_the_last_appears(engine: Engine):
    events = [
        event
        for minute, campaign in enumerate([None, "a", None, "a", "b", None, "a", "a"])
        for event in views("u", f"2024-05-01 10:0{minute}", campaign=campaign)
    ]
    rows = compute(engine, events, "2024-05-01", "2024-05-01", cut_at_campaign=True)
    assert [(row["start_time"].minute, row["total_events"], row["campaign"]) for row in rows] == [
        (0, 1, None),
        (1, 3, "a"),
        (4, 2, "b"),
        (6, 2, "a"),
    ]


@pytest.mark.long_on_spark
def test_sessions_that_start_at_one_moment_have_ids_of_their_own(engine: Engine):
    events = [
        *views("u", "2024-05-01 10:00", event_id="1", campaign="a"),
        *views("u", "2024-05-01 10:00", event_id="2", campaign="b"),
        *views("u", "2024-05-01 10:00", event_id="3", campaign="a"),
    ]
    rows = compute(engine, events, "2024-05-01", "2024-05-01", cut_at_campaign=True)
    assert len({row["session_id"] for row in rows}) == 3


def test_a_visit_without_end_is_a_bots_however_it_is_cut(duckdb_engine: Engine):
    start = at("2024-05-01 12:00")
    events = [
        {"user_id": "u", "event_time": start + timedelta(minutes=20 * i), "campaign": f"c{i // 50}"}
        for i in range(3 * 24 * 2)
    ]
    both = {"cut_at_midnight": True, "cut_at_campaign": True}
    rows = compute(duckdb_engine, events, "2024-05-01", "2024-05-04", **both)
    assert len(rows) == 5
    assert {row["bot_reason"] for row in rows} == {"endless_session"}


@pytest.mark.long_on_spark
def test_bots_are_labelled_with_the_reason(engine: Engine):
    start = at("2024-05-01 10:00")
    fast = [{"user_id": "fast", "event_time": start + timedelta(milliseconds=900 * i)} for i in range(61)]
    brisk = [{"user_id": "brisk", "event_time": start + timedelta(seconds=i)} for i in range(61)]
    order = [
        {
            "user_id": "order",
            "event_time": start + timedelta(milliseconds=i),
            "event_type": "purchase",
            "product_id": f"p{i}",
        }
        for i in range(200)
    ]
    robot = views("robot", "2024-05-01 10:00", is_bot=True)
    rows = compute(engine, fast + brisk + order + robot, "2024-05-01", "2024-05-01")
    assert {r["user_id"]: r["bot_reason"] for r in rows} == {
        "fast": "view_rate",
        "brisk": None,
        "order": None,
        "robot": "user_agent",
    }


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_a_session_without_end_is_cut_at_midnights_and_marked(engine: Engine):
    start = at("2024-05-01 12:00")
    events = [{"user_id": "u", "event_time": start + timedelta(minutes=20 * i)} for i in range(3 * 24 * 3)]
    rows = compute(engine, events, "2024-05-01", "2024-05-05")
    assert [(str(r["session_date"]), r["bot_reason"]) for r in rows] == [
        ("2024-05-01", "endless_session"),
        ("2024-05-03", "endless_session"),
        ("2024-05-04", "endless_session"),
    ]
    assert sum(r["total_events"] for r in rows) == len(events)
    by_day = [compute(engine, events, f"2024-05-0{d}", f"2024-05-0{d}") for d in range(1, 6)]
    assert [row for day_rows in by_day for row in day_rows] == rows


def _random_events(seed: int, users: int = 12, days: int = 6) -> list[dict]:
    source = random.Random(seed)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    events: list[dict] = []
    for user in range(users):
        now = start + timedelta(minutes=source.randrange(days * 1440))
        for _ in range(source.randrange(1, 60)):
            now += timedelta(
                minutes=source.choice([1, 5, 20, 29, 30, 31, 45, 300]), seconds=source.randrange(60)
            )
            if now < start + timedelta(days=days):
                events.append(
                    {
                        "user_id": f"u{user}",
                        "event_time": now,
                        "event_type": source.choice(["view", "view", "click", "purchase"]),
                        "product_id": f"p{source.randrange(5)}",
                        "price": Decimal(source.randrange(1000)) / 100,
                        "campaign": source.choice([None, None, None, "a", "b"]),
                        "event_id": f"{len(events)}",
                    }
                )
    # Some that never stop, so that cuts happen too.
    for minute in range(0, days * 1440, 25):
        events.append({"user_id": "endless", "event_time": start + timedelta(minutes=minute)})
    source.shuffle(events)
    return events


def _by_definition(
    events: list[dict], cut_at_midnight: bool = False, cut_at_campaign: bool = False
) -> list[tuple]:
    """(user, start, end, events) of all sessions, one user and event after another."""
    result = []
    ordered = sorted(events, key=lambda e: (e["user_id"], e["event_time"], e.get("event_id", "")))
    for user, group in groupby(ordered, key=lambda e: e["user_id"]):
        chain_start = start = last = seen = None
        count = 0
        for time, campaign in ((e["event_time"], e.get("campaign")) for e in group):
            midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
            new_chain = last is None or time - last > GAP
            new_day = not new_chain and last < midnight
            endless = new_day and midnight - chain_start >= DAY
            if new_chain or endless:
                seen = None
            other = cut_at_campaign and campaign not in (None, seen)
            if new_chain or endless or (new_day and cut_at_midnight) or other:
                if count:
                    result.append((user, start, last, count))
                start, count = time, 0
                if new_chain:
                    chain_start = time
            last, seen = time, campaign or seen
            count += 1
        result.append((user, start, last, count))
    return sorted(result)


def _found(rows: list[dict]) -> list[tuple]:
    return sorted(
        (r["user_id"], r["start_time"].astimezone(UTC), r["end_time"].astimezone(UTC), r["total_events"])
        for r in rows
    )


CUTS: list[dict[str, bool]] = [
    {},
    {"cut_at_midnight": True},
    {"cut_at_campaign": True},
    {"cut_at_midnight": True, "cut_at_campaign": True},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "cuts"),
    [
        (1, CUTS[0]),
        pytest.param(4, CUTS[3], marks=pytest.mark.long_on_spark),
        # One cut alone is tried by hand, above.
        pytest.param(2, CUTS[1], marks=pytest.mark.long),
        pytest.param(3, CUTS[2], marks=pytest.mark.long),
    ],
)
def test_sessions_are_those_of_the_definition_whole_or_day_by_day(engine: Engine, seed, cuts):
    events = _random_events(seed)
    expected = _by_definition(events, **cuts)
    whole = compute(engine, events, "2024-05-01", "2024-05-07", **cuts)
    assert _found(whole) == expected
    assert len({row["session_id"] for row in whole}) == len(expected)
    two_by_two = [
        row
        for d in (5, 1, 3)
        for row in compute(engine, events, f"2024-05-0{d}", f"2024-05-0{d + 1}", **cuts)
    ]
    assert _found(two_by_two) == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "cuts"),
    [
        (1, CUTS[0]),
        (2, CUTS[3]),
        (2, CUTS[0]),
        (1, CUTS[2]),
    ],
)
def test_recomputing_the_days_reached_brings_everything_up_to_date(duckdb_engine, seed, cuts):
    engine = duckdb_engine
    events = [e for e in _random_events(seed) if e["user_id"] != "u0"] + [
        e for e in _random_events(seed + 100) if e["user_id"] == "u0"
    ]
    source = random.Random(seed)
    late = source.sample(events, 6)
    early = [e for e in events if e not in late]
    table = {
        e_date: compute(engine, early, e_date, e_date, **cuts)
        for e_date in (f"2024-05-0{d}" for d in range(1, 8))
    }

    new, everything = event_table(late), event_table(events)
    for dirty in changed_days(engine, new, everything):
        if str(dirty) in table:
            table[str(dirty)] = compute(engine, events, str(dirty), str(dirty), **cuts)
    assert _found([row for rows in table.values() for row in rows]) == _by_definition(events, **cuts)


def test_days_reached_reach_over_midnight_only_where_somebody_was_active(engine: Engine):
    new = views("a", "2024-05-10 00:10") + views("b", "2024-05-20 23:50") + views("c", "2024-05-20 12:00")
    before = views("a", "2024-05-09 23:45") + views("b", "2024-05-21 00:10") + views("d", "2024-05-19 23:59")
    assert [str(d) for d in changed_days(engine, event_table(new), event_table(new + before))] == [
        "2024-05-09",
        "2024-05-10",
        "2024-05-20",
        "2024-05-21",
        "2024-05-22",
    ]


@pytest.mark.long_on_spark
@pytest.mark.parametrize(
    ("new", "there", "reached"),
    [
        # It was over long before noon.
        (["10 12:00"], ["09 23:45", "10 00:10"], ["10"]),
        # From one to the other with breaks of half an hour at most, a new one among them.
        (["10 00:40"], ["09 23:45", "10 00:10", "10 01:10"], ["09", "10"]),
        (["10 01:10", "10 23:00"], ["09 23:45", "10 00:10", "10 00:40"], ["09", "10"]),
        (["10 01:10:00.000001"], ["09 23:45", "10 00:10", "10 00:40"], ["10"]),
        # A new one goes between two that were apart.
        (["10 00:20"], ["09 23:55", "10 00:45"], ["09", "10"]),
        # The same before the midnight after.
        (["10 12:00"], ["10 23:50", "11 00:10"], ["10"]),
        (["10 23:20"], ["10 22:50", "10 23:50", "11 00:10"], ["10", "11", "12"]),
        (["10 09:00", "10 22:50"], ["10 23:20", "10 23:50", "11 00:10"], ["10", "11", "12"]),
        (["10 22:49:59.999999"], ["10 23:20", "10 23:50", "11 00:10"], ["10"]),
        (["10 23:50"], ["11 00:31"], ["10"]),
    ],
)
def test_days_are_reached_by_what_goes_on_from_a_new_event_to_midnight(
    engine: Engine, new: list[str], there: list[str], reached: list[str]
):
    of_new = views("a", *(f"2024-05-{time}" for time in new))
    # Of others there is more.
    others = views("b", "2024-05-09 23:59", "2024-05-10 00:01", "2024-05-10 23:59", "2024-05-11 00:01")
    events = of_new + views("a", *(f"2024-05-{time}" for time in there)) + others
    found = changed_days(engine, event_table(of_new), event_table(events))
    assert [str(day) for day in found] == [f"2024-05-{day}" for day in reached]


@pytest.mark.long_on_spark
def test_the_midnights_that_days_reach_over_are_the_shops(engine: Engine):
    clock = ShopClock("Europe/Berlin")
    # The days around 31 March 2024, which begins at 23:00 UTC and ends at 22:00.
    new = views("a", "2024-03-30 23:10") + views("b", "2024-03-31 21:50")
    for near, reached in (
        (views("a", "2024-03-30 22:40"), ["2024-03-30", "2024-03-31"]),
        (views("b", "2024-03-31 22:20"), ["2024-03-31", "2024-04-01", "2024-04-02"]),
        (views("a", "2024-03-30 22:20") + views("b", "2024-03-31 22:40"), ["2024-03-31"]),
        (views("a", "2024-03-30 23:59") + views("b", "2024-04-01 00:01"), ["2024-03-31"]),
    ):
        days = changed_days(engine, event_table(new, clock), event_table(new + near, clock), clock)
        assert [str(day) for day in days] == reached


def test_events_in_a_bots_session_are_left_out_with_those_of_robots(engine: Engine):
    start = at("2024-05-01 10:00")
    fast = [{"user_id": "u", "event_time": start + timedelta(milliseconds=i)} for i in range(100)]
    later = views("u", "2024-05-01 15:00", event_id="later")
    robot = views("robot", "2024-05-01 15:00", is_bot=True)
    table = event_table(fast + later + robot)
    events = engine.from_arrow(table)
    of_day = sessions(events, day("2024-05-01"), day("2024-05-01"), GAP, 60)
    kept = without_bots(events, engine.persist(of_day))
    assert [row["event_id"] for row in rows_of(engine, kept, "event_id")] == ["later"]


def test_what_lies_after_midnight_is_moved_to_its_own_day(engine: Engine):
    paid = {"event_type": "purchase", "price": Decimal("2.50")}
    events = [
        *views("owl", "2024-05-01 23:50", "2024-05-02 00:05"),
        *views("owl", "2024-05-02 00:10", "2024-05-02 00:11", quantity=2, **paid),
        # A visit of its own, later; one before the days; and one that ends in time.
        *views("owl", "2024-05-02 12:00", **paid),
        *views("bat", "2024-04-30 23:55", "2024-05-01 00:05"),
        *views("ant", "2024-05-01 10:00", "2024-05-01 10:05"),
    ]
    df = engine.from_arrow(event_table(events))
    first, second = day("2024-05-01"), day("2024-05-02")
    moved = engine.to_arrow(spilled(df, visits_of(engine, df, first, second), first, second))
    assert moved.to_pylist() == [
        {"session_date": first, "event_date": second, "events": 3, "revenue": money("10")}
    ]
