"""Sessions: what they are judged by, counted by hand, and nothing that comes later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import log, log1p
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import SHOPPER_EVENTS
from clickstream_assets.engine import Engine
from clickstream_assets.predictions.judging import figures
from clickstream_assets.predictions.session_training import (
    fit_sessions,
    judged_sessions,
    over,
    sampled_events,
    sessions_of,
    train_sessions,
)
from clickstream_assets.predictions.sessions import (
    Counted,
    SessionEvent,
    SessionModel,
    features_of,
    rate_of,
    rates_of,
    session_probability,
)

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
GAP = timedelta(minutes=30)
RATES = {"": -0.5, "toys": 0.4, "toys.cars": 1.0}


def test_features_are_those_counted_by_hand():
    events = [
        SessionEvent("page_view"),
        SessionEvent("view", "p", "toys.cars", 9.0),
        SessionEvent("view", "q", None, None),
        SessionEvent("add_to_cart", "p", "toys.cars", 7.0),
        SessionEvent("view", "r", "toys.dolls.old"),
    ]
    assert features_of(events, RATES) == [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, log1p(9), 1.0, 0.0],
        [0.0, pytest.approx(0.5 / 2), log1p(9), 2.0, 0.0],
        [1.0, pytest.approx(1.5 / 3), log1p(7), 2.0, log(2)],
        # Nothing is known of the narrow category; the next wider one counts.
        [1.0, pytest.approx(1.9 / 4), log1p(7), 3.0, 0.0],
    ]


def test_what_comes_later_changes_nothing():
    random = np.random.default_rng(1)
    events = [
        SessionEvent(
            ["view", "add_to_cart", "search"][random.integers(3)],
            [None, "p", "q", "r"][random.integers(4)],
            [None, "toys", "toys.cars"][random.integers(3)],
            [None, float(random.integers(100))][random.integers(2)],
        )
        for _ in range(60)
    ]
    all_at_once = features_of(events, RATES)
    for length in range(1, len(events) + 1):
        assert features_of(events[:length], RATES) == all_at_once[:length]


def test_rates_are_drawn_to_the_wider_category():
    counts = {
        "toys": Counted(80, 18),
        "toys.cars": Counted(20, 15),
        "books": Counted(20, 1),
        "rare": Counted(1, 1),
    }
    found = rates_of(counts, Counted(98, 19), most=3, smoothing=20)
    base = 20 / 100
    toys = (18 + 20 * base) / 100
    assert found == pytest.approx(
        {
            "toys": log(toys / base),
            "toys.cars": log((15 + 20 * toys) / 40 / base),
            "books": log((1 + 20 * base) / 40 / base),
        }
    )
    assert rate_of("toys.cars.red", found) == found["toys.cars"]
    assert rate_of("rare", found) == 0


def rows_of(*events: tuple[str, float, str, str | None, str | None]) -> pa.Table:
    """SHOPPER_EVENTS rows: person, minutes after START, type, product and category."""
    schema = pa.schema([field.with_nullable(True) for field in SHOPPER_EVENTS.arrow])
    rows: list[dict[str, Any]] = [
        {
            "event_id": f"e{place:06}",
            "user_id": person,
            "event_time": START + timedelta(minutes=minute),
            "event_date": START.date(),
            "event_type": kind,
            "product_id": product,
            "product_category": category,
        }
        for place, (person, minute, kind, product, category) in enumerate(events)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def test_events_are_cut_at_gaps_and_sessions_at_the_first_purchase(engine: Engine):
    events = rows_of(
        ("b", 0, "view", "p", None),
        ("a", 31.5, "purchase", "q", None),
        ("a", 1, "view", "p", None),
        ("a", 31, "view", "q", None),
        ("a", 40, "view", "r", None),
        ("a", 71, "purchase", "r", None),
    )
    read = sampled_events(engine, engine.from_arrow(events), seed=1)
    found = [
        (its.person, [event.product_id for event in its.events], its.bought) for its in sessions_of(read, GAP)
    ]
    # The last purchase is a session by itself, before which there was nothing to judge.
    assert found == [("a", ["p", "q"], True), ("b", ["p"], False)]


def test_sessions_that_may_go_on_are_left_out():
    events = rows_of(
        ("a", 0, "view", "p", None),
        ("b", 9.5, "view", "p", None),
        ("c", 10, "view", "p", None),
        ("d", 40, "view", "p", None),
    )
    found = sessions_of(events, GAP)
    assert [session.person for session in over(found, GAP)] == ["a", "b"]
    assert over([], GAP) == []


def test_a_sample_has_whole_persons_and_is_the_same_again(engine: Engine):
    events = rows_of(*((f"u{n % 200}", n, "view", "p", None) for n in range(1000)))
    frame = engine.from_arrow(events)
    found = sampled_events(engine, frame, seed=7, most=500)
    assert 300 < found.num_rows < 700
    assert set(found["user_id"].value_counts().field("counts").to_pylist()) == {5}
    assert sampled_events(engine, frame, seed=7, most=500) == found
    assert sampled_events(engine, frame, seed=8, most=500) != found
    assert sampled_events(engine, frame, seed=7, most=1000).num_rows == 1000


def planted(sessions: int, seed: int, taste: float = 1.0) -> pa.Table:
    """Sessions of which those with cars buy more than those with books, by so much; one in ten has a cart."""
    random = np.random.default_rng(seed)
    events: list[tuple[str, float, str, str | None, str | None]] = []
    for number in range(sessions):
        category = ["toys.cars", "toys.dolls", "books"][random.integers(3)]
        has_cart = random.random() < 0.1
        share = 0.1 + taste * (0.25 * (category == "toys.cars") + 0.3 * has_cart)
        steps = ["view"] * int(random.integers(1, 4)) + ["add_to_cart"] * has_cart
        steps += ["purchase"] * int(random.random() < share)
        for step, kind in enumerate(steps):
            events.append(
                (f"u{number}", number * 2 + step / 10, kind, f"{category}{random.integers(5)}", category)
            )
    return rows_of(*events)


def test_a_model_of_sessions_finds_what_was_planted_and_says_why():
    sessions = sessions_of(planted(3000, seed=1), GAP)
    model, verdict = train_sessions(sessions)
    assert verdict.accepted, verdict.reason
    assert model is not None
    again = SessionModel.from_json(model.to_json())
    likely = session_probability(again, [SessionEvent("view", "x", "toys.cars")])
    unlikely = session_probability(again, [SessionEvent("view", "x", "books")])
    carted = session_probability(
        again, [SessionEvent("view", "x", "books"), SessionEvent("add_to_cart", "x", "books")]
    )
    assert likely.probability == pytest.approx(0.35, abs=0.07)
    assert unlikely.probability == pytest.approx(0.1, abs=0.04)
    assert carted.probability == pytest.approx(0.4, abs=0.12)
    assert "looks at categories that sell well" in likely.reasons
    assert carted.reasons[0] == "has put something in the cart"
    # After a purchase the judgement begins anew, and of a purchase alone there is one too.
    bought = [SessionEvent("add_to_cart", "x", "books"), SessionEvent("purchase", "x", "books")]
    assert session_probability(again, [*bought, SessionEvent("view", "x", "books")]) == unlikely
    assert 0 < session_probability(again, bought).probability < 1


def test_rare_products_and_categories_of_chance_foretell_nothing_of_other_persons():
    """Where sessions buy by chance alone, a rate that knew its own session would tell them apart."""
    random = np.random.default_rng(4)
    events = [
        (f"u{number}", 2.0 * number + step / 10, kind, f"p{number}", f"c{random.integers(400)}")
        for number in range(1500)
        for step, kind in enumerate(["view", "view"] + ["purchase"] * int(random.random() < 0.2))
    ]
    sessions = sessions_of(rows_of(*events), GAP)
    model = fit_sessions(sessions[:750])
    assert figures(*judged_sessions(model, sessions[750:])).auc == pytest.approx(0.5, abs=0.06)
    # The same where it was learnt: no more is promised there than holds elsewhere.
    spread = np.std(judged_sessions(model, sessions[750:])[1])
    assert spread < 0.05


def test_a_model_that_is_not_better_than_the_base_rate_is_not_used():
    """Later, what spoke for a purchase speaks against it."""
    before = sessions_of(planted(1500, seed=2), GAP)
    after = sessions_of(planted(800, seed=3, taste=-0.4), GAP)
    later = [
        replace(its, start=its.start + timedelta(days=9), end=its.end + timedelta(days=9)) for its in after
    ]
    model, verdict = train_sessions([*before, *later])
    assert (model, verdict.accepted) == (None, False)
    assert "is not surely below" in verdict.reason
    assert train_sessions([])[1].reason == "no sessions to learn from"
    nobody = sessions_of(rows_of(*((f"u{n}", n, "view", "p", None) for n in range(40))), GAP)
    assert "0 of" in train_sessions(nobody)[1].reason
