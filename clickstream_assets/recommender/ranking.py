"""Parts that all algorithms share: the products, a block of shoppers' histories, and the n best products for each.

A model is a small picklable object with numpy arrays; it is shipped to where the shoppers are (see
`Engine.map_arrow`) and ranks all products for a block of them at a time. An algorithm implements `Model`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from clickstream_assets.engine import DataFrame, Engine, functions_of

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]

# Scores of a block of shoppers: 4 million doubles are 32 MB, whatever the number of products.
_BLOCK_SCORES = 4_000_000


@dataclass(frozen=True)
class Products:
    """All products that can be recommended, most popular first; its position here is a product's index.

    Equal scores rank by that position, so where a model knows nothing of a shopper, popularity decides.
    """

    ids: pa.Array
    shoppers: IntArray
    scores: FloatArray

    @classmethod
    def of(cls, popular: pa.Table) -> Self:
        """Take them from POPULAR_PRODUCTS rows (`rank`, `product_id`, `users` and `score` are enough)."""
        ranked = popular.sort_by("rank").combine_chunks()
        return cls(
            pa.array(ranked["product_id"].to_pylist(), pa.string()),
            ranked["users"].to_numpy(),
            ranked["score"].to_numpy(),
        )

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self.ids)

    @property
    def mean_strength(self) -> float:
        """Mean strength of all interactions that the products were ranked by."""
        return float(self.scores.sum() / self.shoppers.sum())

    def positions(self, product_ids: pa.Array | pa.ChunkedArray) -> IntArray:
        """Return the index of each product; -1 where it is not one of these."""
        return pc.fill_null(pc.index_in(product_ids, value_set=self.ids), -1).to_numpy()


class Model(Protocol):
    """A trained algorithm."""

    algorithm: ClassVar[str]

    @property
    def products(self) -> Products:
        """The products that it can recommend."""

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Score all products for a block of shoppers.

        Args:
            strengths: [shoppers, products], the strength of what each has met.

        Returns:
            [shoppers, products], a fresh array; the higher the better.
        """

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Return how much each product of one shopper's own adds to the scores of some picked products.

        Returns:
            [picked, own]; nothing above 0 where the pick has nothing to do with what the shopper met.
        """


class Deed(IntEnum):
    """The most that a shopper did with a product."""

    VIEWED = 0
    ADDED_TO_CART = 1
    BOUGHT = 2


def histories(interactions: DataFrame) -> DataFrame:
    """Gather each shopper's interactions into one row: `user_id` and `met`, a list of structs."""
    functions, _ = functions_of(interactions)
    column = functions.col
    deed = (
        functions.when(column("purchases") > 0, int(Deed.BOUGHT))
        .when(column("add_to_carts") > 0, int(Deed.ADDED_TO_CART))
        .otherwise(int(Deed.VIEWED))
        .cast("int")
    )
    return (
        interactions.select("user_id", "product_id", "strength", deed.alias("deed"))
        .groupBy("user_id")
        .agg(functions.collect_list(functions.struct("product_id", "strength", "deed")).alias("met"))
    )


@dataclass(frozen=True)
class Histories:
    """A block of shoppers in memory: `strengths` is [shoppers, products], `deeds` goes with its entries."""

    rows: pa.RecordBatch
    strengths: csr_matrix
    deeds: IntArray

    @classmethod
    def blocks(cls, batches: Iterator[pa.RecordBatch], products: Products) -> Iterator[Self]:
        """Cut batches of `histories` rows into blocks whose scores take little memory."""
        size = max(1, _BLOCK_SCORES // max(1, len(products)))
        for batch in batches:
            for start in range(0, batch.num_rows, size):
                yield cls._of(batch.slice(start, size), products)

    @classmethod
    def _of(cls, rows: pa.RecordBatch, products: Products) -> Self:
        met = rows.column("met")
        shopper = np.repeat(np.arange(rows.num_rows), pc.list_value_length(met).to_numpy())
        product_ids, strengths, deeds = met.flatten().flatten()
        positions = products.positions(product_ids)
        # What a shopper met after training is no product of the model, so it cannot be recommended either.
        known = np.flatnonzero(positions >= 0)
        order = known[np.lexsort((positions[known], shopper[known]))]
        ends = np.cumsum(np.bincount(shopper[order], minlength=rows.num_rows))
        matrix = csr_matrix(
            (strengths.to_numpy()[order], positions[order], np.concatenate(([0], ends))),
            shape=(rows.num_rows, len(products)),
        )
        return cls(rows, matrix, deeds.to_numpy()[order])

    def own(self, shopper: int) -> slice:
        """Return where a shopper's entries are in `strengths.indices`, `strengths.data` and `deeds`."""
        return slice(self.strengths.indptr[shopper], self.strengths.indptr[shopper + 1])


def best_unmet(model: Model, block: Histories, n: int) -> Iterator[tuple[IntArray, FloatArray]]:
    """Rank all products for each shopper of a block, leaving out what they have met.

    Yields:
        Per shopper, the indices of up to n products, best first, and their scores.
    """
    scores = model.scores(block.strengths)
    for shopper, row in enumerate(scores):
        row[block.strengths.indices[block.own(shopper)]] = -np.inf
        picked = top_n(row, n)
        yield picked, row[picked]


def top_n(scores: FloatArray, n: int) -> IntArray:
    """Return the indices of the n highest finite scores, highest first; equal scores in order of index."""
    threshold = np.partition(scores, -n)[-n] if n < len(scores) else -np.inf
    candidates = np.flatnonzero((scores >= threshold) & np.isfinite(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:n]


def numbered_users(engine: Engine, interactions: DataFrame) -> DataFrame:
    """Number the users of some interactions from 0 in order of their ids: `user_id` and `user`; to be released."""
    functions, window = functions_of(interactions)
    number = functions.row_number().over(window.orderBy("user_id")) - 1
    return engine.persist(
        interactions.select("user_id").distinct().withColumn("user", number.cast("int").alias("user"))
    )


def numbered_products(engine: Engine, products: Products) -> DataFrame:
    """Give products their index: `product_id` and `item`; to be released."""
    items = pa.array(np.arange(len(products), dtype=np.int32))
    return engine.from_arrow(pa.table({"product_id": products.ids, "item": items}))


def strength_matrix(
    engine: Engine, interactions: DataFrame, products: Products
) -> tuple[pa.Array, csr_matrix]:
    """Bring INTERACTIONS rows, in any order, into one sparse matrix in this process.

    The engine gives users and products their numbers, so that 12 bytes of an interaction come here, and none of its
    ids.

    Returns:
        The user ids in order, and float32 [users, products].
    """
    functions, _ = functions_of(interactions)
    users, items = numbered_users(engine, interactions), numbered_products(engine, products)
    try:
        ids = engine.to_arrow(users).sort_by("user")["user_id"].combine_chunks()
        met = engine.to_arrow(
            interactions.join(users, "user_id")
            .join(items, "product_id")
            .select("user", "item", functions.col("strength").cast("float").alias("strength"))
        )
    finally:
        engine.release(users)
        engine.release(items)
    matrix = csr_matrix(
        (met["strength"].to_numpy(), (met["user"].to_numpy(), met["item"].to_numpy())),
        shape=(len(ids), len(products)),
    )
    matrix.sort_indices()
    return ids, matrix
