"""Parts that all algorithms share: the products, a block of shoppers' histories, and the n best products for each.

A model is a small picklable object with numpy arrays; it is shipped to where the shoppers are (see
`Engine.map_arrow`) and ranks all products for a block of them at a time. An algorithm implements `Model`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue.units import DAY
from clickstream_assets.engine import DataFrame, Engine, functions_of

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]

# Scores of a block of shoppers: 16 million are 64 MB in single precision, whatever the number of products. With half as
# many the lists take an eighth more time.
_BLOCK_SCORES = 16_000_000
# What is solved for several shoppers at once: 4 million doubles are 32 MB.
_GROUP_VALUES = 4_000_000
# Of so many products at a time the best is looked for, before the best n are.
_PRODUCTS_PER_STRIDE = 32
LEAST_STRENGTH = 0.001
"""The least that an interaction can say; strengths have three decimals."""
# A product that hardly anybody has met is taken to be as trendy as all are: as if by one recent shopper more.
_USUAL_SHOPPERS = 1.0


@dataclass(frozen=True)
class Products:
    """All products that can be recommended, best for an unknown shopper first; its position here is a product's index.

    Equal scores rank by that position, so where a model knows nothing of a shopper, popularity decides.

    Attributes:
        ids: The products' ids.
        shoppers: How many different shoppers met each.
        scores: The sum of the strengths of their interactions.
        recent_shoppers: How many of them met it within TREND_DAYS.
        categories: The number of each one's category, counted from 0; -1 for none.
    """

    ids: pa.Array
    shoppers: IntArray
    scores: FloatArray
    recent_shoppers: IntArray
    categories: IntArray

    @classmethod
    def of(cls, popular: pa.Table) -> Self:
        """Take them from POPULAR_PRODUCTS rows.

        `rank`, `product_id`, `users`, `score` and `recent_users` are enough.
        """
        ranked = popular.sort_by("rank").combine_chunks()
        categories = np.full(len(ranked), -1)
        if "product_category" in ranked.column_names:
            codes = ranked["product_category"].combine_chunks().dictionary_encode()
            if isinstance(codes, pa.ChunkedArray):
                codes = codes.combine_chunks()
            categories = pc.fill_null(codes.indices, -1).to_numpy()
        return cls(
            pa.array(ranked["product_id"].to_pylist(), pa.string()),
            ranked["users"].to_numpy(),
            ranked["score"].to_numpy(),
            ranked["recent_users"].to_numpy(),
            categories,
        )

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self.ids)

    def positions(self, product_ids: pa.Array | pa.ChunkedArray) -> IntArray:
        """Return the index of each product; -1 where it is not one of these."""
        return pc.fill_null(pc.index_in(product_ids, value_set=self.ids), -1).to_numpy()

    @property
    def trend(self) -> FloatArray:
        """How much more of recent shoppers meet each product than of all: 1 is as ever, 2 twice as many.

        Its share of the recent pairs of shopper and product, divided by its share of all.
        """
        share = self.recent_shoppers.sum() / max(1, self.shoppers.sum())
        return (self.recent_shoppers + _USUAL_SHOPPERS) / (self.shoppers * share + _USUAL_SHOPPERS)


@dataclass(frozen=True)
class Ageing:
    """What an interaction says now: half as much as `half_life_days` ago. 0 is no ageing.

    `now` is in microseconds since 1970, that of the newest interaction that was trained on.
    """

    half_life_days: float = 0
    now: int = 0

    @classmethod
    def until_last(cls, engine: Engine, interactions: DataFrame, half_life_days: float) -> Self:
        """Count ages from the last of some INTERACTIONS rows."""
        if not half_life_days:
            return cls()
        functions, _ = functions_of(interactions)
        last = functions.max(functions.unix_micros(functions.col("last_time"))).cast("long")
        return cls(
            half_life_days, engine.to_arrow(interactions.agg(last.alias("now")))["now"][0].as_py() or 0
        )

    def of(self, interactions: DataFrame) -> DataFrame:
        """Return INTERACTIONS rows with the strength that they have now, at least `LEAST_STRENGTH`.

        An interaction is as old as its last event. `last_time` is needed only where something ages.
        """
        if not self.half_life_days:
            return interactions
        functions, _ = functions_of(interactions)
        column = functions.col
        age = functions.greatest(
            functions.lit(self.now) - functions.unix_micros(column("last_time")), functions.lit(0)
        )
        left = functions.pow(functions.lit(0.5), age.cast("double") / float(DAY * self.half_life_days))
        strength = functions.round(column("strength") * left, 3)
        aged = functions.greatest(strength, functions.lit(LEAST_STRENGTH)).cast("double").alias("strength")
        others = [name for name in interactions.columns if name != "strength"]
        return interactions.select(*others, aged)


NO_AGEING = Ageing()


class Model(Protocol):
    """A trained algorithm."""

    @property
    def algorithm(self) -> str:
        """Its name in tables."""

    @property
    def products(self) -> Products:
        """The products that it can recommend."""

    @property
    def ageing(self) -> Ageing:
        """How what a shopper met is to be aged before it is scored by."""

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Score all products for a block of shoppers.

        Args:
            strengths: [shoppers, products], the strength of what each has met.

        Returns:
            [shoppers, products], a fresh array of single precision; the higher the better.
        """

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Return how much each product of shoppers' own adds to the scores of some picked products.

        Args:
            own: [shoppers, own], products that each has met; of each shopper as many.
            strengths: [shoppers, own], of these.
            picked: [shoppers, picked], products.

        Returns:
            [shoppers, picked, own]; nothing above 0 where the pick has nothing to do with what the shopper met.
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
        # A shopper of whom nothing counts has no list.
        lengths = pc.fill_null(pc.list_value_length(met), 0).to_numpy()
        shopper = np.repeat(np.arange(rows.num_rows), lengths)
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


