"""Persons: what they are judged by, on both engines and counted by hand, and nothing of the days after."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import Engine
from clickstream_assets.predictions.persons import (
    FEATURES,
    examples,
    features_of,
    measures,
    past_days,
    predictions,
    train_persons,
)

DAY = date(2026, 6, 30)


def row(person: str, ago: int, purchases: int = 0, carts: int = 0, paid: str = "0") -> dict[str, Any]:
    """A person's day, so many days before DAY."""
    return {
        "report_date": DAY - timedelta(days=ago),
        "user_id": person,
        "segment": "buyer" if purchases else "window_shopper",
        "events": 1 + purchases + carts,
        "views": 1,
        "add_to_carts": carts,
        "purchases": purchases,
        "revenue": Decimal(paid),
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=USER_SEGMENTS.arrow)


def measured(engine: Engine, rows: pa.Table, *days: date) -> pa.Table:
    as_of = engine.from_arrow(pa.table({"as_of": pa.array(days, pa.date32())}))
    found = engine.to_arrow(measures(engine.from_arrow(rows), as_of))
    return found.sort_by([("as_of", "ascending"), ("user_id", "ascending")])


def test_measures_are_those_counted_by_hand(engine: Engine):
    rows = table(
        *(row("a", 200, 2, 1, "30"), row("a", 20, 1, 0, "12.5"), row("a", 3), row("a", -7, 1)),
        *(row("b", 27, 0, 1), row("b", -8, 1)),
        # Was there too long ago, bought too long ago, and comes later only.
        *(row("c", 28), row("d", 365, 1), row("e", -1, 1)),
        row("f", 364, 1, 0, "8"),
    )
    found = [tuple(each.values())[1:] for each in measured(engine, rows, DAY).to_pylist()]
    assert found == [
        ("a", 20, 200, 2, 1, 1, 3, 42.5, 3, 2, 200, 1, 1),
        ("b", None, None, 0, 0, 0, 0, 0.0, 27, 1, 27, 0, 1),
        ("f", 364, 364, 1, 0, 0, 1, 8.0, 364, 0, None, 0, 0),
    ]


@pytest.mark.long_on_spark
def test_later_days_change_no_feature(engine: Engine):
    random = np.random.default_rng(2)
    rows = [
        row(f"u{random.integers(30)}", int(ago), int(random.integers(3)), int(random.integers(2)), "5")
        for ago in random.permutation(120)[:100]
    ]
    day = DAY - timedelta(days=60)
    known = [its for its in rows if its["report_date"] <= day]
    assert len(known) < len(rows)
    before, after = (measured(engine, table(*its), day) for its in (known, rows))
    assert before["user_id"] == after["user_id"]
    assert np.array_equal(features_of(before), features_of(after))
    assert after["bought_in_28"].to_pylist() != before["bought_in_28"].to_pylist()


def test_features_are_those_computed_by_hand(engine: Engine):
    rows = measured(engine, table(row("a", 200, 2, 1, "30"), row("a", 20, 1, 0, "12.5"), row("b", 5)), DAY)
    a, b = (dict(zip(FEATURES, values, strict=True)) for values in features_of(rows).tolist())
    assert {name: float(np.expm1(value)) for name, value in a.items()} == pytest.approx(
        {
            "last_purchase": 20,
            "first_purchase": 200,
            "purchases": 2,
            "purchases_month": 1,
            "purchases_quarter": 1,
            "order_value": 21.25,
            "order_lines": 1.5,
            "pace": 0.14,
            "overdue": 20 / 180,
            "last_visit": 20,
            "visits_month": 1,
            "last_cart": 200,
        },
        rel=1e-4,
    )
    assert b["last_purchase"] == b["overdue"] == b["last_cart"] > np.log1p(365)
    assert (b["purchases"], b["order_value"], b["last_visit"]) == (0, 0, pytest.approx(np.log1p(5), abs=1e-6))


def test_past_days_are_those_whose_outcome_is_known():
    days = past_days(date(2026, 1, 1), date(2026, 3, 31), horizon=28)
    assert days[-1] == date(2026, 3, 3)
    assert days[0] == date(2026, 2, 3)
    assert {(after - before).days for before, after in pairwise(days)} == {7}
    assert past_days(date(2026, 1, 1), date(2026, 1, 31), horizon=7) == []


def shop(persons: int = 250, weeks: int = 30, seed: int = 3, taste: float = 1.0) -> pa.Table:
    """Half of the persons buy in one week of two, the others in one of twenty; without taste all in one of four."""
    random = np.random.default_rng(seed)
    rows = []
    for person in range(persons):
        share = taste * (0.5 if person % 2 else 0.05) + (1 - taste) * 0.25
        for week in range(weeks):
            if week == weeks - 1 or random.random() < share:
                rows.append(row(f"u{person:03}", 7 * week + int(random.integers(7)), 1, 0, "9"))
    return table(*rows)


def trained(engine: Engine, days: pa.Table, horizon: int) -> Any:
    first, last = days["report_date"].to_pylist()[-1] - timedelta(days=7), DAY
    return train_persons(examples(engine, engine.from_arrow(days), first, last, horizon, seed=1), horizon)


def test_a_model_of_persons_finds_what_was_planted_and_says_why(engine: Engine):
    days = shop()
    model, verdict = trained(engine, days, 7)
    assert verdict.accepted, verdict.reason
    assert verdict.model.auc > 0.75
    found = engine.to_arrow(predictions(engine, engine.from_arrow(days), DAY, {7: model})).sort_by("user_id")
    assert found.num_rows == 250
    assert found["probability_28_days"].null_count == 250
    probabilities = np.array(found["probability_7_days"].to_pylist())
    assert probabilities[1::2].mean() == pytest.approx(0.5, abs=0.1)
    assert probabilities[::2].mean() == pytest.approx(0.08, abs=0.08)
    best = found["reasons"].to_pylist()[int(probabilities.argmax())]
    assert any(reason in best for reason in ("bought on many days", "buys at short intervals"))


def test_a_model_that_is_not_better_than_what_needs_none_is_not_used(duckdb_engine: Engine):
    model, verdict = trained(duckdb_engine, shop(taste=0.0, seed=5), 7)
    assert (model, verdict.accepted) == (None, False)
    nothing, why = trained(duckdb_engine, shop(weeks=3), 28)
    assert nothing is None
    assert "no day whose next 28 days are known" in why.reason


@pytest.mark.long_on_spark
def test_a_sample_has_whole_persons(engine: Engine):
    days = shop()
    first = DAY - timedelta(days=7 * 30)
    whole, part = (
        examples(engine, engine.from_arrow(days), first, DAY, 7, seed=1, most=most)
        for most in (1_000_000, 2_000)
    )
    kept = set(part["user_id"].to_pylist())
    assert 0.3 < part.num_rows / 2_000 < 2
    assert part.num_rows == sum(person in kept for person in whole["user_id"].to_pylist())
