"""The algorithms that compete to be published, by the name they have in tables."""

from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa

from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.recommender import als, neighbours
from clickstream_assets.recommender.als import AlsModel, Parameters
from clickstream_assets.recommender.neighbours import ItemKnnModel
from clickstream_assets.recommender.popularity import PopularityModel, rank_products
from clickstream_assets.recommender.ranking import Model, Products

Fit: TypeAlias = Callable[[Engine, DataFrame, Products, Parameters], Model]


def _fit_als(engine: Engine, interactions: DataFrame, products: Products, parameters: Parameters) -> Model:
    factors = als.train(engine, interactions, products, parameters)
    return AlsModel.of(products, factors.item_factors, parameters)


def _fit_item_knn(engine: Engine, interactions: DataFrame, products: Products, _: Parameters) -> Model:
    return neighbours.train(engine, interactions, products)


def _fit_popularity(_: Engine, __: DataFrame, products: Products, ___: Parameters) -> Model:
    return PopularityModel(products)


ALGORITHMS: dict[str, Fit] = {
    AlsModel.algorithm: _fit_als,
    ItemKnnModel.algorithm: _fit_item_knn,
    PopularityModel.algorithm: _fit_popularity,
}


def products_of(engine: Engine, interactions: DataFrame) -> Products:
    """Return the products among INTERACTIONS rows."""
    return Products.of(engine.to_arrow(rank_products(interactions)))


def fit(
    algorithm: str,
    engine: Engine,
    interactions: DataFrame,
    parameters: Parameters,
    products: Products | None = None,
) -> Model:
    """Train one of `ALGORITHMS` on INTERACTIONS rows, to recommend any product among them.

    `products` are those of the interactions, for who trains several algorithms on the same.

    Raises:
        NotEnoughInteractions: there are none to train a personal model on.
    """
    if products is None:
        products = products_of(engine, interactions)
    return ALGORITHMS[algorithm](engine, interactions, products, parameters)


def model_to_publish(
    algorithm: str,
    engine: Engine,
    interactions: DataFrame,
    products: Products,
    item_factors: pa.Table,
    parameters: Parameters,
) -> Model:
    """Make the model to publish from what was trained and stored; only item-kNN learns anew, in seconds.

    Args:
        algorithm: one of `ALGORITHMS`.
        engine: where the interactions are.
        interactions: INTERACTIONS rows that the products and factors come from.
        products: from POPULAR_PRODUCTS.
        item_factors: ITEM_FACTORS rows.
        parameters: those of the training.
    """
    if algorithm == AlsModel.algorithm:
        return AlsModel.of(products, item_factors, parameters)
    return ALGORITHMS[algorithm](engine, interactions, products, parameters)
