"""Embarrassingly shallow autoencoders: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

Each product is foretold from the others that a shopper has met, by the linear weights that err least over all
shoppers, with an L2 penalty and none of itself. They have a closed form (equation 8 of the paper):

    P = (X' X + penalty)^-1,  weights = -P / diagonal of P, by column, and 0 on the diagonal

with X the strengths as multiples of their mean. The penalty is `ease_regularization` times the mean of the diagonal
of X' X, so that one value suits few and many shoppers.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_matrix

from clickstream_assets.recommender.als import mean_strength
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.ranking import NO_AGEING, Ageing, FloatArray, IntArray, Products


@dataclass(frozen=True)
class EaseModel:
    """`weights` is [some, some]: what having met the first adds to the score of the second.

    They are of the `some` products that most shoppers' strengths speak for, which `known` gives a number from 0; the
    others, numbered -1, neither are recommended nor count.
    """

    products: Products
    known: IntArray
    weights: FloatArray
    mean: float
    ageing: Ageing = NO_AGEING
    algorithm: str = "ease"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Foretell each product from what a shopper has met, about 0 to 1; what speaks against it counts as nothing."""
        at = np.flatnonzero(self.known >= 0)
        of_known = strengths[:, at].astype(np.float32) / np.float32(self.mean)
        foretold = of_known @ self.weights
        np.maximum(foretold, 0, out=foretold)
        scores = np.zeros((strengths.shape[0], len(self.products)), np.float32)
        # The most popular are the first ones, unless products are ranked by trend: columns in a row are copied at once.
        is_first = len(at) > 0 and at[-1] == len(at) - 1
        scores[:, slice(len(at)) if is_first else at] = foretold
        return scores

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Give the terms of that sum."""
        ours, theirs = self.known[own][:, None, :], self.known[picked][:, :, None]
        terms = self.weights[ours, theirs] * (strengths[:, None, :] / self.mean)
        return np.where((ours >= 0) & (theirs >= 0), terms, 0)


def train(strengths: csr_matrix, products: Products, parameters: Parameters) -> EaseModel:
    """Compute the weights of at most `ease_products` products, in this process.

    Takes 12 bytes, and a third of it for the model, for each pair of them: 300 MB and a few seconds for 5,000. Single
    precision is enough, because the penalty keeps the matrix far from singular.

    Args:
        strengths: [users, products].
        products: the products of these.
        parameters: those of EASE.

    Raises:
        NotEnoughInteractions: there are none.
    """
    if not strengths.nnz:
        raise NotEnoughInteractions("No shopper has met any product: there is nothing to train EASE on.")
    # The order of products is another where it follows the trend, and may not change what is learnt.
    total = np.asarray(strengths.sum(axis=0)).ravel()
    at = np.sort(np.argsort(-total, kind="stable")[: parameters.ease_products])
    mean = mean_strength(strengths)
    met = csr_matrix(strengths[:, at], dtype=np.float64) / mean
    gram = (met.T @ met).astype(np.float32).toarray()
    diagonal = np.diag_indices_from(gram)
    gram[diagonal] += parameters.ease_regularization * gram[diagonal].mean()
    weights = _inverse(gram)
    scale = -np.diag(weights).copy()
    weights = (weights / scale).astype(np.float32)
    weights[diagonal] = 0
    known = np.full(len(products), -1)
    known[at] = np.arange(len(at))
    return EaseModel(products, known, weights, mean)


def _inverse(matrix: FloatArray) -> FloatArray:
    """Invert a symmetric matrix with positive eigenvalues, which the penalty makes it, in place: half of LU's work."""
    factor, failed = lapack.spotrf(matrix.T, lower=0, overwrite_a=1)
    inverse, failed_too = lapack.spotri(factor, lower=0, overwrite_c=1)
    if failed or failed_too:
        raise np.linalg.LinAlgError(f"EASE's matrix cannot be inverted (LAPACK: {failed}, {failed_too})")
    upper = np.triu(inverse)
    return upper + np.triu(upper, 1).T
