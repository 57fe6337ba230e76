"""Habits of a simulated shop's people, each by its share: none, all, and what was made of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.catalogue import RATES
from clickstream_assets.simulator.habits import USUAL, Habits
from clickstream_assets.simulator.made import Made
from clickstream_assets.simulator.shoppers import ShopEvent, shop_events
from clickstream_assets.simulator.stream import Faults, RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets_tests.analytics.who import person_of

from .judge import event_time, events_of, judge, kind, problem

Event = dict[str, Any]
BERLIN = ZoneInfo("Europe/Berlin")
# Over the end of summer time, when an hour comes twice.
START = datetime(2024, 10, 24, tzinfo=UTC)
TRAFFIC = Traffic(users=60, products=40, seed=7, start=START, events=3_000, seconds=7 * 86_400, bots=0.02)
EVERYTHING = replace(
    USUAL, shared_device=0.3, refunds=0.3, unit_rows=0.5, foreign_currency=0.3, local_times=0.5
)
BAD_DAY = Faults(late=0.05, duplicate=0.06, conflicting=0.04, malformed=0.05)


def make(habits: Habits, faults: Faults | None = None, **more: Any) -> tuple[list[Event], Made]:
    """Return all events, without their faults, and what was made."""
    stream = RecordStream(replace(TRAFFIC, habits=habits, time_zone="Europe/Berlin", **more), faults)
    values = [record.value for record in stream]
    valid = (json.loads(value) for value in values if not problem(value))
    return [event for record in valid for event in events_of(record)], stream.made


@cache
def shop(name: str, share: float) -> tuple[list[Event], Made]:
    """Return a usual shop's events where one share is another."""
    others = (
        {"never_login": 0.0} if name == "late_login" else {"late_login": 0.0} if name == "never_login" else {}
    )
    return make(replace(USUAL, **others, **{name: share}), events=2_000, bots=0.0)


def of(events: Iterable[Event], *kinds: str) -> list[Event]:
    return [event for event in events if kind(event) in kinds]


def by(events: Iterable[Event], *names: str) -> dict[Any, list[Event]]:
    found = defaultdict(list)
    for event in events:
        found[tuple(event.get(name) for name in names)].append(event)
    return found


def people(events: list[Event]) -> list[Event]:
    return [event for event in events if "bot" not in event.get("user_agent", "").lower()]


def test_shares_that_cannot_be_are_refused():
    for field in fields(Habits):
        with pytest.raises(InputError, match=f"{field.name}=1.5: a share must be between 0 and 1"):
            Habits(**{field.name: 1.5})
    with pytest.raises(InputError, match=r"late_login=0.6 and never_login=0.5 add up to more than 1"):
        Habits(late_login=0.6, never_login=0.5)
    with pytest.raises(InputError, match="plain events are of nobody in particular"):
        list(RecordStream(replace(TRAFFIC, habits=Habits(refunds=0.1)), plain=True))


def test_without_habits_all_events_are_of_users_and_of_version_1():
    events, made = make(Habits())
    assert {event["event_type"] for event in events} <= {
        *("view", "click", "search", "add_to_cart", "remove_from_cart", "purchase")
    }
    assert all("user_id" in event and "anonymous_id" not in event for event in events)
    assert made.logins == {"early": 0, "late": 0, "never": 0}
    assert (made.devices, made.guest_orders, made.several_items, made.refunds) == (0, 0, 0, 0.0)
    assert made.sent == made.items == made.events


