import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest

from clickstream_assets.simulator.catalogue import CATEGORIES, Catalogue
from clickstream_assets.simulator.stream import RecordStream
from clickstream_assets.simulator.traffic import Traffic

from .judge import event_time

START = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = Traffic(users=1000, products=100, seed=3, start=START, events=30_000, seconds=7 * 86_400)


def make(traffic, plain=False):
    return [json.loads(record.value) for record in RecordStream(traffic, plain=plain)]


@pytest.fixture(scope="module")
def week():
    return make(WEEK)


@pytest.fixture(scope="module")
def sessions(week):
    by_id = defaultdict(list)
    for event in week:
        by_id[event["session_id"]].append(event)
    return list(by_id.values())


def is_robot(session):
    return "bot" in session[0]["user_agent"].lower()


def most_views_in_a_minute(session):
    times = [event_time(event) for event in session if event["event_type"] == "view"]
    return max((sum(t <= u < t + timedelta(minutes=1) for u in times) for t in times), default=0)


@pytest.fixture(scope="module")
def people(sessions):
    return [s for s in sessions if not is_robot(s) and most_views_in_a_minute(s) <= 120]


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_the_mix_is_near_70_views_20_carts_10_purchases(week, plain):
    types = Counter(event["event_type"] for event in (make(WEEK, plain=True) if plain else week))
    shares = {name: count / types.total() for name, count in types.items()}
    assert shares["view"] == pytest.approx(0.70, abs=0.03)
    assert shares["add_to_cart"] == pytest.approx(0.20, abs=0.03)
    assert shares["purchase"] == pytest.approx(0.10, abs=0.02)
    others = set() if plain else {"search", "click", "remove_from_cart"}
    assert set(types) == {"view", "add_to_cart", "purchase"} | others


def test_plain_events_have_five_fields_and_utc_microseconds():
    for event in make(replace(WEEK, events=200), plain=True):
        assert list(event) == ["user_id", "product_id", "product_category", "event_type", "timestamp"]
        assert re.fullmatch(r"2026-01-0\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", event["timestamp"])


def crowded(events):
    """Starts of the windows of ten minutes, a new one every five, in which many view a product and few buy it."""
    windows: dict[Any, Counter] = defaultdict(Counter)
    for event in events:
        slide = int(event_time(event).timestamp()) // 300
        for start in (slide - 1, slide):
            windows[event.get("product_id"), start][event["event_type"]] += 1
    return {
        (product, datetime.fromtimestamp(start * 300, UTC))
        for (product, start), counts in windows.items()
        if product and counts["view"] > 100 and counts["purchase"] < 5
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "traffic",
    [
        replace(WEEK, flash_sale_hours=48),
        # Few shoppers, who come more than once.
        replace(WEEK, flash_sale_hours=48, users=50),
        # Endless, at so many events a second that three of them fall into the part that is made.
        replace(WEEK, flash_sale_hours=48, events=None, rate=0.05),
    ],
    ids=["a week", "few shoppers", "endless"],
)
def test_a_flash_sale_is_viewed_by_many_within_minutes_and_bought_by_few(traffic):
    events = [json.loads(record.value) for record in islice(RecordStream(traffic), 30_000)]
    found = crowded(events)
    for hours in (24, 72, 120):
        sale, slack = START + timedelta(hours=hours), timedelta(minutes=10)
        assert len({product for product, start in found if abs(start - sale) < slack}) == 1
    came = [event for event in events if event.get("campaign") == "flash_sale"]
    assert len({event["user_id"] for event in came}) > 0.5 * min(3 * 160, traffic.users)
    assert sum(event["event_type"] == "purchase" for event in came) in range(3, 10)


def test_without_flash_sales_no_product_is_crowded(week):
    assert crowded(week) == set()


