from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import SHOPPER_EVENTS
from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.recommender.next_product import Act, Met
from clickstream_assets.recommender.visits import Memory, Visits

START = datetime(2024, 5, 1, tzinfo=UTC)
MEMORY = Memory(30 * MINUTE, 60 * MINUTE)


def visits(
    *events: tuple[float, str, str | None], details: Sequence[Mapping[str, str]] = (), **more: Any
) -> Visits:
    """Make events of minute, user and product: views, unless `more` says it."""
    count = len(events)
    minutes, users, products = zip(*events, strict=True) if events else ((), (), ())
    columns = {
        "event_time": [START + timedelta(minutes=minute) for minute in minutes],
        "event_id": [f"{number:05d}" for number in range(count)],
        "user_id": users,
        "product_id": products,
        "event_type": ["view"] * count,
        "product_category": [None] * count,
        "price": [None] * count,
    } | more
    schema = pa.schema([SHOPPER_EVENTS.arrow.field(name).with_nullable(True) for name in columns])
    events = pa.table({name: pa.array(v, schema.field(name).type) for name, v in columns.items()})
    fields = [(name, pa.string()) for name in ("product_id", "category", "brand")]
    return Visits.of(events, pa.Table.from_pylist(details, schema=pa.schema(fields)))


def sessions(found: Visits, most: int = 100) -> list[str]:
    made = found.model(len(found), most, MEMORY)
    ids, starts = made.assortment.ids, made.sessions.starts
    return [
        "".join(ids[product] for product in made.sessions.products[begin:end])
        for begin, end in pairwise(starts)
    ]


def test_sessions_end_with_a_gap_and_have_each_product_once():
    found = visits((0, "u", "a"), (1, "v", "b"), (2, "u", "c"), (3, "u", "a"), (33, "u", "d"), (64, "u", "e"))
    # By the time of their last events: v's of minute 1, u's to minute 33 (30 minutes are no gap), and u's of 64.
    assert sessions(found) == ["b", "acd", "e"]
    assert sessions(found, most=2) == ["acd", "e"]


def test_events_of_other_types_and_without_a_product_are_left_out():
    found = visits(
        *((0, "u", "a"), (1, "u", None), (2, "u", "b"), (3, "u", "c")),
        event_type=["view", "view", "search", "purchase"],
    )
    assert sessions(found) == ["ac"]
    assert found.act.tolist() == [Act.VIEWED, Act.BOUGHT]


def test_products_are_by_sessions_and_have_their_details_or_else_the_events_latest():
    found = visits(
        *((0, "u", "a"), (1, "u", "b"), (2, "v", "b"), (3, "w", "b")),
        product_category=["x", "y", "z", None],
        details=[
            {"product_id": "a", "category": "w", "brand": "north"},
            {"product_id": "b", "brand": "south"},
        ],
        price=[None, 2, 3, None],
    )
    assortment = found.model(len(found), 100, MEMORY).assortment
    assert assortment.ids == ("b", "a")
    assert [assortment.categories[number] for number in assortment.category] == ["z", "w"]
    assert [assortment.brands[number] for number in assortment.brand] == ["south", "north"]
    assert assortment.price.tolist() == [3, pytest.approx(float("nan"), nan_ok=True)]


def test_a_choice_is_made_by_what_was_met_before_it_and_is_recent():
    found = visits(
        *((0, "u", "a"), (50, "v", "a"), (55, "u", "b"), (56, "u", "b"), (70, "u", "c"), (71, "w", "d")),
        event_type=["view", "view", "add_to_cart", "view", "view", "view"],
    )
    choices = list(found.choices(1, len(found), MEMORY, 100))
    # v and w had met nothing; what u met at minute 0 is not recent at minute 70.
    assert [(choice.recent, choice.chosen, choice.is_known) for choice in choices] == [
        ([Met("a")], "b", True),
        ([Met("b", Act.ADDED_TO_CART), Met("a")], "b", True),
        ([Met("b", Act.ADDED_TO_CART, 2)], "c", True),
    ]


def shop(start: int = 0) -> list[tuple[float, str, str]]:
    """Make 120 visitors, each with the products of one kind, in turn."""
    return [
        (start + 3 * visitor + step, f"u{visitor}", f"{'abcd'[visitor % 4]}{(visitor + step) % 3}")
        for visitor in range(120)
        for step in range(3)
    ]


def test_a_model_foretells_what_popularity_cannot():
    found = visits(*shop())
    judged = {judgement.target: judgement for judgement in found.judged(0.25, 100, MEMORY)}
    # 90 events of 30 new visitors are judged, less the first one of each.
    assert (judged["next"].targets, judged["next_of_new_visitors"].targets) == (60, 60)
    assert judged["next_not_met"].targets == 60
    # All 12 products are in a list of 20.
    assert judged["next"].hit_rate == judged["next"].popular_hit_rate == 1
    # The three of a kind come before the others: by popularity half of them are six places down.
    assert judged["next"].reciprocal_rank > 0.3


def test_nothing_of_what_is_judged_is_known_to_the_model():
    """Events of after the cut change neither what is trained before it nor the weights."""
    past = shop()
    cut = len(past)
    alone = visits(*past).trained(cut, 100, MEMORY)
    with_future = visits(*past, *((1000 + n, f"u{n}", f"z{n}") for n in range(50)))
    assert alone is not None
    then = with_future.trained(cut, 100, MEMORY)
    assert then is not None
    assert then.to_bytes() == alone.to_bytes()


def test_without_events_there_is_neither_a_model_nor_a_judgement():
    nothing = visits()
    assert nothing.trained(0, 100, MEMORY) is None
    assert nothing.judged(0.25, 100, MEMORY) == []
    one = visits((0, "u", "a"))
    assert one.trained(1, 100, MEMORY) is not None
    assert one.judged(0.25, 100, MEMORY) == []