class EqualHistories(NamedTuple):
    """Shoppers of a block who have met equally many products, so that one operation does for all of them."""

    shoppers: IntArray
    """[shoppers], rows of the block."""
    entries: IntArray
    """[shoppers, own], positions in the matrix' `indices` and `data`."""

    @classmethod
    def groups(cls, strengths: csr_matrix, values_per_shopper: int) -> Iterator[Self]:
        """Put the shoppers of a block who have met anything into groups of bounded size.

        Args:
            strengths: [shoppers, products].
            values_per_shopper: how many numbers will be computed for each product that a shopper has met.
        """
        lengths = np.diff(strengths.indptr)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        for shoppers in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            if not len(shoppers):
                continue
            own = int(lengths[shoppers[0]])
            size = max(1, _GROUP_VALUES // (own * max(values_per_shopper, 1)))
            for start in range(0, len(shoppers), size):
                some = shoppers[start : start + size]
                yield cls(some, strengths.indptr[some][:, None] + np.arange(own))


class Picks(NamedTuple):
    """Ranked products of a block of shoppers, best first; where a shopper has fewer than n, -1 and no finite score."""

    products: IntArray
    """[shoppers, n]"""
    scores: FloatArray
    """[shoppers, n]"""


def best(model: Model, block: Histories, n: int, *, is_met_left_out: bool = True) -> Picks:
    """Rank all products for each shopper of a block, and take the n best."""
    scores = model.scores(block.strengths)
    if is_met_left_out:
        shoppers = np.repeat(np.arange(scores.shape[0]), np.diff(block.strengths.indptr))
        scores[shoppers, block.strengths.indices] = -np.inf
    return top_n_of_rows(scores, n)


def top_n_of_rows(scores: FloatArray, n: int) -> Picks:
    """Take the n highest finite scores of each row, highest first; equal scores in order of index.

    The n-th highest of the strides' maxima is at most the n-th highest score, so that what is below it need not be
    looked at again: a few products remain of thousands, in a tenth of the time that a partition of all takes.
    """
    rows, size = scores.shape
    if not rows or not size:
        return Picks(np.full((rows, n), -1), np.full((rows, n), -np.inf))
    threshold = np.full(rows, -np.inf, scores.dtype)
    if n < size:
        width = max(1, min(_PRODUCTS_PER_STRIDE, size // (2 * n)))
        whole = size - size % width
        maxima = scores[:, :whole].reshape(rows, width, -1).max(axis=1)
        maxima = np.hstack([maxima, scores[:, whole:]])
        threshold = np.partition(maxima, -n, axis=1)[:, -n]
    row, column = np.divmod(np.flatnonzero(scores > threshold[:, None]), size)
    missing = n - np.bincount(row, minlength=rows)
    ties_of = [
        (at, np.flatnonzero(scores[at] == threshold[at])[: missing[at]])
        for at in np.flatnonzero((missing > 0) & np.isfinite(threshold))
    ]
    if ties_of:
        row = np.concatenate([row, *(np.full(len(ties), at) for at, ties in ties_of)])
        column = np.concatenate([column, *(ties for _, ties in ties_of)])
    values = scores[row, column]
    order = np.lexsort((column, -values, row))
    row, column, values = row[order], column[order], values[order]
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < n
    products, best_scores = np.full((rows, n), -1), np.full((rows, n), -np.inf)
    products[row[kept], place[kept]] = column[kept]
    best_scores[row[kept], place[kept]] = values[kept]
    return Picks(products, best_scores)


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
