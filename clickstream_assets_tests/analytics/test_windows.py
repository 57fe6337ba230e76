"""Counts per sliding window and product, held against a plain recomputation."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.windows import COUNTS, product_windows
from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.engine import Engine
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.records import at, event_table

TEN, FIVE = timedelta(minutes=10), timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rows(
    engine: Engine, events: pa.Table, duration: timedelta = TEN, slide: timedelta = FIVE
) -> list[dict[str, Any]]:
    found = engine.to_arrow(product_windows(engine.from_arrow(events), duration, slide))
    for name, value in (("is_final", False), ("batch_id", 1)):
        found = found.append_column(name, pa.array([value] * found.num_rows))
    table = conform(found, PRODUCT_WINDOWS)
    return table.sort_by([(name, "ascending") for name in PRODUCT_WINDOWS.key]).to_pylist()


def by_hand(events: pa.Table, duration: timedelta, slide: timedelta) -> dict[Any, tuple[Any, ...]]:
    """The same counts, event by event."""
    windows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events.to_pylist():
        if event["is_bot"] or event["product_id"] is None:
            continue
        moment = event["event_time"]
        start = moment - (moment - EPOCH) % slide
        while start + duration > moment:
            windows[start, event["product_id"]].append(event)
            start -= slide
    result = {}
    for key, members in windows.items():
        members.sort(key=lambda event: (event["event_time"], event["event_id"]))
        kinds = [event["event_type"] for event in members]
        categories = [event["product_category"] for event in members if event["product_category"]]
        result[key] = (
            categories[-1] if categories else None,
            kinds.count("view"),
            kinds.count("add_to_cart"),
            kinds.count("purchase"),
            len(members),
            len({event["user_id"] for event in members}),
            members[0]["event_time"],
            members[-1]["event_time"],
        )
    return result


def random_events(seed: int, number: int) -> pa.Table:
    random_ = random.Random(seed)
    kinds = ["view", "add_to_cart", "purchase", "click", "search", "remove_from_cart"]
    events = []
    for _ in range(number):
        kind = random_.choice(kinds)
        events.append(
            {
                "user_id": f"u{random_.randrange(9)}",
                # Whole minutes too, so that events lie on the borders of windows.
                "event_time": at("2024-05-01 23:40") + timedelta(seconds=random_.randrange(120) * 30),
                "event_type": kind,
                "product_id": None if kind == "search" else f"p{random_.randrange(4)}",
                "product_category": random_.choice([None, "toys", "books", "tools"]),
                "is_bot": random_.random() < 0.1,
            }
        )
    return event_table(events)


@pytest.mark.parametrize(
    ("duration", "slide"),
    [(TEN, FIVE), (TEN, TEN), (TEN, timedelta(minutes=3)), (timedelta(hours=1), timedelta(seconds=90))],
)
def test_counts_are_those_of_a_plain_recomputation(engine: Engine, duration: timedelta, slide: timedelta):
    events = random_events(seed=1, number=300)
    found = {
        (row["window_start"], row["product_id"]): tuple(row[name] for name in COUNTS)
        for row in rows(engine, events, duration, slide)
    }
    assert found == by_hand(events, duration, slide)


@pytest.mark.long_on_spark
def test_a_window_has_its_start_and_not_its_end(engine: Engine):
    events = event_table([{"user_id": "u", "event_time": at("2024-05-01 10:10")}])
    assert [(row["window_start"], row["window_end"]) for row in rows(engine, events)] == [
        (at("2024-05-01 10:05"), at("2024-05-01 10:15")),
        (at("2024-05-01 10:10"), at("2024-05-01 10:20")),
    ]


@pytest.mark.long_on_spark
def test_a_window_belongs_to_the_day_that_it_starts_on(engine: Engine):
    events = event_table([{"user_id": "u", "event_time": at("2024-05-01 00:01")}])
    assert [str(row["window_date"]) for row in rows(engine, events)] == ["2024-04-30", "2024-05-01"]


@pytest.mark.long_on_spark
def test_an_event_from_the_future_counts_when_it_arrived(engine: Engine):
    arrived = at("2024-05-01 10:00")
    events = event_table(
        {"user_id": "u", "product_id": product, "event_time": arrived + ahead, "kafka_time": arrived}
        for product, ahead in (("near", timedelta(minutes=1)), ("far", timedelta(minutes=50)))
    )
    firsts = {row["product_id"]: row["first_event_time"] for row in rows(engine, events)}
    assert firsts == {"near": at("2024-05-01 10:01"), "far": arrived}
