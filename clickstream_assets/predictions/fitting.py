"""Fits additive models to arrays: weighted logistic regression with an L2 penalty, and what many rows are scored with.

By SciPy's optimiser, which is here anyway: scikit-learn finds the same minimum, for 50 MB more in every image and a
second and a half at each import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from clickstream_assets.predictions.additive import AdditiveModel, Curve

FloatArray: TypeAlias = npt.NDArray[np.float64]

PENALTY = 10.0
"""L2 penalty on the parts at the points, halved: as if each had been seen to be 0 about ten times."""
POINTS = 8
"""Points of a curve, at quantiles of its feature."""
_MOST_BASE = 30.0


def fit(
    names: Sequence[str],
    features: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray | None = None,
    points: int = POINTS,
    penalty: float = PENALTY,
) -> AdditiveModel:
    """Find the curves of the greatest penalised likelihood.

    Args:
        names: names of the features.
        features: a row per example, a column per feature; finite.
        outcomes: 0 or 1 of each row; both must occur.
        weights: of each row (default: all alike); only their ratios count.
        points: points of a curve, at most.
        penalty: on the sum of squares of the parts.
    """
    weights = np.ones(len(outcomes)) if weights is None else weights * len(weights) / weights.sum()
    knots = [knots_of(column, points) for column in features.T]
    basis = np.hstack([_basis(column, at) for column, at in zip(features.T, knots, strict=True)])
    means = weights @ basis / weights.sum()
    centred = basis - means
    rate = weights @ outcomes / weights.sum()

    def loss(unknown: FloatArray) -> tuple[float, FloatArray]:
        odds = unknown[0] + centred @ unknown[1:]
        losses = np.logaddexp(0, odds) - outcomes * odds
        slopes = weights * (expit(odds) - outcomes)
        value = weights @ losses + penalty / 2 * unknown[1:] @ unknown[1:]
        return value, np.concatenate([[slopes.sum()], slopes @ centred + penalty * unknown[1:]])

    def curvature(unknown: FloatArray) -> FloatArray:
        by_row = weights * (chance := expit(unknown[0] + centred @ unknown[1:])) * (1 - chance)
        crossed = by_row @ centred
        within = (centred * by_row[:, None]).T @ centred + penalty * np.eye(len(crossed))
        return np.block([[by_row.sum(), crossed[None, :]], [crossed[:, None], within]])

    start = np.concatenate([[logit(rate)], np.zeros(basis.shape[1])])
    # A step of Newton's costs as much as a dozen of L-BFGS, and eight are enough where that takes hundreds.
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-3})
    parts = np.split(found.x[1:], np.cumsum([len(at) for at in knots])[:-1])
    average = np.split(means, np.cumsum([len(at) for at in knots])[:-1])
    curves = (
        Curve(name, tuple(at.tolist()), tuple((its - its @ mean).tolist()))
        for name, at, its, mean in zip(names, knots, parts, average, strict=True)
    )
    return AdditiveModel(float(found.x[0]), tuple(curves))


def knots_of(column: FloatArray, points: int) -> FloatArray:
    """Return the values of a feature at which its curve has points: its quantiles, each once."""
    return np.unique(np.quantile(column, np.linspace(0, 1, points)))


def _basis(column: FloatArray, knots: FloatArray) -> FloatArray:
    """Return how much each point counts for each row: hat functions, which add up to 1."""
    return np.stack([np.interp(column, knots, hat) for hat in np.eye(len(knots))], axis=1)


def parts(model: AdditiveModel, features: FloatArray) -> FloatArray:
    """Return each feature's part in the log-odds, row by row: what `AdditiveModel.parts` returns for each."""
    columns = zip(model.curves, features.T, strict=True)
    return np.stack([np.interp(column, curve.values, curve.parts) for curve, column in columns], axis=1)


def probabilities(model: AdditiveModel, features: FloatArray) -> FloatArray:
    """Return the probability of each row."""
    return expit(model.base + parts(model, features).sum(axis=1))


def recalibrated(model: AdditiveModel, features: FloatArray, outcomes: FloatArray) -> AdditiveModel:
    """Move a model's base so that its mean probability is the share of these rows in which it happened.

    Rows in which it never or always happened say too little for that, and leave the model as it is.
    """
    if not 0 < outcomes.mean() < 1:
        return model
    odds = model.base + parts(model, features).sum(axis=1)
    moved = brentq(lambda by: expit(odds + by).mean() - outcomes.mean(), -_MOST_BASE, _MOST_BASE)
    return AdditiveModel(model.base + float(moved), model.curves)
