from collections import defaultdict
from datetime import date, timedelta
from math import log2
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clickstream_assets.analytics.consent import consent_days
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import CONSENT_DAYS, INTERACTION_DAYS, INTERACTIONS
from clickstream_assets.ingest.event_frames import shoppers_of
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interaction_days,
    interactions,
    split_at_random,
    split_by_time,
)
from clickstream_assets_tests.analytics.days import table_of
from clickstream_assets_tests.recommender.shop import (
    START,
    days_of,
    event,
    events_table,
    interactions_in,
    random_events,
    rows,
    split,
)

KINDS = {
    "view": "views",
    "click": "views",
    "add_to_cart": "add_to_carts",
    "purchase": "purchases",
}


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

    found = engine.to_arrow(interactions_in(engine.from_arrow(events)))

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
            "purchase_days": 1,
            "first_purchase": START,
            "last_purchase": START + timedelta(seconds=40),
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
            "purchase_days": 0,
            "first_purchase": None,
            "last_purchase": None,
        },
    ]
    assert [field.type for field in found.schema] == [field.type for field in INTERACTIONS.arrow]


def slow_interaction_days(events: pa.Table) -> list[dict[str, Any]]:
    """INTERACTION_DAYS of EVENTS rows, in plain Python."""
    days: dict[tuple[date, str, str], dict[str, Any]] = {}
    for row in sorted(events.to_pylist(), key=lambda row: row["event_time"]):
        if row["product_id"] is None or row["event_type"] not in KINDS:
            continue
        key = (row["event_date"], row["user_id"], row["product_id"])
        found = days.setdefault(
            key,
            dict(zip(INTERACTION_DAYS.column_names, (*key, 0, 0, 0, row["event_time"], None), strict=True)),
        )
        found[KINDS[row["event_type"]]] += 1
        found["last_time"] = row["event_time"]
    return [days[key] for key in sorted(days)]


def slow_consent_days(events: pa.Table) -> list[dict[str, Any]]:
    """CONSENT_DAYS of EVENTS rows, in plain Python."""
    days: dict[tuple[date, str], dict[str, Any]] = {}
    for row in sorted(events.to_pylist(), key=lambda row: row["event_time"]):
        if row["consent"] is not None:
            key = (row["event_date"], row["user_id"])
            found = days.setdefault(
                key, dict(zip(CONSENT_DAYS.column_names, (*key, None, None), strict=True))
            )
            found["agreed" if row["consent"] else "refused"] = row["event_time"]
    return [days[key] for key in sorted(days)]


def test_the_sums_of_days_are_those_that_are_counted_by_hand(engine):
    events = random_events(hours=80)

    found = table_of(engine, interaction_days(engine.from_arrow(events)), INTERACTION_DAYS)
    stated = table_of(engine, consent_days(engine.from_arrow(events)), CONSENT_DAYS)

    assert len({row["event_date"] for row in found}) == 4
    assert found == slow_interaction_days(events)
    assert stated == slow_consent_days(events)
    assert any(row["agreed"] and row["refused"] for row in stated)


def test_days_that_are_summed_one_by_one_add_up_to_what_all_of_them_do(engine):
    events = random_events(hours=80)
    by_day = [
        engine.to_arrow(interaction_days(engine.from_arrow(events.filter(pc.field("event_date") == day))))
        for day in pc.unique(events["event_date"])
    ]

    added_up = table_of(engine, interactions(engine.from_arrow(pa.concat_tables(by_day))), INTERACTIONS)

    sums: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(KINDS.values(), 0))
    for row in slow_interaction_days(events):
        for name in dict.fromkeys(KINDS.values()):
            sums[row["user_id"], row["product_id"]][name] += row[name]
    assert max(sum(row["product_id"] == product for row in added_up) for _, product in sums) > 1
    assert {(row["user_id"], row["product_id"]): row["strength"] for row in added_up} == {
        key: pytest.approx(
            log2(1 + n["views"]) + 4 * log2(1 + n["add_to_carts"]) + 10 * log2(1 + n["purchases"]), abs=6e-4
        )
        for key, n in sums.items()
    }


