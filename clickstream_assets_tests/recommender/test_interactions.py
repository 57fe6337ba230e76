from datetime import timedelta
from math import log2
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import INTERACTIONS
from clickstream_assets.ingest.event_frames import shoppers_of
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
    interactions_of,
    product_events,
    split_at_random,
    split_by_time,
)
from clickstream_assets_tests.recommender.shop import START, event, events_table, random_events, rows


def test_events_add_up_to_one_row_per_shopper_and_product(engine):
    events = events_table(
        event("ann", "pen", "view", at=0),
        event("ann", "pen", "click", at=5),
        event("ann", "pen", "view", at=9),
        event("ann", "pen", "add_to_cart", at=20),
        event("ann", "pen", "purchase", at=30),
        event("ann", "pen", "purchase", at=40),
        event("bob", "pen", "view", at=3),
    )

    found = engine.to_arrow(interactions(engine.from_arrow(events)))

    assert rows(found, "user_id") == [
        {
            "user_id": "ann",
            "product_id": "pen",
            "strength": round(1 * log2(4) + 4 * log2(2) + 10 * log2(3), 3),
            "views": 3,
            "add_to_carts": 1,
            "purchases": 2,
            "first_time": START,
            "last_time": START + timedelta(seconds=40),
        },
        {
            "user_id": "bob",
            "product_id": "pen",
            "strength": 1.0,
            "views": 1,
            "add_to_carts": 0,
            "purchases": 0,
            "first_time": START + timedelta(seconds=3),
            "last_time": START + timedelta(seconds=3),
        },
    ]
    assert [field.type for field in found.schema] == [field.type for field in INTERACTIONS.arrow]


@pytest.mark.parametrize(
    "silent",
    [
        event("ann", "pen", consent=False),
        event("ann", None, "search"),
        event("ann", "pen", "remove_from_cart"),
    ],
    ids=["refused consent", "search", "removal from the cart"],
)
def test_what_says_nothing_of_taste_leaves_no_interaction(engine, silent):
    events = events_table(silent, event("bob", "cup", consent=True))

    found = engine.to_arrow(interactions(engine.from_arrow(events)))

    assert [(row["user_id"], row["product_id"]) for row in found.to_pylist()] == [("bob", "cup")]


def test_robots_leave_none_and_a_visitor_who_logs_in_those_of_the_user(engine):
    tied: dict[str, Any] = {"anonymous_id": "x", "event_date": START.date()}
    events = events_table(
        event("ann", "pen", is_bot=True, event_date=START.date()),
        event(None, "cup", **tied),
        event("bob", "pen", at=60, event_id="e", **tied),
    )

    shoppers = shoppers_of(engine.from_arrow(events), IdentityRules(timedelta(days=1), 1))
    found = engine.to_arrow(interactions(shoppers))

    met = [(row["user_id"], row["product_id"]) for row in rows(found, "product_id")]
    assert met == [("bob", "cup"), ("bob", "pen")]


YES: dict[str, Any] = {"consent": True}
NO: dict[str, Any] = {"consent": False}


@pytest.mark.parametrize(
    ("stated", "is_profiled"),
    [
        (
            [event("ann", "cup", at=1, **YES), event("ann", "pen", at=2, **NO), event("ann", "ink", at=3)],
            False,
        ),
        (
            [event("ann", "cup", at=1, **NO), event("ann", "pen", at=2, **YES), event("ann", "ink", at=3)],
            True,
        ),
        ([event("ann", "cup", at=1), event("ann", None, "search", at=2, **NO)], False),
        ([event("ann", "cup", at=1, **NO), event("ann", "pen", at=1, **YES)], False),
        ([event("ann", "cup", at=1)], True),
    ],
    ids=["refused later", "agreed later", "refused in a search", "both at one moment", "was not asked"],
)
def test_the_latest_stated_consent_of_a_shopper_decides_for_all_their_events(engine, stated, is_profiled):
    events = engine.from_arrow(events_table(*stated, event("bob", "cup", at=4, **YES)))

    found = engine.to_arrow(interactions(events))

    met = {"bob", "ann"} if is_profiled else {"bob"}
    assert set(found["user_id"].to_pylist()) == met
    assert found.num_rows == 1 + is_profiled * sum(row["product_id"] is not None for row in stated)


def test_the_past_of_a_split_is_not_judged_by_the_consent_of_then(duckdb_engine):
    events = events_table(
        event("ann", "cup", at=1, **NO), event("ann", "pen", at=9, **YES), event("bob", "cup", at=2, **YES)
    )

    past, _ = split_by_time(
        duckdb_engine, product_events(duckdb_engine.from_arrow(events)), test_fraction=0.25
    )

    assert set(duckdb_engine.to_arrow(interactions_of(past))["user_id"].to_pylist()) == {"ann", "bob"}


