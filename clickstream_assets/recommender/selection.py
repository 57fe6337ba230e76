"""The published lists: for each shopper the best products that they have not met, and why, in words.

And what they have met, for whoever fills a list up.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from clickstream_assets.catalogue import PRODUCT_RECOMMENDATIONS
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender.popularity import PopularityModel
from clickstream_assets.recommender.ranking import (
    Deed,
    FloatArray,
    Histories,
    IntArray,
    Model,
    Products,
    best_unmet,
    histories,
)

_REASONS = {
    Deed.VIEWED: "Because you viewed {}",
    Deed.ADDED_TO_CART: "Because you added {} to your cart",
    Deed.BOUGHT: "Because you bought {}",
}


def recommend(engine: Engine, model: Model, interactions: DataFrame, n: int, model_version: str) -> DataFrame:
    """Rank all products for every shopper with an interaction, leaving out all that they have met.

    What was met, and not only what was bought, is left out: a list is for finding something new. Who has met
    nearly everything gets fewer than n. A product that nothing of the shopper's own speaks for (nobody like
    them met it, or the model knows none of their products) fills the end of the list by popularity, and says so
    in its own row: algorithm `popularity`.

    The model is shipped to where the shoppers are: 4 bytes a factor and product for ALS (26 MB for 100,000
    products of 64 factors), 1.2 kB a product for item-kNN.

    Args:
        engine: where the interactions are.
        model: a trained one.
        interactions: INTERACTIONS rows, all of each shopper's; they may be newer than the model.
        n: rows per shopper.
        model_version: what the rows say they came from.

    Returns:
        PRODUCT_RECOMMENDATIONS. `confidence_score` is that of the row's own algorithm: an estimated preference
        (als), a sum of cosines times strengths (item_knn), or the product's popularity score (popularity).
    """
    rank = partial(_recommend_batches, model=model, n=n, model_version=model_version)
    return engine.map_arrow(histories(interactions), rank, PRODUCT_RECOMMENDATIONS.arrow)


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


def _recommend_batches(
    batches: Iterator[pa.RecordBatch], model: Model, n: int, model_version: str
) -> Iterator[pa.RecordBatch]:
    for block in Histories.blocks(batches, model.products):
        lists = [
            _list_columns(model, block, shopper, picked, scores)
            for shopper, (picked, scores) in enumerate(best_unmet(model, block, n))
        ]
        columns = [[value for values in column for value in values] for column in zip(*lists, strict=True)]
        versions = [model_version] * len(columns[0])
        yield pa.record_batch([*columns, versions], schema=PRODUCT_RECOMMENDATIONS.arrow)


def _list_columns(
    model: Model, block: Histories, shopper: int, picked: IntArray, scores: FloatArray
) -> tuple[list, ...]:
    """Make one shopper's rows: the values of each column but the last, `model_version`."""
    products = model.products
    source = _sources(model, block, shopper, picked, scores)
    scores = np.where(source >= 0, scores, products.scores[picked])
    own = block.own(shopper)
    own_ids = products.ids.take(pa.array(block.strengths.indices[own])).to_pylist()
    deeds = block.deeds[own]
    explained = [
        (model.algorithm, _REASONS[Deed(deeds[met])].format(own_ids[met]), own_ids[met])
        if met >= 0
        else (PopularityModel.algorithm, _popular(products, product), None)
        for product, met in zip(picked, source, strict=True)
    ]
    return (
        [block.rows.column("user_id")[shopper].as_py()] * len(picked),
        products.ids.take(pa.array(picked)).to_pylist(),
        list(range(1, len(picked) + 1)),
        scores.tolist(),
        [algorithm for algorithm, _, _ in explained],
        [reason for _, reason, _ in explained],
        [product for _, _, product in explained],
    )


def _sources(model: Model, block: Histories, shopper: int, picked: IntArray, scores: FloatArray) -> IntArray:
    """Find which of the shopper's own products speaks most for each pick; -1 where all of them together do not."""
    own = block.own(shopper)
    if own.start == own.stop:
        return np.full(len(picked), -1)
    contributions = model.contributions(block.strengths.indices[own], block.strengths.data[own], picked)
    most = contributions.argmax(axis=1)
    speaks = (contributions[np.arange(len(picked)), most] > 0) & (scores > 0)
    return np.where(speaks, most, -1)


def _popular(products: Products, product: int) -> str:
    shoppers = products.shoppers[product]
    return f"Popular with {shoppers:,} shopper{'' if shoppers == 1 else 's'}"
