"""Figures of how good probabilities are, and the gate: whether a model is better than what needs none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from clickstream_assets.predictions.fitting import FloatArray

DECILES = 10
LEAST_BUYERS = 30
"""Of fewer, among those judged, nothing can be said of a model."""
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
    bounded = np.clip(probabilities, _LEAST, 1 - _LEAST)
    tenths = np.array_split(np.argsort(probabilities, kind="stable"), DECILES)
    gaps = [abs(probabilities[tenth].mean() - outcomes[tenth].mean()) for tenth in tenths if len(tenth)]
    return Figures(
        examples=len(outcomes),
        buyers=buyers,
        auc=float(auc),
        log_loss=float(-np.mean(np.where(outcomes == 1, np.log(bounded), np.log(1 - bounded)))),
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
    outcomes: FloatArray, by_model: FloatArray, by_base_rate: FloatArray, by_rule: FloatArray
) -> Verdict:
    """Say whether a model foretold what it had not seen better than the base rate and than a rule of one feature.

    Args:
        outcomes: 0 or 1 of each example, of a time after all that the model was fitted to.
        by_model: the model's probabilities.
        by_base_rate: the share of buyers before, for each.
        by_rule: those of the rule.
    """
    buyers, others = int(outcomes.sum()), int(len(outcomes) - outcomes.sum())
    if min(buyers, others) < LEAST_BUYERS:
        return Verdict(False, f"only {buyers} buyers among {buyers + others} to judge by")
    model, base_rate, rule = (figures(outcomes, its) for its in (by_model, by_base_rate, by_rule))
    for name, other in (("the base rate", base_rate), ("the rule", rule)):
        if model.log_loss >= other.log_loss:
            why = f"log loss {model.log_loss:.4f} is not below {other.log_loss:.4f} of {name}"
            return Verdict(False, why, model, base_rate, rule)
    why = f"log loss {model.log_loss:.4f}, {base_rate.log_loss:.4f} of the base rate, {rule.log_loss:.4f} of the rule"
    return Verdict(True, why, model, base_rate, rule)