def test_both_engines_find_the_same_interactions(duckdb_engine, spark_engine):
    events = random_events()

    found = [
        rows(engine.to_arrow(interactions(engine.from_arrow(events))), "user_id", "product_id")
        for engine in (duckdb_engine, spark_engine)
    ]

    assert len(found[0]) > 500
    assert found[0] == found[1]


def test_the_future_is_hidden_at_the_time_quantile(engine):
    events = events_table(
        *(
            event("ann", f"p{number}", at=second)
            for number, second in enumerate([50, 0.25, 10, 3600, 0.5, 90, 7200, 20])
        ),
        # Neither counts for the quantile nor is in either part.
        event("ann", None, "search", at=9000),
    )

    train, test = split_by_time(engine, product_events(engine.from_arrow(events)), test_fraction=0.25)

    assert sorted(engine.to_arrow(train)["product_id"].to_pylist()) == ["p0", "p1", "p2", "p4", "p5", "p7"]
    assert sorted(engine.to_arrow(test)["product_id"].to_pylist()) == ["p3", "p6"]


def test_events_of_one_moment_are_not_torn_apart(engine):
    events = events_table(*(event("ann", f"p{number}", at=at) for number, at in enumerate([0, 7, 7, 7])))

    train, test = split_by_time(engine, product_events(engine.from_arrow(events)), test_fraction=0.25)

    assert engine.to_arrow(train)["product_id"].to_pylist() == ["p0"]
    assert sorted(engine.to_arrow(test)["product_id"].to_pylist()) == ["p1", "p2", "p3"]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_the_temporal_split_matches_a_sort_and_leaks_nothing(duckdb_engine, fraction):
    events = random_events().filter(pc.field("product_id").is_valid())
    counted = duckdb_engine.from_arrow(events)

    train, test = (duckdb_engine.to_arrow(part) for part in split_by_time(duckdb_engine, counted, fraction))

    times = pa.concat_tables([train, test])["event_time"].cast("int64").to_pylist()
    boundary = sorted(times)[int(len(times) * (1 - fraction))]
    assert train.num_rows == sum(time < boundary for time in times)
    assert pc.max(train["event_time"]).as_py() < pc.min(test["event_time"]).as_py()


def test_both_engines_split_time_at_the_same_moment(duckdb_engine, spark_engine):
    events = random_events()

    sizes = [
        [part.count() for part in split_by_time(engine, product_events(engine.from_arrow(events)), 0.3)]
        for engine in (duckdb_engine, spark_engine)
    ]

    assert sizes[0] == sizes[1]
    assert min(sizes[0]) > 0


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([event("ann", None, "search")], "No view, click"),
        ([event("ann", "pen"), event("bob", "pen")], "None of the 2 product events is earlier"),
    ],
)
def test_nothing_to_split_is_said_clearly(duckdb_engine, events, message):
    with pytest.raises(NotEnoughInteractions, match=message):
        split_by_time(duckdb_engine, product_events(duckdb_engine.from_arrow(events_table(*events))), 0.25)


def test_the_random_split_hides_the_same_share_of_each_product(engine):
    found = interactions(engine.from_arrow(random_events()))

    train, test = (engine.to_arrow(part) for part in split_at_random(found, 0.25, seed=42))

    everything = rows(engine.to_arrow(found), "user_id", "product_id")
    assert rows(pa.concat_tables([train, test]), "user_id", "product_id") == everything
    hidden = {row["product_id"]: row["product_id_count"] for row in _count_by_product(test)}
    for row in _count_by_product(pa.concat_tables([train, test])):
        assert hidden.get(row["product_id"], 0) == int(row["product_id_count"] * 0.25 + 0.5)


def _count_by_product(table: pa.Table) -> list[dict]:
    return table.group_by("product_id").aggregate([("product_id", "count")]).to_pylist()


def test_the_random_split_depends_on_the_seed_alone(duckdb_engine, spark_engine):
    events = random_events()

    def hidden(engine, seed):
        _, test = split_at_random(interactions(engine.from_arrow(events)), 0.25, seed)
        return rows(engine.to_arrow(test), "user_id", "product_id")

    assert hidden(duckdb_engine, 1) == hidden(spark_engine, 1)
    assert hidden(duckdb_engine, 1) != hidden(duckdb_engine, 2)