@pytest.mark.parametrize("plain", [False, True])
def test_users_products_and_categories_are_the_shop_s(week, plain):
    events = make(WEEK, plain=True) if plain else week
    for event in events:
        assert 1 <= int(event["user_id"].removeprefix("user_")) <= 1000
        if event["event_type"] != "search":
            number = int(event["product_id"].removeprefix("product_"))
            assert 1 <= number <= 100
            assert event["product_category"] == CATEGORIES[number % 8]


def test_a_product_has_one_price_and_brand_whatever_the_seed(week):
    seen = defaultdict(set)
    for event in week + make(replace(WEEK, seed=99, events=5_000)):
        if "product_id" in event:
            seen[event["product_id"]].add((event["price"], event["brand"], event["currency"]))
    assert {len(facts) for facts in seen.values()} == {1}
    assert len(seen) == 100


def test_prices_are_written_with_two_decimals():
    for record in RecordStream(replace(WEEK, events=500)):
        if b'"search"' not in record.value:
            assert re.search(rb'"price":\d+\.\d\d,', record.value)


def test_a_few_products_are_met_far_more_often_than_most(week):
    counts = Counter(event["product_id"] for event in week if "product_id" in event)
    ranked = [count for _, count in counts.most_common()]
    assert sum(ranked[:10]) > 0.25 * sum(ranked)
    assert sum(ranked[50:]) > 0.10 * sum(ranked)


def test_what_is_put_into_the_cart_was_viewed_in_that_visit(people):
    for session in people:
        viewed = set()
        for event in session:
            if event["event_type"] == "view":
                viewed.add(event["product_id"])
            elif event["event_type"] == "add_to_cart":
                assert event["product_id"] in viewed


def test_only_what_is_in_the_cart_is_removed_or_bought_and_in_that_quantity(week):
    carts: dict[str, dict[str, int]] = defaultdict(dict)
    for event in week:
        cart = carts[event["user_id"]]
        if event["event_type"] == "add_to_cart":
            cart[event["product_id"]] = event["quantity"]
        elif event["event_type"] in ("remove_from_cart", "purchase"):
            assert cart.pop(event["product_id"]) == event["quantity"]


def test_carts_are_abandoned_and_recovered_in_a_later_visit(people):
    added = {}
    recovered = 0
    for session in people:
        for event in session:
            key = (event["user_id"], event.get("product_id"))
            if event["event_type"] == "add_to_cart":
                added[key] = event["session_id"]
            elif event["event_type"] == "purchase":
                recovered += added.pop(key) != event["session_id"]
    assert recovered > 50
    assert len(added) > 500


def test_the_lines_of_an_order_are_of_one_user_and_different_products(week):
    orders = defaultdict(list)
    for event in week:
        if event["event_type"] == "purchase":
            orders[event["order_id"]].append(event)
        else:
            assert "order_id" not in event
    for lines in orders.values():
        assert len({line["user_id"] for line in lines}) == 1
        assert len({line["product_id"] for line in lines}) == len(lines)
    assert max(len(lines) for lines in orders.values()) >= 3


def test_a_user_makes_one_visit_at_a_time_and_comes_back(week):
    current: dict[str, str] = {}
    closed: set[str | None] = set()
    visits: Counter[str] = Counter()
    for event in week:
        user, session = event["user_id"], event["session_id"]
        if current.get(user) != session:
            assert session not in closed
            closed.add(current.get(user))
            current[user] = session
            visits[user] += 1
    assert sum(count > 1 for count in visits.values()) > 500


