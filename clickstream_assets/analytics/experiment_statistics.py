"""The statistics of experiments: intervals, a decision that may be looked at at any time, and a check of arms' sizes.

Intervals of one arm and of a difference are of one look: 95 of 100 hold. Who looks each day until one of them excludes
zero finds a difference where there is none in far more than 5 of 100 experiments. So the decision is by a *confidence
sequence*: with a chance of 95 % it holds the true difference at all looks together, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, sqrt
from typing import NamedTuple, Self

from scipy.special import lambertw
from scipy.stats import chisquare, norm, t

LEVEL = 0.95
LEAST_UNITS = 100
"""Judged units of each arm below which nothing is decided: the sequence is by the central limit theorem."""
LEAST_EVENTS = 10
"""Units that bought, or clicked, or did not where most do, that an arm has to have for that, if it is as the other."""
MISMATCH = 0.001
"""Arms whose sizes have a smaller chance than this are not what was declared."""


class Interval(NamedTuple):
    """A lower and an upper bound."""

    low: float
    high: float


class Sums(NamedTuple):
    """A figure of units, summed up: the number of units, the sum and the sum of squares."""

    units: int
    total: float
    squares: float

    @classmethod
    def of_flags(cls, units: int, flagged: int) -> Self:
        """Return the sums of a figure that is 1 for some units and 0 for the others."""
        return cls(units, flagged, flagged)

    def plus(self, other: Sums) -> Self:
        """Return the sums of the units of both."""
        return type(self)(self.units + other.units, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean of the units."""
        return self.total / self.units

    @property
    def variance(self) -> float:
        """Unbiased variance among the units; 0 where there is one."""
        if self.units < 2:
            return 0.0
        return max(0.0, (self.squares - self.units * self.mean**2) / (self.units - 1))


def wilson(found: int, units: int, level: float = LEVEL) -> Interval:
    """Return the interval of a share.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.

    Args:
        found: units that count.
        units: all of them, at least one.
        level: chance that the interval holds the true share.
    """
    z = float(norm.ppf((1 + level) / 2))
    share = found / units
    center = share + z * z / (2 * units)
    reach = z * sqrt(share * (1 - share) / units + z * z / (4 * units * units))
    spread = 1 + z * z / units
    return Interval(max(0.0, (center - reach) / spread), min(1.0, (center + reach) / spread))


def newcombe(found: int, units: int, base_found: int, base_units: int, level: float = LEVEL) -> Interval:
    """Return the interval of a share less another one, of other units.

    Newcombe, "Interval Estimation for the Difference Between Independent Proportions", Statistics in Medicine 17, 1998,
    method 10: the two Wilson intervals, squared and added.
    """
    share, base = found / units, base_found / base_units
    low, high = wilson(found, units, level)
    base_low, base_high = wilson(base_found, base_units, level)
    difference = share - base
    return Interval(
        difference - sqrt((share - low) ** 2 + (base_high - base) ** 2),
        difference + sqrt((high - share) ** 2 + (base - base_low) ** 2),
    )


def mean_interval(sums: Sums, level: float = LEVEL) -> Interval | None:
    """Return Student's interval of a mean; None for fewer than two units."""
    if sums.units < 2:
        return None
    reach = float(t.ppf((1 + level) / 2, sums.units - 1)) * sqrt(sums.variance / sums.units)
    return Interval(sums.mean - reach, sums.mean + reach)


def welch(sums: Sums, base: Sums, level: float = LEVEL) -> Interval | None:
    """Return the interval of a mean less another one, of other units; None for fewer than two units of either.

    Welch, "The Generalization of 'Student's' Problem when Several Different Population Variances are Involved",
    Biometrika 34, 1947.
    """
    if min(sums.units, base.units) < 2:
        return None
    of_both = [its.variance / its.units for its in (sums, base)]
    variance, difference = sum(of_both), sums.mean - base.mean
    if not variance:
        return Interval(difference, difference)
    weights = sum(v * v / (its.units - 1) for v, its in zip(of_both, (sums, base), strict=True))
    reach = float(t.ppf((1 + level) / 2, variance * variance / weights)) * sqrt(variance)
    return Interval(difference - reach, difference + reach)


class Look(NamedTuple):
    """A difference to the control, as of a look, by what holds at all looks together.

    Attributes:
        interval: Of the difference.
        p_value: Of no difference.
    """

    interval: Interval
    p_value: float


