"""Several models as one: their scores weighted and added up, times a factor of each product."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_matrix

from clickstream_assets.recommender.ranking import NO_AGEING, Ageing, FloatArray, IntArray, Model, Products

# Enough for a mean; the shoppers are taken evenly from all.
_MEASURED_SHOPPERS = 512
# 2 MB, which stay in a processor's cache while they are added up.
_CACHED_SCORES = 500_000


@dataclass(frozen=True)
class Mix:
    """Recommends by the weighted sum of some models' scores, times what each product's `factor` is."""

    algorithm: str
    models: tuple[Model, ...]
    weights: tuple[float, ...]
    factor: FloatArray
    ageing: Ageing = NO_AGEING

    @classmethod
    def of(
        cls, algorithm: str, shares: Sequence[tuple[float, Model]], factor: FloatArray, strengths: csr_matrix
    ) -> Self:
        """Weight models such that a share means the same whatever the scale of a model's scores.

        Args:
            algorithm: the mix' name.
            shares: what each model's highest scores are to count for; those of 0 are left out.
            factor: [products].
            strengths: [shoppers, products] that the models were trained on.
        """
        step = max(1, -(-strengths.shape[0] // _MEASURED_SHOPPERS))
        some = strengths[::step]
        kept = [(share, model) for share, model in shares if share > 0]
        weights = tuple(share / height(model.scores(some), some) for share, model in kept)
        return cls(algorithm, tuple(model for _, model in kept), weights, factor)

    @property
    def products(self) -> Products:
        """The products that can be recommended."""
        return self.models[0].products

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Add up the models' scores."""
        scores, *others = (model.scores(strengths) for model in self.models)
        factor, *other_factors = ((self.factor * weight).astype(np.float32) for weight in self.weights)
        some = max(1, _CACHED_SCORES // max(1, scores.shape[1]))
        for begin in range(0, scores.shape[0], some):
            part = scores[begin : begin + some]
            part *= factor
            for its_factor, its in zip(other_factors, others, strict=True):
                more = its[begin : begin + some]
                more *= its_factor
                part += more
        return scores

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Add up what the models say."""
        terms = sum(
            weight * model.contributions(own, strengths, picked)
            for weight, model in zip(self.weights, self.models, strict=True)
        )
        return terms * self.factor[picked][:, :, None]


def height(scores: FloatArray, strengths: csr_matrix) -> float:
    """The mean of shoppers' highest score of a product that they have not met; 1 where all are 0."""
    shoppers = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr))
    scores[shoppers, strengths.indices] = 0
    height = float(scores.max(axis=1, initial=0).mean(dtype=np.float64))
    return height if height > 0 else 1.0
