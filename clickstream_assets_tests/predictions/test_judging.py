"""Figures of probabilities, counted by hand, and the gate."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from clickstream_assets.predictions.judging import LEAST_BUYERS, figures, verdict


def test_figures_of_ten_examples_are_those_counted_by_hand():
    outcomes = np.array([0, 0, 0, 0, 1, 0, 0, 1, 0, 1], dtype=float)
    probabilities = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.4, 0.8])
    found = figures(outcomes, probabilities)
    assert (found.examples, found.buyers) == (10, 3)
    # Of 21 pairs the buyer at .8 wins 7; that at .2 wins 4, ties 2, and loses 1; that at .1 ties 4 and loses 3.
    assert found.auc == pytest.approx((7 + 4 + 1 + 2) / 21)
    losses = [-log(0.9)] * 4 + [-log(0.1)] + [-log(0.8)] * 2 + [-log(0.2), -log(0.6), -log(0.8)]
    assert found.log_loss == pytest.approx(sum(losses) / 10)
    # Each tenth is one example: the highest bought, three times as often as all; the buyer at .1 is .9 away.
    assert found.lift == pytest.approx(1 / 0.3)
    assert found.calibration_error == pytest.approx(0.9)


def test_a_certain_error_costs_much_and_not_without_end():
    outcomes = np.array([1.0, 0.0] * 10)
    assert 10 < figures(outcomes, 1 - outcomes).log_loss < 20


def outcomes_of(buyers: int, others: int) -> np.ndarray:
    return np.array([1.0] * buyers + [0.0] * others)


def test_a_model_is_accepted_if_it_is_better_than_base_rate_and_rule():
    outcomes = outcomes_of(50, 150)
    base, rule, model = (
        np.full(200, 0.25),
        np.where(outcomes == 1, 0.3, 0.23),
        np.where(outcomes == 1, 0.5, 0.2),
    )
    persons = [str(number) for number in range(200)]
    assert verdict(outcomes, model, base, rule, persons).accepted
    worse = verdict(outcomes, rule, base, model, persons)
    assert not worse.accepted
    assert "of the rule" in worse.reason
    nothing = verdict(outcomes, base, base, rule, persons)
    assert not nothing.accepted
    assert "of the base rate" in nothing.reason


def test_of_too_few_buyers_nothing_is_said():
    outcomes = outcomes_of(LEAST_BUYERS - 1, 100)
    persons = [str(number) for number in range(len(outcomes))]
    found = verdict(outcomes, outcomes, np.full(len(outcomes), 0.2), np.full(len(outcomes), 0.2), persons)
    assert (found.accepted, found.model) == (False, None)
    assert f"only {LEAST_BUYERS - 1} buyers" in found.reason


def test_examples_of_one_person_say_it_once():
    """Twenty examples of each of ten persons: what two hundred persons would show, ten cannot."""
    outcomes = np.tile([1.0, 0, 0, 0], 50)
    by_persons = [f"{number // 20}" for number in range(200)]
    right = np.repeat([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], 20) == 1
    # Of six persons the model says more than the base rate, of four it says what is wrong.
    model = np.where(right == (outcomes == 1), 0.28, 0.22)
    base = np.full(200, 0.25)
    assert verdict(
        outcomes, np.where(right, np.where(outcomes == 1, 0.3, 0.23), 0.25), base, base, by_persons
    ).accepted
    alone = [f"{number}" for number in range(200)]
    found = verdict(outcomes, model, base, base, by_persons)
    assert not found.accepted
    assert "not surely below" in found.reason
    assert verdict(outcomes, model, base, base, alone).model == found.model


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_is_no_better_is_seldom_used(seed: int):
    """Probabilities that are off by chance alone seem better than others by luck at one look in twenty."""
    random = np.random.default_rng(seed)
    accepted = 0
    for _ in range(200):
        outcomes = (random.random(600) < 0.2).astype(float)
        model, base = (np.clip(0.2 + 0.02 * random.standard_normal(600), 0.05, 0.5) for _ in range(2))
        accepted += verdict(outcomes, model, base, base, [str(n) for n in range(600)]).accepted
    # 10 are to be expected of 200; more than 20 of them have a chance of 1 in 1,000.
    assert accepted <= 20