def look(sums: Sums, base: Sums, units: tuple[float, float], alpha: float) -> Look | None:
    """Return what a look at two arms says; None where they have too few units, or all of these are alike.

    The mixture sequential probability ratio test with a normal mixture: Johari, Koomen, Pekelis and Walsh, "Peeking at
    A/B Tests", KDD 2017, section 4, on the difference of means, by the central limit theorem. With V for the variance
    of the difference d, and a mixture N(0, T) of differences, the likelihood ratio
    sqrt(V / (V + T)) exp(T d² / 2V(V + T)) comes to 1 / alpha with a chance of alpha at most, at whatever look, if
    there is no difference. V is that of units of both arms together where it is larger: an arm in which nobody has
    bought yet has none of its own.

    T makes the interval narrowest when the arms have `units`: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024, appendix.

    Args:
        sums: of the arm.
        base: of the control.
        units: those that are expected in the arm and in the control.
        alpha: chance of a false alarm at any look.
    """
    together = sums.plus(base)
    fewest = min(sums.units, base.units)
    if fewest < LEAST_UNITS or fewest * _share_of_events(together) < LEAST_EVENTS:
        return None
    own = sums.variance / sums.units + base.variance / base.units
    of_both = together.variance * (1 / sums.units + 1 / base.units)
    variance = max(own, of_both)
    expected = variance * (1 / units[0] + 1 / units[1]) / (1 / sums.units + 1 / base.units)
    mixture = expected * (-float(lambertw(-alpha * alpha / exp(1), -1).real) - 1)
    both = variance + mixture
    difference = sums.mean - base.mean
    log_ratio = mixture * difference**2 / (2 * variance * both) - log(both / variance) / 2
    reach = sqrt(2 * variance * both / mixture * (log(1 / alpha) + log(both / variance) / 2))
    return Look(Interval(difference - reach, difference + reach), min(1.0, exp(min(0.0, -log_ratio))))


def _share_of_events(sums: Sums) -> float:
    """Return the share of units that say something: of a flag that of its rarer value.

    Of an amount, that of as many equal ones: Kish's effective sample size, the square of the sum by the sum of squares.
    """
    if not sums.squares:
        return 0.0
    share = sums.total**2 / sums.squares / sums.units
    return min(share, 1 - share) if sums.total == sums.squares else share


class Verdict(NamedTuple):
    """The judgement of an arm by all looks together.

    Attributes:
        interval: Of the difference to the control: what the intervals of all looks have in common; None before any.
        p_value: The least of all looks; None before any.
        decided_at: Number of the look, from 0, that first excluded no difference; None if none did.
        is_better: Whether it was in favour of the arm then.
    """

    interval: Interval | None = None
    p_value: float | None = None
    decided_at: int | None = None
    is_better: bool = False


def judge(
    looks: Sequence[tuple[Sums, Sums]], units: tuple[float, float], alpha: float = 1 - LEVEL
) -> Verdict:
    """Judge an arm by all looks so far.

    Args:
        looks: sums of the arm and of the control, each of all units up to a look.
        units: those that are expected in the arm and in the control.
        alpha: chance that an arm that is as the control is ever found to be different.
    """
    interval, p_value, decided_at, is_better = Interval(-inf, inf), 1.0, None, False
    is_any = False
    for number, (sums, base) in enumerate(looks):
        found = look(sums, base, units, alpha)
        if found is None:
            continue
        is_any = True
        p_value = min(p_value, found.p_value)
        low, high = (
            max(interval.low, found.interval.low),
            min(interval.high, found.interval.high),
        )
        # What all looks have in common is nothing where something changed on the way: the newest holds then.
        interval = Interval(low, high) if low <= high else found.interval
        if decided_at is None and not found.interval.low <= 0 <= found.interval.high:
            decided_at, is_better = number, found.interval.low > 0
    return Verdict(interval, p_value, decided_at, is_better) if is_any else Verdict()


def sizes_p_value(units: Sequence[int], shares: Sequence[float]) -> float | None:
    """Return the chance of arms' sizes that differ as much from their shares, or more; None without units.

    Pearson's chi-square test. That arms differ in size shows that some of their units were lost, or came twice: Fabijan
    et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019.
    """
    total = sum(units)
    if not total:
        return None
    expected = [total * share / sum(shares) for share in shares]
    return float(chisquare(units, expected).pvalue)
