"""Implicit-feedback matrix factorisation: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit
Feedback Datasets", ICDM 2008.

Trained by `implicit` in this process or by Spark's MLlib, whichever engine the interactions are on. Both
minimise, over user vectors x and item vectors y,

    sum over all (u, i) of c_ui * (p_ui - x_u . y_i)^2 + penalty

with p = 1 where u met i (else 0) and c = 1 + alpha * strength / mean strength, so that alpha means the same
whatever the weights of events. They differ in the penalty: MLlib's is regularization times the sums of
n_u |x_u|^2 and n_i |y_i|^2, with n the numbers of interactions (Zhou et al., "Large-Scale Parallel
Collaborative Filtering for the Netflix Prize", AAIM 2008); `implicit` has one constant for all vectors, set
here to regularization * sqrt(mean n_u * mean n_i). So one setting suits
dense and sparse data, on either engine.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from clickstream_assets.catalogue import ITEM_FACTORS, USER_FACTORS, VECTOR
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.ranking import (
    FloatArray,
    IntArray,
    Products,
    numbered_products,
    numbered_users,
    strength_matrix,
)
from clickstream_assets.settings import EngineName, Settings

_LEAST_PREFERENCE = 1e-4


@dataclass(frozen=True)
class Parameters:
    """Parameters of training; the settings explain each."""

    factors: int
    iterations: int
    regularization: float
    alpha: float
    seed: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take them from the settings."""
        return cls(
            factors=settings.als_factors,
            iterations=settings.als_iterations,
            regularization=settings.als_regularization,
            alpha=settings.als_alpha,
            seed=settings.model_seed,
        )

    @property
    def fingerprint(self) -> str:
        """Eight characters that differ where any parameter does."""
        return blake2b(repr(self).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class Factors:
    """The trained vectors: USER_FACTORS and ITEM_FACTORS rows, ordered by id."""

    user_factors: pa.Table
    item_factors: pa.Table


def train(engine: Engine, interactions: DataFrame, products: Products, parameters: Parameters) -> Factors:
    """Factorise the interactions; the same seed and data give the same factors on the same engine.

    In this process the whole matrix is held in memory (about 40 bytes an interaction at most). On Spark it stays
    distributed, but the factors come to the driver.

    Args:
        engine: decides the library.
        interactions: INTERACTIONS rows.
        products: the products of these interactions, from `rank_products` of them.
        parameters: see the settings `als_…` and `model_seed`.

    Raises:
        NotEnoughInteractions: there are none.
    """
    if len(products) == 0:
        raise NotEnoughInteractions("No shopper has met any product: there is nothing to train ALS on.")
    if engine.name is EngineName.SPARK:
        return _train_with_mllib(engine, interactions, products, parameters)
    return _train_with_implicit(engine, interactions, products, parameters)


def _train_with_implicit(
    engine: Engine, interactions: DataFrame, products: Products, parameters: Parameters
) -> Factors:
    from implicit.als import AlternatingLeastSquares

    users, strengths = strength_matrix(engine, interactions, products)
    confidence = csr_matrix(strengths)
    confidence.data = 1 + np.float32(parameters.alpha / products.mean_strength) * strengths.data
    mean_by_user, mean_by_item = (strengths.nnz / size for size in strengths.shape)
    # BLAS's own threads inside implicit's make it slower (its documentation says so), and their number would
    # change the order of sums, so the factors.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=parameters.factors,
            iterations=parameters.iterations,
            regularization=parameters.regularization * np.sqrt(mean_by_user * mean_by_item),
            random_state=parameters.seed,
        )
        model.fit(confidence, show_progress=False)
    return Factors(
        _factors_table(USER_FACTORS.arrow, users, model.user_factors),
        _factors_table(ITEM_FACTORS.arrow, products.ids, model.item_factors),
    )


def _factors_table(schema: pa.Schema, ids: pa.Array, vectors: FloatArray) -> pa.Table:
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float32).ravel()), type=VECTOR)
    return pa.Table.from_arrays([ids, lists], schema=schema).sort_by(schema.names[0])


