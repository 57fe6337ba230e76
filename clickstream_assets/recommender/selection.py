"""The published lists: for each shopper the best products that they have not met, and why, in words.

And what they have met, for whoever fills a list up, and bought, for whoever offers it again.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import BOUGHT_PRODUCTS, PRODUCT_RECOMMENDATIONS
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender.popularity import PopularityModel
from clickstream_assets.recommender.ranking import (
    Deed,
    EqualHistories,
    Histories,
    IntArray,
    Model,
    Picks,
    Products,
    best,
    histories,
)

# What stands before and after the product's id.
_REASONS = {
    Deed.VIEWED: ("Because you viewed ", ""),
    Deed.ADDED_TO_CART: ("Because you added ", " to your cart"),
    Deed.BOUGHT: ("Because you bought ", ""),
}


def recommend(engine: Engine, model: Model, interactions: DataFrame, n: int, model_version: str) -> DataFrame:
    """Rank all products for every shopper with an interaction, leaving out all that they have met.

    What was met, and not only what was bought, is left out: a list is for finding something new. Who has met
    nearly everything gets fewer than n. A product that nothing of the shopper's own speaks for (nobody like
    them met it, or the model knows none of their products) fills the end of the list by popularity, and says so
    in its own row: algorithm `popularity`.

    The model is shipped to where the shoppers are: 4 bytes a factor and product for ALS (26 MB for 100,000
    products of 64 factors), 1.2 kB a product for item-kNN, 4 bytes a pair of products for EASE (100 MB for 5,000).

    Args:
        engine: where the interactions are.
        model: a trained one.
        interactions: INTERACTIONS rows, all of each shopper's; they may be newer than the model.
        n: rows per shopper.
        model_version: what the rows say they came from.

    Returns:
        PRODUCT_RECOMMENDATIONS. `confidence_score` is that of the row's own algorithm: an estimated preference
        (als, ease), a sum of cosines times strengths (item_knn), a weighted sum of such (blend), or the product's
        popularity score (popularity).
    """
    rank = partial(_recommend_batches, model=model, n=n, model_version=model_version)
    return engine.map_arrow(histories(model.ageing.of(interactions)), rank, PRODUCT_RECOMMENDATIONS.arrow)


def met_products(interactions: DataFrame) -> DataFrame:
    """Gather the products that each shopper has met.

    Args:
        interactions: INTERACTIONS rows, all of each shopper's.

    Returns:
        MET_PRODUCTS, one row per shopper.
    """
    functions, _ = functions_of(interactions)
    products = functions.sort_array(functions.collect_set("product_id"))
    return interactions.groupBy("user_id").agg(products.alias("product_ids"))


def bought_products(engine: Engine, interactions: DataFrame) -> pa.Table:
    """Gather the products that each shopper has bought.

    Args:
        engine: where the interactions are.
        interactions: INTERACTIONS rows, all of each shopper's.

    Returns:
        BOUGHT_PRODUCTS, one row per shopper with a purchase.
    """
    functions, _ = functions_of(interactions)
    column = functions.col
    rows = engine.to_arrow(
        interactions.where(column("purchase_days") > 0).select(
            "user_id",
            "product_id",
            "purchase_days",
            functions.unix_micros(column("last_purchase")).cast("long").alias("last_time"),
        )
    )
    rows = rows.sort_by([("user_id", "ascending"), ("product_id", "ascending")]).combine_chunks()
    users = rows["user_id"].combine_chunks().dictionary_encode()
    starts = np.flatnonzero(np.diff(users.indices.to_numpy(), prepend=-1))
    offsets = pa.array(np.concatenate((starts, [len(rows)])).astype(np.int32))
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(rows[name].to_pylist(), type))
        for name, type in (
            ("product_id", pa.string()),
            ("purchase_days", pa.int64()),
            ("last_time", pa.int64()),
        )
    ]
    return pa.table([users.dictionary.cast(pa.string()), *lists], schema=BOUGHT_PRODUCTS.arrow)


def _recommend_batches(
    batches: Iterator[pa.RecordBatch], model: Model, n: int, model_version: str
) -> Iterator[pa.RecordBatch]:
    popular = _popular(model.products)
    for block in Histories.blocks(batches, model.products):
        picks = best(model, block, n)
        yield _rows(model, block, picks, _sources(model, block, picks), popular, model_version)


def _rows(
    model: Model, block: Histories, picks: Picks, sources: IntArray, popular: pa.Array, model_version: str
) -> pa.RecordBatch:
    """Make the rows of a block's lists; `popular` are the reasons of each product that nothing else speaks for."""
    products, ids = model.products, model.products.ids
    shopper, place = np.nonzero(picks.products >= 0)
    picked, source = picks.products[shopper, place], sources[shopper, place]
    is_own = source >= 0
    scores = np.where(is_own, picks.scores[shopper, place], products.scores[picked])
    of_own = pa.array(np.where(is_own, block.strengths.indices[source], 0), mask=~is_own)
    own_ids = ids.take(of_own)
    deed = block.deeds[source] if len(block.deeds) else np.zeros(len(source), int)
    before, after = (
        pa.array([_REASONS[done][part] for done in Deed]).take(pa.array(deed)) for part in (0, 1)
    )
    explained = pc.binary_join_element_wise(before, own_ids, after, "")
    algorithms = pa.array([PopularityModel.algorithm, model.algorithm])
    return pa.record_batch(
        [
            block.rows.column("user_id").take(pa.array(shopper)),
            ids.take(pa.array(picked)),
            pa.array(place + 1),
            pa.array(scores.astype(np.float64)),
            algorithms.take(pa.array(is_own.astype(int))),
            pc.coalesce(explained, popular.take(pa.array(picked))),
            own_ids,
            pa.repeat(model_version, len(shopper)),
        ],
        schema=PRODUCT_RECOMMENDATIONS.arrow,
    )


def _sources(model: Model, block: Histories, picks: Picks) -> IntArray:
    """Find which of the shopper's own products speaks most for each pick: where it is in the block's entries.

    Returns:
        [shoppers, n]; -1 where all of them together do not.
    """
    sources = np.full(picks.products.shape, -1)
    for group in EqualHistories.groups(block.strengths, picks.products.shape[1]):
        own, strengths = block.strengths.indices[group.entries], block.strengths.data[group.entries]
        picked, scores = picks.products[group.shoppers], picks.scores[group.shoppers]
        contributions = model.contributions(own, strengths, np.maximum(picked, 0))
        most = contributions.argmax(axis=2)
        speaks = (np.take_along_axis(contributions, most[:, :, None], 2)[:, :, 0] > 0) & (scores > 0)
        entries = np.take_along_axis(group.entries, most, 1)
        sources[group.shoppers] = np.where(speaks & (picked >= 0), entries, -1)
    return sources


def _popular(products: Products) -> pa.Array:
    return pa.array(
        [f"Popular with {n:,} shopper{'' if n == 1 else 's'}" for n in products.shoppers.tolist()],
        pa.string(),
    )