@pytest.mark.long_on_spark
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

    found = engine.to_arrow(interactions_in(engine.from_arrow(events)))

    assert [(row["user_id"], row["product_id"]) for row in found.to_pylist()] == [("bob", "cup")]


@pytest.mark.long_on_spark
def test_robots_leave_none_and_a_visitor_who_logs_in_those_of_the_user(engine):
    tied: dict[str, Any] = {"anonymous_id": "x", "event_date": START.date()}
    events = events_table(
        event("ann", "pen", is_bot=True, event_date=START.date()),
        event(None, "cup", **tied),
        event("bob", "pen", at=60, event_id="e", **tied),
    )

    shoppers = shoppers_of(engine.from_arrow(events), IdentityRules(timedelta(days=1), 1))
    found = engine.to_arrow(interactions_in(shoppers))

    met = [(row["user_id"], row["product_id"]) for row in rows(found, "product_id")]
    assert met == [("bob", "cup"), ("bob", "pen")]


YES: dict[str, Any] = {"consent": True}
NO: dict[str, Any] = {"consent": False}


@pytest.mark.long_on_spark
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

    found = engine.to_arrow(interactions_in(events))

    met = {"bob", "ann"} if is_profiled else {"bob"}
    assert set(found["user_id"].to_pylist()) == met
    assert found.num_rows == 1 + is_profiled * sum(row["product_id"] is not None for row in stated)


@pytest.mark.slow
def test_the_past_of_a_split_is_not_judged_by_the_consent_of_then(duckdb_engine):
    events = events_table(
        event("ann", "cup", at=1, **NO), event("ann", "pen", at=9, **YES), event("bob", "cup", at=2, **YES)
    )

    past, _ = split(duckdb_engine, duckdb_engine.from_arrow(events), test_fraction=0.25)

    assert set(duckdb_engine.to_arrow(interactions(past))["user_id"].to_pylist()) == {"ann", "bob"}


def test_both_engines_find_the_same_interactions(duckdb_engine, spark_engine):
    events = random_events(hours=80)

    found = [
        rows(engine.to_arrow(interactions_in(engine.from_arrow(events))), "user_id", "product_id")
        for engine in (duckdb_engine, spark_engine)
    ]

    assert len(found[0]) > 500
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_future_is_hidden_at_the_time_quantile(engine):
    events = events_table(
        *(
            event("ann", f"p{number}", at=second)
            for number, second in enumerate([50, 0.25, 10, 3600, 0.5, 90, 7200, 20])
        ),
        # Neither counts for the quantile nor is in either part.
        event("ann", None, "search", at=9000),
    )

    train, test = split(engine, engine.from_arrow(events), test_fraction=0.25)

    assert sorted(engine.to_arrow(train)["product_id"].to_pylist()) == ["p0", "p1", "p2", "p4", "p5", "p7"]
    assert sorted(engine.to_arrow(test)["product_id"].to_pylist()) == ["p3", "p6"]


@pytest.mark.long_on_spark
@pytest.mark.slow
def test_events_of_one_moment_are_not_torn_apart(engine):
    events = events_table(*(event("ann", f"p{number}", at=at) for number, at in enumerate([0, 7, 7, 7])))

    train, test = split(engine, engine.from_arrow(events), test_fraction=0.25)

    assert engine.to_arrow(train)["product_id"].to_pylist() == ["p0"]
    assert sorted(engine.to_arrow(test)["product_id"].to_pylist()) == ["p1", "p2", "p3"]


def counted(part: pa.Table) -> int:
    """How many events the rows sum up."""
    return sum(pc.sum(part[name]).as_py() for name in dict.fromkeys(KINDS.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "fraction"), [(1, 0.5), (80, 0.1), (80, 0.25), (80, 0.9)])
