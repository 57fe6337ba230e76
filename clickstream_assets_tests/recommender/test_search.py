import dataclasses
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.recommender.algorithms import TrainingSet
from clickstream_assets.recommender.evaluation import evaluate
from clickstream_assets.recommender.search import Fold, fallback_exponent, remembered, search, search_row
from clickstream_assets_tests.recommender.shop import (
    PARAMETERS,
    START,
    interactions_table,
    met,
    planted_taste,
)

DAY = timedelta(days=1)
START_AT = dataclasses.replace(PARAMETERS, iterations=3)


@pytest.fixture(scope="module")
def fold(duckdb_engine) -> Fold:
    train, test = (duckdb_engine.from_arrow(table) for table in planted_taste())
    return Fold.of(duckdb_engine, train, test, START_AT)


def test_a_fold_holds_what_is_to_be_found_and_by_whom(engine):
    train = interactions_table(
        met("ann", "pen") | {"last_time": START + 2 * DAY},
        met("ann", "cup", 4.0) | {"last_time": START},
        met("bob", "pen", 2.0) | {"last_time": START + 4 * DAY},
    )
    test = interactions_table(
        met("ann", "pen"), met("bob", "cup"), met("bob", "nib"), met("cid", "cup"), met("cid", "pen")
    )

    fold = Fold.of(engine, engine.from_arrow(train), engine.from_arrow(test), START_AT)

    assert fold.products.ids.to_pylist() == ["cup", "pen"]
    assert fold.strengths.toarray().tolist() == [[4.0, 1.0], [0.0, 2.0]]
    # Two half-lives, one, and none.
    assert fold.aged(2).toarray().tolist() == [[1.0, 0.5], [0.0, 2.0]]
    # Of bob's the one that he had not met and that is known; ann met nothing new; cid has no history.
    assert fold.judged.tolist() == [1]
    assert fold.relevant.toarray().tolist() == [[1.0, 0.0]]
    assert fold.of_new.toarray().tolist() == [[1.0, 1.0]]


def test_a_search_says_what_it_tried_and_its_figures_are_those_of_the_evaluation(duckdb_engine, fold: Fold):
    found = search([fold], START_AT, trials=2, k=10)

    assert found == search([fold], START_AT, trials=2, k=10)
    assert found.shoppers == 80
    taken = [trial.ndcg for trial in found.trials if trial.is_taken]
    assert taken == sorted(taken)
    tried = {name for trial in found.trials for name in trial.changes}
    assert {"half_life_days", "ease_regularization", "alpha", "ease_share", "trend_exponent"} <= tried
    train, test = (duckdb_engine.from_arrow(table) for table in planted_taste())
    for parameters, ndcg in ((START_AT, taken[0]), (found.parameters, taken[-1])):
        [judged] = evaluate(duckdb_engine, train, test, parameters, 10, ["blend"])
        assert judged.mean("ndcg") == pytest.approx(ndcg, rel=0.02)
    assert TrainingSet.of(duckdb_engine, train, found.parameters).parameters == found.parameters


def test_what_one_cut_speaks_clearly_against_is_not_judged_on_the_next(monkeypatch, fold: Fold):
    latest, earlier = fold, dataclasses.replace(fold)
    asked = []

    def ndcg(part, parameters, k):
        is_latest = part.fold is latest
        asked.append((is_latest, parameters))
        is_other_share = parameters.ease_share != START_AT.ease_share
        loss = (1 if is_latest else -5) * is_other_share
        return np.linspace(0, 1, 40) + (parameters.half_life_days == 30) - loss

    monkeypatch.setattr("clickstream_assets.recommender.search._Parts.ndcg", ndcg)
    found = search([latest, earlier], START_AT, trials=2, k=10)

    assert (found.parameters.half_life_days, found.parameters.ease_share) == (30, START_AT.ease_share)
    shares = {is_latest: {p.ease_share for at, p in asked if at is is_latest} for is_latest in (True, False)}
    assert len(shares[True]) > 1
    assert shares[False] == {START_AT.ease_share}


def test_without_anybody_to_judge_the_settings_stay(duckdb_engine):
    nothing = duckdb_engine.from_arrow(interactions_table(met("ann", "pen")))
    alone = Fold.of(duckdb_engine, nothing, nothing, START_AT)

    for folds in ([], [alone]):
        row = search_row(folds, START_AT, 2, 10, START.date(), 1)
        assert START_AT.read(row["parameters"]) == START_AT
        assert (row["users"], row["ndcg"], row["fallback_exponent"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("follow", "expected"), [("old", 0.0), ("new", 1.0)])
def test_what_unknown_shoppers_are_shown_is_chosen_by_those_of_the_past(
    duckdb_engine, follow: str, expected: float
):
    old = [met(f"u{n}", "old") | {"last_time": START} for n in range(40)]
    new = [met(f"v{n}", "new") | {"last_time": START + 90 * DAY} for n in range(30)]
    test = interactions_table(*(met(f"w{n}", follow) for n in range(50)))
    train = duckdb_engine.from_arrow(interactions_table(*old, *new))
    fold = Fold.of(duckdb_engine, train, duckdb_engine.from_arrow(test), START_AT)

    exponent, figures = fallback_exponent([fold], 1)

    assert (exponent > 0) == (expected > 0)
    assert figures[0.0] == (1.0 if follow == "old" else 0.0)
    assert figures[1.0] == (0.0 if follow == "old" else 1.0)


SEARCHED: dict[str, Any] = {
    "last_day": date(2026, 3, 1),
    "started_from": START_AT.as_json,
    "parameters": dataclasses.replace(START_AT, alpha=1.5).as_json,
    "interactions": 1000,
}


@pytest.mark.parametrize(
    ("days_later", "rows", "start", "holds"),
    [
        (0, 1000, START_AT, True),
        (6, 1999, START_AT, True),
        (7, 1000, START_AT, False),
        # The lake was put back to an earlier time.
        (-1, 1000, START_AT, False),
        (0, 2000, START_AT, False),
        (0, 500, START_AT, False),
        (0, 1000, dataclasses.replace(START_AT, factors=9), False),
    ],
)
def test_a_search_holds_until_its_days_are_over_or_much_has_changed(days_later, rows, start, holds):
    last_day = SEARCHED["last_day"] + days_later * DAY

    found = remembered([SEARCHED], start, last_day, rows, every_days=7)

    assert found == (SEARCHED if holds else None)
    assert remembered([SEARCHED], start, None, 0, every_days=7) is None


def test_parameters_of_another_version_are_read():
    written = '{"alpha": 0.5, "gone": 3}'

    assert START_AT.read(written) == dataclasses.replace(START_AT, alpha=0.5)
    assert START_AT.read(START_AT.as_json) == START_AT


def test_of_a_large_shop_whole_shoppers_are_drawn(duckdb_engine, monkeypatch):
    monkeypatch.setattr("clickstream_assets.recommender.search.MOST_INTERACTIONS", 500)
    train, test = (duckdb_engine.from_arrow(table) for table in planted_taste())

    fold = Fold.of(duckdb_engine, train, test, START_AT)

    assert 300 < fold.strengths.nnz < 700
    # Thirteen that each has met, and four to find.
    assert set(np.diff(fold.strengths.indptr).tolist()) == {13}
    assert fold.of_new.shape[0] == 0
    assert pa.array(fold.judged).to_pylist() == list(range(fold.strengths.shape[0]))