# Of each share: what some events, or none, or all have.
SIGNS: dict[str, tuple[Callable[[list[Event]], list[Any]], Callable[[list[Event]], list[Any]]]] = {
    "page_views": (
        lambda events: of(events, "page_view"),
        lambda events: [its[0] for (visit,), its in by(events, "session_id").items() if visit],
    ),
    "searches": (lambda events: of(events, "search"), lambda events: of(events, "search")),
    "impressions": (lambda events: of(events, "impression"), lambda events: of(events, "impression")),
    "wishlists": (lambda events: of(events, "add_to_wishlist"), lambda events: of(events, "add_to_wishlist")),
    "checkouts": (lambda events: of(events, "begin_checkout"), lambda events: of(events, "begin_checkout")),
    "custom": (lambda events: of(events, "custom"), lambda events: of(events, "custom")),
    "identify": (lambda events: of(events, "identify"), lambda events: of(events, "identify")),
    "refunds": (lambda events: of(events, "refund"), lambda events: of(events, "refund")),
    "anonymous": (
        lambda events: [event for event in events if "anonymous_id" in event],
        lambda events: events,
    ),
    "foreign_currency": (
        lambda events: [event for event in of(events, "purchase") if event["currency"] in RATES],
        lambda events: of(events, "purchase"),
    ),
    "unit_rows": (
        lambda events: [
            line
            for lines in by(of(events, "purchase"), "order_id", "product_id").values()
            if len(lines) > 1
            for line in lines
        ],
        lambda events: [
            line
            for lines in by(of(events, "purchase"), "order_id", "product_id").values()
            if len(lines) > 1
            for line in lines
        ],
    ),
    "guest_checkout": (
        lambda events: [event for event in of(events, "purchase") if "user_id" not in event],
        lambda events: [event for event in of(events, "purchase") if "user_id" not in event],
    ),
}


@pytest.mark.parametrize("name", SIGNS)
def test_a_share_of_0_makes_none_and_of_1_all(name: str):
    found, whole = SIGNS[name]
    assert found(shop(name, 0.0)[0]) == []
    events, _ = shop(name, 1.0)
    assert found(events)
    assert len(found(events)) >= len(whole(events)) > 0


def test_more_of_a_share_makes_more_events_of_its_kind():
    for name, kinds in (
        ("page_views", ["page_view"]),
        ("searches", ["search"]),
        ("impressions", ["impression"]),
        ("wishlists", ["add_to_wishlist"]),
        ("refunds", ["refund"]),
        ("identify", ["identify"]),
    ):
        few, many = (len(of(shop(name, share)[0], *kinds)) for share in (0.1, 1.0))
        assert 0 < few < many / 2, name


def test_a_visit_of_page_views_alone_has_no_product():
    visits = by(people(shop("page_views", 1.0)[0]), "session_id").values()
    without = [its for its in visits if not any("product_id" in event for event in its)]
    assert 0.05 < len(without) / len(visits) < 0.3


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_logins_are_early_late_or_never_and_each_is_counted(share: float):
    for name in ("late_login", "never_login"):
        events, made = shop(name, share)
        named = [event for event in people(events) if "anonymous_id" in event and "user_id" in event]
        when = name.removesuffix("_login")
        # Who logs in late may not have come to it, and never does is one of those who never did.
        assert bool(made.logins[when]) == bool(share)
        if name == "never_login" and share:
            assert not named
            assert made.logins["early"] == made.logins["late"] == 0
        if name == "late_login":
            assert bool(made.logins["early"]) == (not share)
            assert named