def test_people_pause_as_people_do(people):
    gaps = sorted(
        (event_time(later) - event_time(earlier)).total_seconds()
        for session in people
        for earlier, later in pairwise(session)
        if later["event_type"] == "view" and earlier["event_type"] == "view"
    )
    assert 5 < gaps[len(gaps) // 2] < 30
    assert gaps[-1] < 30 * 60
    assert max(most_views_in_a_minute(session) for session in people) < 30


def test_events_fill_their_time_and_end_within_an_hour_of_it(week):
    times = [event_time(event) for event in week]
    assert len(week) == WEEK.events
    assert min(times) == START
    assert START + timedelta(days=6.8) < max(times) < START + timedelta(days=7, hours=1)
    per_day = Counter(time.date() for time in times if time < START + timedelta(days=7))
    assert all(count == pytest.approx(30_000 / 7, rel=0.2) for count in per_day.values())


@pytest.mark.slow
def test_robots_are_their_share_of_the_visits_and_no_person_has_their_id():
    sessions = defaultdict(list)
    for event in make(replace(WEEK, bots=0.1, events=60_000)):
        sessions[event["session_id"]].append(event)
    named = [s for s in sessions.values() if is_robot(s)]
    disguised = [s for s in sessions.values() if not is_robot(s) and most_views_in_a_minute(s) > 120]
    assert (len(named) + len(disguised)) / len(sessions) == pytest.approx(0.1, abs=0.02)
    assert disguised
    assert all(event["event_type"] == "view" for session in named + disguised for event in session)
    robots = {session[0]["user_id"] for session in named + disguised}
    persons = {event["user_id"] for s in sessions.values() for event in s} - robots
    assert robots <= {f"user_{number}" for number in range(901, 1001)}
    assert not persons & {f"user_{number}" for number in range(901, 1001)}


def test_without_robots_nobody_is_one():
    events = make(replace(WEEK, bots=0.0, events=5_000))
    assert not [event for event in events if "bot" in event["user_agent"].lower()]


def test_some_visits_come_from_a_campaign(sessions):
    campaigns = [{event.get("campaign") for event in session} for session in sessions]
    assert all(len(values) == 1 for values in campaigns)
    assert sum(values != {None} for values in campaigns) / len(campaigns) == pytest.approx(0.15, abs=0.03)


def test_taste_predicts_the_next_products_better_than_popularity(people):
    events = sorted(
        (event for session in people for event in session if "product_id" in event), key=event_time
    )
    past, future = events[: len(events) * 3 // 4], events[len(events) * 3 // 4 :]
    popular = [product for product, _ in Counter(event["product_id"] for event in past).most_common()]
    category = {event["product_id"]: event["product_category"] for event in events}
    met, to_find = defaultdict(set), defaultdict(set)
    liked: dict[str, Counter[str]] = defaultdict(Counter)
    for event in past:
        met[event["user_id"]].add(event["product_id"])
        liked[event["user_id"]][event["product_category"]] += 1
    for event in future:
        if event["user_id"] in met and event["product_id"] not in met[event["user_id"]]:
            to_find[event["user_id"]].add(event["product_id"])

    def found(rank):
        return sum(
            len(products & set([p for p in rank(user) if p not in met[user]][:10]))
            for user, products in to_find.items()
        )

    by_taste = found(lambda user: sorted(popular, key=lambda p: -liked[user][category[p]]))
    assert by_taste > 1.5 * found(lambda _: popular)


@pytest.mark.parametrize(("users", "products"), [(1, 1), (1, 100), (3, 3), (50, 8)])
def test_a_tiny_shop_works(users, products):
    traffic = Traffic(users, products, seed=1, start=START, events=2_000, seconds=30 * 86_400)
    events = make(traffic)
    assert len(events) == 2_000
    assert len({event["event_id"] for event in events}) == 2_000
    assert {event["user_id"] for event in events} == {f"user_{number + 1}" for number in range(users)}


def test_every_visit_may_be_a_robot_s():
    events = make(Traffic(5, 20, seed=1, start=START, events=500, seconds=86_400, bots=1.0))
    assert {event["event_type"] for event in events} == {"view"}


@pytest.mark.slow
def test_shoppers_keep_their_tastes_between_runs():
    assert Catalogue(100).shopper(7) == Catalogue(100).shopper(7)
    tastes = Counter(Catalogue(100).shopper(number).favourites[0] for number in range(1, 1001))
    assert set(tastes) == set(range(8))
    assert max(tastes.values()) < 2 * min(tastes.values())