def test_the_temporal_split_matches_a_sort_and_leaks_nothing(duckdb_engine, fraction, hours):
    events = random_events(hours=hours)
    df = duckdb_engine.from_arrow(events)

    train, test = (duckdb_engine.to_arrow(part) for part in split(duckdb_engine, df, fraction))

    there = set(duckdb_engine.to_arrow(days_of(df))["user_id"].to_pylist())
    refusers = set(events["user_id"].to_pylist()) - there
    times = sorted(
        row["event_time"]
        for row in events.to_pylist()
        if row["event_type"] in KINDS and row["product_id"] and row["user_id"] not in refusers
    )
    assert refusers
    assert counted(train) + counted(test) == len(times)
    boundary = times[int(len(times) * (1 - fraction))]
    assert counted(train) == sum(time < boundary for time in times)
    assert pc.max(train["last_time"]).as_py() < boundary == pc.min(test["first_time"]).as_py()
    # The day that is cut is in both, and no other.
    days = [set(part["event_date"].to_pylist()) for part in (train, test)]
    assert days[0] & days[1] <= {boundary.date()}


def test_both_engines_split_time_at_the_same_moment(duckdb_engine, spark_engine):
    events = random_events(hours=80)

    found, same = (
        [
            rows(engine.to_arrow(part), *INTERACTION_DAYS.key)
            for part in split(engine, engine.from_arrow(events), 0.3)
        ]
        for engine in (duckdb_engine, spark_engine)
    )

    assert found == same
    assert min(map(len, found)) > 0


@pytest.mark.slow
def test_only_the_day_that_is_cut_is_read_from_the_events(duckdb_engine):
    engine = duckdb_engine

    table = random_events(hours=80)
    events = engine.from_arrow(table)
    whole = [rows(engine.to_arrow(part), *INTERACTION_DAYS.key) for part in split(engine, events, 0.25)]
    (cut,) = set.intersection(*({row["event_date"] for row in part} for part in whole))

    of_day = engine.from_arrow(table.filter(pc.field("event_date") == cut))
    days = days_of(events)
    of_profiled = of_day.join(days.select("user_id").distinct(), "user_id", "left_semi")
    parts = split_by_time(engine, days, of_profiled, 0.25)

    assert [rows(engine.to_arrow(part), *INTERACTION_DAYS.key) for part in parts] == whole


@pytest.mark.slow
def test_events_that_were_made_anew_since_their_sums_are_cut_where_they_end(duckdb_engine):
    table = events_table(*(event("ann", f"p{number}", at=number * 3600) for number in range(40)))
    events = duckdb_engine.from_arrow(table)
    days = days_of(events)

    for left in (2, 0):
        of_day = table.filter(pc.field("event_date") == START.date() + timedelta(days=1))
        fewer = duckdb_engine.from_arrow(of_day.slice(0, left))
        past, future = (
            duckdb_engine.to_arrow(part) for part in split_by_time(duckdb_engine, days, fewer, 0.25)
        )
        assert past.num_rows == 15 + max(0, left - 1)
        assert future.num_rows == 1 + min(left, 1)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([event("ann", None, "search")], "No view, click"),
        ([event("ann", "pen"), event("bob", "pen")], "None of the 2 product events is earlier"),
    ],
)
def test_nothing_to_split_is_said_clearly(duckdb_engine, events, message):
    with pytest.raises(NotEnoughInteractions, match=message):
        split(duckdb_engine, duckdb_engine.from_arrow(events_table(*events)), 0.25)


@pytest.mark.long_on_spark
@pytest.mark.slow
def test_the_random_split_hides_the_same_share_of_each_product(engine):
    found = interactions_in(engine.from_arrow(random_events()))

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
        _, test = split_at_random(interactions_in(engine.from_arrow(events)), 0.25, seed)
        return rows(engine.to_arrow(test), "user_id", "product_id")

    assert hidden(duckdb_engine, 1) == hidden(spark_engine, 1)
    assert hidden(duckdb_engine, 1) != hidden(duckdb_engine, 2)
