"""The statistics of experiments: against published figures, and by many simulated experiments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from clickstream_assets.analytics.experiment_statistics import (
    MISMATCH,
    Sums,
    Verdict,
    judge,
    mean_interval,
    newcombe,
    sizes_p_value,
    welch,
    wilson,
)

EXPERIMENTS = 400
LOOKS = 30
UNITS_A_LOOK = 300
"""In each arm."""
EXPECTED = (LOOKS * UNITS_A_LOOK / 2,) * 2
# Of 400 experiments in which a false alarm has a chance of 5 %, fewer than one in a thousand times more than these.
MOST_FALSE = int(binom.ppf(0.999, EXPERIMENTS, 0.05))

Draw = Callable[[np.random.Generator, int], np.ndarray]


def conversions(rate: float) -> Draw:
    return lambda random, n: random.binomial(1, rate, n).astype(float)


def revenues(rate: float, factor: float = 1.0) -> Draw:
    """Few who buy, and some of them for much."""
    return lambda random, n: random.binomial(1, rate, n) * random.lognormal(3, 1, n) * factor


def looked_at(random: np.random.Generator, arm: Draw, base: Draw, sizes: tuple[int, int]) -> Verdict:
    """Judge an experiment of which so many units more are known at each look."""
    so_far = [Sums(0, 0.0, 0.0), Sums(0, 0.0, 0.0)]
    looks = []
    for _ in range(LOOKS):
        for place, (draw, size) in enumerate(zip((arm, base), sizes, strict=True)):
            values = draw(random, size)
            so_far[place] = so_far[place].plus(Sums(size, values.sum(), (values**2).sum()))
        looks.append((so_far[0], so_far[1]))
    return judge(looks, (EXPECTED[0] * sizes[0] / UNITS_A_LOOK, EXPECTED[1] * sizes[1] / UNITS_A_LOOK))


def different(
    arm: Draw, base: Draw, seed: int, sizes: tuple[int, int] = (UNITS_A_LOOK,) * 2
) -> list[Verdict]:
    """The verdicts of those of EXPERIMENTS that ever found a difference."""
    random = np.random.default_rng(seed)
    verdicts = [looked_at(random, arm, base, sizes) for _ in range(EXPERIMENTS)]
    return [verdict for verdict in verdicts if verdict.decided_at is not None]


@pytest.mark.parametrize(
    ("draw", "sizes"),
    [
        (conversions(0.05), (300, 300)),
        (conversions(0.5), (300, 300)),
        # Rare, and with few units in the arm.
        (conversions(0.01), (100, 500)),
        (revenues(0.1), (300, 300)),
    ],
    ids=["conversion", "click-through", "rare", "revenue"],
)
def test_arms_that_are_alike_are_called_different_in_5_of_100_experiments_at_most_however_often_one_looks(
    draw: Draw, sizes: tuple[int, int]
):
    assert MOST_FALSE == 35
    assert len(different(draw, draw, 1, sizes)) <= MOST_FALSE


def test_who_looks_at_plain_intervals_each_time_is_misled_far_more_often():
    random = np.random.default_rng(2)
    misled = 0
    for _ in range(EXPERIMENTS):
        found = random.binomial(UNITS_A_LOOK, 0.05, (2, LOOKS)).cumsum(axis=1)
        intervals = (
            newcombe(int(a), n * UNITS_A_LOOK, int(b), n * UNITS_A_LOOK)
            for n, (a, b) in enumerate(found.T, start=1)
        )
        misled += any(not low <= 0 <= high for low, high in intervals)
    assert misled > 0.15 * EXPERIMENTS


def test_a_difference_that_is_there_is_found_and_its_sign_is_right():
    # 5 % and 6.5 %, after at most 9,000 units in each arm: a plain test of that size finds 99 of 100.
    found = different(conversions(0.065), conversions(0.05), 3)
    assert len(found) > 0.85 * EXPERIMENTS
    assert sum(not verdict.is_better for verdict in found) <= 1
    worse = different(conversions(0.04), conversions(0.055), 4)
    assert len(worse) > 0.85 * EXPERIMENTS
    assert sum(verdict.is_better for verdict in worse) <= 1
    # Mostly long before the end.
    assert np.median([verdict.decided_at for verdict in found]) < 0.7 * LOOKS
    assert len(different(revenues(0.1, 1.5), revenues(0.1), 5)) > 0.85 * EXPERIMENTS


def test_the_interval_of_all_looks_holds_the_true_difference():
    random = np.random.default_rng(6)
    verdicts = [
        looked_at(random, conversions(0.06), conversions(0.05), (300, 300)) for _ in range(EXPERIMENTS)
    ]
    missed = sum(not v.interval.low <= 0.01 <= v.interval.high for v in verdicts if v.interval)
    assert missed <= MOST_FALSE
    for verdict in verdicts:
        assert verdict.interval
        assert verdict.p_value is not None
        assert (verdict.decided_at is not None) == (verdict.p_value < 0.05)


def test_nothing_is_judged_by_a_handful_or_where_all_are_alike():
    all_bought = (Sums.of_flags(99, 99), Sums.of_flags(99, 0))
    assert judge([all_bought], EXPECTED) == Verdict()
    nobody = (Sums.of_flags(1000, 0), Sums.of_flags(1000, 0))
    assert judge([nobody], EXPECTED) == Verdict()
    assert judge([], EXPECTED) == Verdict()


def test_intervals_of_shares_are_those_of_the_papers():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    # Newcombe, "Interval estimation for the difference", 1998, table II, method 10.
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert newcombe(10, 10, 0, 20) == pytest.approx((0.6791, 1), abs=5e-5)


def test_intervals_of_means_are_those_of_the_t_test():
    values, base = np.array([1.0, 2, 4, 9]), np.array([0.0, 0, 1, 3, 3])
    sums, of_base = (Sums(len(v), v.sum(), (v**2).sum()) for v in (values, base))
    assert mean_interval(sums) == pytest.approx((-1.6632, 9.6632), abs=1e-4)
    from scipy.stats import ttest_ind

    expected = ttest_ind(values, base, equal_var=False).confidence_interval()
    assert welch(sums, of_base) == pytest.approx((expected.low, expected.high))
    assert mean_interval(Sums(1, 1.0, 1.0)) is None
    assert welch(sums, Sums(1, 1.0, 1.0)) is None
    assert welch(Sums(2, 2.0, 2.0), Sums(2, 0.0, 0.0)) == (1, 1)


def test_sizes_that_chance_does_not_bring_about_are_noticed():
    assert sizes_p_value([0, 0], [0.5, 0.5]) is None
    # Of 10,000 at halves the standard deviation is 50.
    assert sizes_p_value([5050, 4950], [0.5, 0.5]) == pytest.approx(0.3173, abs=1e-4)
    found = sizes_p_value([5200, 4800], [0.5, 0.5])
    assert found is not None
    assert found < MISMATCH
    assert sizes_p_value([1000, 3000], [0.2, 0.6]) == pytest.approx(1)
