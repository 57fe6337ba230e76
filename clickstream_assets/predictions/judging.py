"""Figures of how good probabilities are, and the gate: whether a model is better than what needs none."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from clickstream_assets.predictions.fitting import FloatArray

DECILES = 10
LEAST_BUYERS = 30
"""Of fewer, among those judged, nothing can be said of a model."""
SIGNIFICANCE = 0.05
"""The chance that a model that is no better than the base rate, or than the rule, is used."""
# Beyond these a probability of 0 or 1 that is wrong would make the mean infinite.
_LEAST = 1e-6


class Figures(NamedTuple):
    """How good probabilities are."""

    examples: int
    buyers: int
    auc: float
    """Chance that a buyer has a higher probability than another; equals count half."""
    log_loss: float
    """Mean negative log-likelihood, in nats."""
    lift: float
    """Share of buyers in the tenth with the highest probabilities, over that in all."""
    calibration_error: float
    """The greatest difference, among tenths by probability, of the mean probability and the share of buyers."""


def figures(outcomes: FloatArray, probabilities: FloatArray) -> Figures:
    """Compare probabilities with what happened.

    Args:
        outcomes: 0 or 1 of each example; both occur.
        probabilities: of each.
    """
    buyers = int(outcomes.sum())
    others = len(outcomes) - buyers
    ranks = rankdata(probabilities)
    auc = (ranks[outcomes == 1].sum() - buyers * (buyers + 1) / 2) / (buyers * others)
    tenths = np.array_split(np.argsort(probabilities, kind="stable"), DECILES)
    gaps = [abs(probabilities[tenth].mean() - outcomes[tenth].mean()) for tenth in tenths if len(tenth)]
    return Figures(
        examples=len(outcomes),
        buyers=buyers,
        auc=float(auc),
        log_loss=float(_losses(outcomes, probabilities).mean()),
        lift=float(outcomes[tenths[-1]].mean() / outcomes.mean()),
        calibration_error=float(max(gaps)),
    )


class Verdict(NamedTuple):
    """Whether a model is used, and why, with the figures that say so; none where there was nothing to judge by."""

    accepted: bool
    reason: str
    model: Figures | None = None
    base_rate: Figures | None = None
    rule: Figures | None = None


def verdict(
    outcomes: FloatArray,
    by_model: FloatArray,
    by_base_rate: FloatArray,
    by_rule: FloatArray,
    persons: Iterable[str],
) -> Verdict:
    """Say whether a model foretold what it had not seen surely better than the base rate and than a rule.

    Args:
        outcomes: 0 or 1 of each example, of a time after all that the model was fitted to.
        by_model: the model's probabilities.
        by_base_rate: the share of buyers before, for each.
        by_rule: those of the rule.
        persons: whose each example is: what is said of one person is not said of several.
    """
    buyers, others = int(outcomes.sum()), int(len(outcomes) - outcomes.sum())
    if min(buyers, others) < LEAST_BUYERS:
        return Verdict(False, f"only {buyers} buyers among {buyers + others} to judge by")
    model, base_rate, rule = (figures(outcomes, its) for its in (by_model, by_base_rate, by_rule))
    whose = np.unique(list(persons), return_inverse=True)[1]
    of_model, reasons = _losses(outcomes, by_model), []
    for name, other, by_other in (("the base rate", base_rate, by_base_rate), ("the rule", rule, by_rule)):
        gains = _losses(outcomes, by_other) - of_model
        least = _lower_bound(gains, whose)
        gain = f"{other.log_loss:.4f} of {name}, by {gains.mean():.4f} and surely by {least:.4f}"
        if least <= 0:
            why = f"log loss {model.log_loss:.4f} is not surely below {gain}"
            return Verdict(False, why, model, base_rate, rule)
        reasons.append(gain)
    why = f"log loss {model.log_loss:.4f} is below {'; '.join(reasons)}"
    return Verdict(True, why, model, base_rate, rule)


def _losses(outcomes: FloatArray, probabilities: FloatArray) -> FloatArray:
    bounded = np.clip(probabilities, _LEAST, 1 - _LEAST)
    losses: FloatArray = -np.where(outcomes == 1, np.log(bounded), np.log(1 - bounded))
    return losses


def _lower_bound(gains: FloatArray, whose: NDArray[np.integer]) -> float:
    """Return the bound that the mean gain is above with a chance of 1 - SIGNIFICANCE, by the normal distribution.

    With the standard error of a mean over clusters, the persons (Cochran, "Sampling Techniques", 3rd edition, 1977,
    section 9.1: the ratio of the clusters' totals to their sizes).
    """
    totals, sizes = np.bincount(whose, weights=gains), np.bincount(whose)
    mean = gains.mean()
    persons = len(totals)
    if persons < 2:
        return float("-inf")
    squares = ((totals - sizes * mean) ** 2).sum() * persons / (persons - 1)
    return float(mean - NormalDist().inv_cdf(1 - SIGNIFICANCE) * np.sqrt(squares) / len(gains))