def test_who_logs_in_late_does_so_within_a_visit_or_in_a_later_one():
    events, made = make(
        replace(USUAL, anonymous=1, late_login=1, never_login=0, second_device=0, shared_device=0)
    )
    within, later = 0, 0
    for its in by(people(events), "anonymous_id").values():
        names = ["user_id" in event for event in its]
        if True in names and False in names[: names.index(True)]:
            first = names.index(True)
            is_within = its[first - 1].get("session_id") == its[first].get("session_id")
            within += is_within
            later += len({event.get("session_id") for event in its[:first]}) > 1
    assert within > 5
    assert later > 5
    assert made.logins["late"] > 10


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_second_device_has_an_id_of_its_own(share: float):
    events, made = make(replace(USUAL, anonymous=1, never_login=0, second_device=share, shared_device=0))
    of_user = defaultdict(set)
    for event in people(events):
        if "user_id" in event:
            of_user[event["user_id"]].add(event["anonymous_id"])
    assert (max(map(len, of_user.values())) == 2) == bool(share)
    assert made.devices == len({event["anonymous_id"] for event in events})
    assert made.shared_devices == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_shared_device_is_in_one_hand_after_the_other(share: float):
    habits = replace(USUAL, anonymous=1, never_login=0, shared_device=share)
    events, made = make(habits)
    users = defaultdict(set)
    for event in events:
        if "user_id" in event and event.get("session_id") is not None:
            users[event["anonymous_id"]].add(event["user_id"])
    assert (max(map(len, users.values())) == 2) == bool(share)
    assert (made.shared_devices > 20) == bool(share)
    # Nobody begins before another has ended.
    for its in by((event for event in events if "session_id" in event), "anonymous_id").values():
        order = [event["session_id"] for event in sorted(its, key=lambda event: event_time(event, BERLIN))]
        visits = [
            session for number, session in enumerate(order) if number == 0 or order[number - 1] != session
        ]
        assert len(visits) == len(set(visits))


def test_an_order_is_of_a_guest_only_where_it_has_no_user_and_it_has_an_order_id():
    events, made = shop("guest_checkout", 1.0)
    guests = {event["order_id"] for event in of(events, "purchase") if "user_id" not in event}
    assert len(guests) == made.guest_orders > 5
    assert all("anonymous_id" in event for event in of(events, "purchase") if "user_id" not in event)
    assert len({event["order_id"] for event in of(events, "purchase")}) == made.orders
    assert shop("guest_checkout", 0.0)[1].guest_orders == 0


def test_refunds_come_days_after_their_order_and_give_back_no_more_than_was_paid():
    events, made = shop("refunds", 1.0)
    paid = by(of(events, "purchase"), "order_id", "product_id")
    whole, ways = 0, Counter[tuple[str, bool, bool]]()
    for event in of(events, "refund"):
        lines = paid[event["order_id"], event["product_id"]]
        back = abs(event["price"] * event.get("quantity", 1))
        bought = sum(line["price"] * line["quantity"] for line in lines)
        assert back <= bought + 1e-9
        assert {line.get("user_id") for line in lines} == {event.get("user_id")}
        days = event_time(event, BERLIN) - event_time(lines[0], BERLIN)
        assert timedelta(days=1) <= days < timedelta(days=5)
        whole += back == pytest.approx(bought)
        ways[event["event_type"], event["price"] < 0, event["quantity"] < 0] += 1
    assert 0 < whole < made.by_type["refund"]
    assert set(ways) == {("refund", False, False), ("purchase", True, False), ("purchase", False, True)}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_items_are_several_products_in_one_record(share: float):
    stream = RecordStream(replace(TRAFFIC, habits=replace(USUAL, items=share, impressions=0.3)))
    records = [json.loads(record.value) for record in stream]
    several = [record for record in records if "items" in record]
    assert len(several) == stream.made.several_items
    kinds = {record["event_type"] for record in several}
    assert kinds == ({"impression", "begin_checkout", "purchase"} if share else set())
    assert stream.made.events == TRAFFIC.events
    assert (
        stream.made.sent
        == len(records)
        == TRAFFIC.events - sum(len(record["items"]) - 1 for record in several)
    )
    if share:
        alone = by((record for record in records if "items" not in record), "event_type", "order_id")
        assert all(len({line["product_id"] for line in lines}) == 1
                   for (type_, _), lines in alone.items() if type_ == "purchase")  # fmt: skip