def _train_with_mllib(
    engine: Engine, interactions: DataFrame, products: Products, parameters: Parameters
) -> Factors:
    from pyspark.ml.recommendation import ALS

    functions, _ = functions_of(interactions)
    # MLlib wants integer ids; numbering by order of the ids makes the factors depend on the data alone.
    users, items = numbered_users(engine, interactions), numbered_products(engine, products)
    # MLlib's default of 10 blocks suits neither two cores nor a cluster.
    # Spark has a default for it.
    blocks = int(interactions.sparkSession.conf.get("spark.sql.shuffle.partitions"))  # type: ignore[arg-type]
    # MLlib adds up in the order of the rows that it is given; sorted, it gives the same factors each time.
    ratings = (
        interactions.join(users, "user_id")
        .join(items, "product_id")
        .select("user", "item", functions.col("strength").cast("float").alias("strength"))
        .repartition(blocks, "user")
        .sortWithinPartitions("user", "item")
    )
    try:
        model = ALS(
            implicitPrefs=True,
            rank=parameters.factors,
            maxIter=parameters.iterations,
            regParam=parameters.regularization,
            alpha=parameters.alpha / products.mean_strength,
            numUserBlocks=blocks,
            numItemBlocks=blocks,
            seed=parameters.seed,
            userCol="user",
            itemCol="item",
            ratingCol="strength",
        ).fit(ratings)
        vectors = functions.col("features").alias("factors")
        user_factors = users.join(model.userFactors.withColumnRenamed("id", "user"), "user")
        item_factors = items.join(model.itemFactors.withColumnRenamed("id", "item"), "item")
        return Factors(
            _in_order(engine.to_arrow(user_factors.select("user_id", vectors)), USER_FACTORS.arrow),
            _in_order(engine.to_arrow(item_factors.select("product_id", vectors)), ITEM_FACTORS.arrow),
        )
    finally:
        engine.release(users)
        engine.release(items)


def _in_order(factors: pa.Table, schema: pa.Schema) -> pa.Table:
    return factors.sort_by(schema.names[0]).cast(schema)


@dataclass(frozen=True)
class AlsModel:
    """Ranks by item vectors and by what a shopper has met until now.

    A shopper's vector is solved from their own interactions with the item vectors held fixed (the last half
    step of training: equation 4 of the paper, with MLlib's penalty). So shoppers who came after training are
    served too, and the same equation says why a product is recommended (section 5).
    """

    products: Products
    item_factors: FloatArray
    regularization: float
    confidence_per_strength: float
    algorithm: ClassVar[str] = "als"

    @classmethod
    def of(cls, products: Products, item_factors: pa.Table, parameters: Parameters) -> Self:
        """Take the item vectors from ITEM_FACTORS rows; a product without one has a vector of zeros.

        Args:
            products: what can be recommended, from POPULAR_PRODUCTS.
            item_factors: as `train` returned them.
            parameters: those they were trained with.
        """
        vectors = item_factors["factors"].combine_chunks()
        matrix = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        positions = products.positions(item_factors["product_id"])
        known = positions >= 0
        aligned = np.zeros((len(products), matrix.shape[1]), np.float32)
        aligned[positions[known]] = matrix[known]
        return cls(products, aligned, parameters.regularization, parameters.alpha / products.mean_strength)

    @cached_property
    def _gram(self) -> FloatArray:
        return self.item_factors.T.astype(np.float64) @ self.item_factors

    def _normal_matrix(self, own: IntArray, strengths: FloatArray) -> FloatArray:
        vectors = self.item_factors[own]
        extra_confidence = self.confidence_per_strength * strengths
        penalty = self.regularization * len(own) * np.eye(vectors.shape[1])
        return self._gram + (vectors.T * extra_confidence) @ vectors + penalty

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Estimate the preference of each shopper for each product, 0 to about 1.

        An estimate below 0 says no more than 0 does, that nothing speaks for the product; so those rank by popularity.
        """
        vectors = np.zeros((strengths.shape[0], self.item_factors.shape[1]), np.float32)
        for shopper, (start, end) in enumerate(itertools.pairwise(strengths.indptr)):
            if start == end:
                continue
            own, strength = strengths.indices[start:end], strengths.data[start:end]
            target = (1 + self.confidence_per_strength * strength) @ self.item_factors[own]
            vectors[shopper] = np.linalg.solve(self._normal_matrix(own, strength), target)
        return np.maximum(_without_noise(vectors @ self.item_factors.T), 0)

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Split the picked products' scores over the shopper's own: the terms of section 5 of the paper."""
        weighted_picks = np.linalg.solve(self._normal_matrix(own, strengths), self.item_factors[picked].T)
        confidence = 1 + self.confidence_per_strength * strengths
        return _without_noise((self.item_factors[own] @ weighted_picks).T * confidence)


def _without_noise(preferences: FloatArray) -> FloatArray:
    """Set estimates that say nothing to 0, so that popularity decides.

    Preferences run from 0 to 1. For a shopper who met only what hardly anybody else did they are all around 1e-12,
    and their order is chance: nDCG@10 on a public day of 3,633 shoppers is 0.084 with it and 0.086 without.
    """
    preferences[np.abs(preferences) < _LEAST_PREFERENCE] = 0
    return preferences
