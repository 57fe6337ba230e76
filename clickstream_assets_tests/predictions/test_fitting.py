"""The fit: its curves are the minimum, and one row is scored as many are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from clickstream_assets.predictions.additive import AdditiveModel, Curve
from clickstream_assets.predictions.fitting import fit, parts, probabilities, recalibrated

NAMES = ("wave", "step")


def examples(count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, their log-odds, and outcomes: one counts in the middle of its range, the other where it is 1."""
    random = np.random.default_rng(3)
    features = np.column_stack([random.uniform(0, 6, count), random.integers(0, 2, count)]).astype(float)
    odds = -2 + np.sin(features[:, 0]) * 1.5 + features[:, 1]
    return features, odds, (random.random(count) < expit(odds)).astype(float)


def test_curves_follow_what_is_not_a_straight_line():
    features, odds, outcomes = examples()
    found = probabilities(fit(NAMES, features, outcomes), features)
    assert np.abs(found - expit(odds)).mean() < 0.03
    assert found.mean() == pytest.approx(outcomes.mean(), abs=1e-4)


def test_parts_are_zero_on_average_and_weights_count_as_repetitions():
    features, _, outcomes = examples(600)
    model = fit(NAMES, features, outcomes)
    assert parts(model, features).mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    weights = np.where(features[:, 1] == 1, 3.0, 1.0)
    # The penalty is on as many rows as there are; so many more of them have it weigh less.
    share = len(weights) / weights.sum()
    weighted = fit(NAMES, features, outcomes, weights, points=2, penalty=share)
    repeated = np.repeat(np.arange(len(features)), weights.astype(int))
    again = fit(NAMES, features[repeated], outcomes[repeated], points=2, penalty=1.0)
    assert probabilities(weighted, features) == pytest.approx(probabilities(again, features), abs=2e-3)


def test_a_row_alone_is_scored_as_among_many_and_after_a_way_through_json():
    features, _, outcomes = examples(500)
    model = AdditiveModel.from_json(fit(NAMES, features, outcomes).to_json())
    beyond = np.vstack([features[:50], [[-3.0, 5.0], [99.0, -1.0]]])
    one_by_one = [model.probability(row) for row in beyond.tolist()]
    assert one_by_one == pytest.approx(probabilities(model, beyond))
    assert [model.parts(row) for row in beyond.tolist()] == pytest.approx(parts(model, beyond))


def test_a_feature_that_is_always_the_same_says_nothing():
    features, _, outcomes = examples(500)
    model = fit(NAMES, features * [0, 1], outcomes)
    assert model.curves[0] == Curve("wave", (0.0,), (0.0,))
    assert model.parts([3.0, 1.0])[0] == 0


def test_recalibration_moves_the_mean_alone():
    features, _, outcomes = examples(1000)
    model = fit(NAMES, features, outcomes)
    seldom = outcomes * (np.arange(len(outcomes)) % 2).astype(float)
    moved = recalibrated(model, features, seldom)
    assert probabilities(moved, features).mean() == pytest.approx(seldom.mean())
    assert moved.curves == model.curves
    assert recalibrated(model, features, np.zeros(len(outcomes))) == model