def test_rows_for_each_unit_are_of_one_moment_and_in_half_of_the_orders_numbered():
    events, made = shop("unit_rows", 1.0)
    orders = by(of(events, "purchase"), "order_id")
    several = {
        order
        for (order, _), lines in by(of(events, "purchase"), "order_id", "product_id").items()
        if len(lines) > 1
    }
    assert len(several) == made.unit_orders > 5
    assert {line["quantity"] for lines in orders.values() for line in lines} == {1}
    for (_, _), lines in by(of(events, "purchase"), "order_id", "product_id").items():
        assert len({line["timestamp"] for line in lines}) == 1
    assert {"order_line" in lines[0] for lines in orders.values()} == {True, False}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_local_times_are_what_the_shop_s_clock_shows(share: float):
    events, _ = make(replace(USUAL, local_times=share))
    written = Counter(
        "utc" if event["timestamp"].endswith("Z") else event["timestamp"][19:].lstrip(".0123456789") or "none"
        for event in events
    )
    if share == 0:
        assert set(written) == {"utc"}
    elif share == 1:
        # What comes twice has an offset, the second time.
        assert {"+02:00", "+01:00", "none"} <= set(written)
        # Refunds are the shop's own system's, in the order's clock.
        assert "utc" not in written
    else:
        assert min(written.values()) > 100
    # Read as the contract says, they are in the order in which they were sent.
    times = [event_time(event, BERLIN).astimezone(UTC) for event in events]
    assert times == sorted(times)


@pytest.mark.parametrize("faults", [None, BAD_DAY])
def test_what_was_made_is_what_plain_loops_find_in_the_stream(faults: Faults | None):
    traffic = replace(TRAFFIC, habits=EVERYTHING, time_zone="Europe/Berlin")
    stream = RecordStream(traffic, faults, lookback=timedelta(days=2), max_users=2)
    values = [record.value for record in stream]
    made = stream.made
    found = judge(values)
    assert {name: getattr(made, name) for name in ("events", "duplicates", "conflicts", "rejected")} == {
        name: found[name] for name in ("events", "duplicates", "conflicts", "rejected")
    }
    assert made.sent == len(values)
    assert made.items == made.events + made.duplicates + made.conflicts + made.rejected
    assert made.by_type == {name: found[name] for name in made.by_type}
    assert sum(made.by_type.values()) == made.events == TRAFFIC.events

    events, _ = make(EVERYTHING)
    assert made.several_items == stream_of_records(EVERYTHING)
    purchases, refunds = of(events, "purchase"), of(events, "refund")
    assert Decimal(str(made.revenue)) == sum(map(amount, purchases))
    assert Decimal(str(made.refunds)) == sum(map(amount, refunds))
    assert made.refunds > 0
    orders = {event["order_id"] for event in purchases}
    assert made.orders == len(orders)
    assert (
        made.foreign_orders
        == len({event["order_id"] for event in purchases if event["currency"] != "EUR"})
        > 0
    )
    assert made.guest_orders == len({event["order_id"] for event in purchases if "user_id" not in event}) > 0
    lines = by(purchases, "order_id", "product_id")
    assert made.unit_orders == len({order for (order, _), rows in lines.items() if len(rows) > 1}) > 0
    assert made.devices == len({event["anonymous_id"] for event in events if "anonymous_id" in event})


def amount(event: Event) -> Decimal:
    worth = RATES.get(event["currency"], Decimal(1))
    return abs(Decimal(str(event["price"])) * worth * event.get("quantity", 1))


def stream_of_records(habits: Habits) -> int:
    stream = RecordStream(replace(TRAFFIC, habits=habits, time_zone="Europe/Berlin"))
    return sum(b'"items"' in record.value for record in stream)


@pytest.mark.parametrize("faults", [None, BAD_DAY])
def test_users_and_buyers_are_the_persons_of_the_documented_rule(faults: Faults | None):
    from clickstream_assets.analytics.identity import IdentityRules

    rules = IdentityRules(lookback=timedelta(days=2), max_users=2)
    habits = replace(EVERYTHING, anonymous=1, shared_device=0.5)
    stream = RecordStream(replace(TRAFFIC, habits=habits), faults, lookback=rules.lookback, max_users=2)
    list(stream)
    acts = [
        {
            name: event.get(name)
            for name in ("event_id", "event_type", "user_id", "anonymous_id", "session_id")
        }
        | {"event_time": event_time(event, BERLIN), "kind": kind(event)}
        for event in make(habits)[0]
    ]
    of_id = by(acts, "anonymous_id")
    persons = {event["event_id"]: person_of(event, of_id[event["anonymous_id"],], rules) for event in acts}
    made = stream.made
    assert made.users == len(set(persons.values()))
    assert made.buyers == len({persons[event["event_id"]] for event in acts if event["kind"] == "purchase"})
    # Each kind of person is among them, and orders of guests who are known later.
    assert any(person.startswith("anonymous:") for person in persons.values())
    guests = [event for event in acts if event["kind"] == "purchase" and not event["user_id"]]
    assert {persons[event["event_id"]].startswith("anonymous:") for event in guests} == {True, False}


def test_persons_and_their_logins_are_those_that_the_simulator_knows():
    traffic = replace(TRAFFIC, habits=EVERYTHING)
    stream = RecordStream(traffic, BAD_DAY)
    list(stream)
    acts = [occurrence for occurrence in shop_events(traffic) if occurrence.person is not None]
    logins: Counter[str] = Counter()
    for person in {act.person for act in acts}:
        events = [act.event for act in acts if act.person == person and isinstance(act.event, ShopEvent)]
        names = [event.user_id is not None for event in events if event.anonymous_id]
        if names:
            logins["never" if True not in names else "early" if names[0] else "late"] += 1
    made = stream.made
    assert made.logins == dict(logins)
    assert min(logins.values()) > 3
    assert made.persons == len({act.person for act in acts})
    users = defaultdict(set)
    for act in acts:
        assert isinstance(act.event, ShopEvent)
        users[act.event.anonymous_id].add(act.person)
    assert made.shared_devices == sum(len(its) > 1 for device, its in users.items() if device) > 0


def test_every_record_is_valid_by_the_contract_and_nothing_of_it_is_left_out():
    rules = ValidationRules.of(Settings(_env_file=None, shop_time_zone="Europe/Berlin"))
    later = int((START + timedelta(days=30)).timestamp()) * 1_000_000
    stream = RecordStream(replace(TRAFFIC, habits=EVERYTHING, time_zone="Europe/Berlin"))
    types: Counter[str] = Counter()
    for record in stream:
        assert problem(record.value) is None
        event: Any
        for event in parse_record(record.value, later, rules):
            assert not isinstance(event, Rejection), event.shown
            assert event.field_problems is None
            types[event.event_type] += 1
    assert dict(sorted(types.items())) == stream.made.by_type
    assert len(types) == 13


@pytest.mark.parametrize("faults", [None, BAD_DAY])
def test_a_seed_gives_the_same_shop(faults: Faults | None):
    first, second = (list(RecordStream(replace(TRAFFIC, habits=EVERYTHING), faults)) for _ in range(2))
    assert first == second
    assert list(RecordStream(replace(TRAFFIC, habits=EVERYTHING, seed=8), faults)) != first


def test_a_device_and_who_has_it_are_the_same_in_every_run():
    owners = [
        {(event["anonymous_id"], event["user_id"]) for event in make(replace(EVERYTHING, late_login=0), seed=seed)[0]
         if "anonymous_id" in event and "user_id" in event}
        for seed in (7, 8)
    ]  # fmt: skip
    users = [{user for _, user in pairs} for pairs in owners]
    both = users[0] & users[1]
    assert len(both) > 10
    devices = [{device for device, user in pairs if user in both} for pairs in owners]
    assert len(devices[0] & devices[1]) > 0.7 * len(devices[0])
