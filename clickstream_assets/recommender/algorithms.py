"""The algorithms that compete to be published, by the name they have in tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender import als, ease, neighbours, repurchases
from clickstream_assets.recommender.als import AlsModel
from clickstream_assets.recommender.ease import EaseModel
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.mix import Mix
from clickstream_assets.recommender.neighbours import ItemKnnModel
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.popularity import CategoryModel, PopularityModel, rank_products
from clickstream_assets.recommender.ranking import Ageing, FloatArray, Model, Products, strength_matrix
from clickstream_assets.recommender.repurchases import BuyAgainModel

BLEND = "blend"
TRENDING = "trending"
BUY_AGAIN = BuyAgainModel.algorithm


@dataclass(frozen=True)
class TrainingSet:
    """What algorithms train on; what several of them need is computed once, when the first does.

    Attributes:
        engine: Where the interactions are.
        unaged: INTERACTIONS rows.
        interactions: The same, with the strength that they have at the end of them.
        products: The products among them.
        parameters: Those of all algorithms.
        ageing: How the strengths were aged.
        item_factors: ITEM_FACTORS rows, where ALS has been trained on these interactions; None trains it.
    """

    engine: Engine
    unaged: DataFrame
    interactions: DataFrame
    products: Products
    parameters: Parameters
    ageing: Ageing
    item_factors: pa.Table | None = None

    @classmethod
    def of(
        cls,
        engine: Engine,
        interactions: DataFrame,
        parameters: Parameters,
        products: Products | None = None,
        item_factors: pa.Table | None = None,
    ) -> Self:
        """Age INTERACTIONS rows; `products` are those of the interactions, where they are at hand."""
        ageing = Ageing.until_last(engine, interactions, parameters.half_life_days)
        if products is None:
            products = products_of(engine, interactions, parameters.trend_days)
        return cls(engine, interactions, ageing.of(interactions), products, parameters, ageing, item_factors)

    @cached_property
    def strengths(self) -> csr_matrix:
        """[users, products] in this process, 12 bytes an interaction."""
        return strength_matrix(self.engine, self.interactions, self.products)[1]

    @cached_property
    def als(self) -> AlsModel:
        """Matrix factorisation."""
        factors = self.item_factors
        if factors is None:
            factors = als.train(self.engine, self.interactions, self.products, self.parameters).item_factors
        functions, _ = functions_of(self.interactions)
        mean = self.engine.to_arrow(self.interactions.agg(functions.avg("strength").alias("mean")))
        return AlsModel.of(self.products, factors, self.parameters, mean["mean"][0].as_py() or 1.0)

    @cached_property
    def ease(self) -> EaseModel:
        """Linear weights."""
        return ease.train(self.strengths, self.products, self.parameters)

    @cached_property
    def item_knn(self) -> ItemKnnModel:
        """Nearest neighbours."""
        return neighbours.train(self.strengths, self.products)

    @cached_property
    def buy_again(self) -> BuyAgainModel:
        """Own past purchases."""
        return repurchases.train(self.engine, self.unaged, self.products)

    @property
    def category(self) -> tuple[float, Model]:
        """What is popular in the shopper's categories, and its share; 0 where no product has any."""
        known = bool((self.products.categories >= 0).any())
        return self.parameters.category_weight if known else 0.0, CategoryModel(self.products)

    @property
    def trend(self) -> FloatArray:
        """What the trend of each product multiplies its scores by."""
        return self.products.trend**self.parameters.trend_exponent


Fit: TypeAlias = Callable[[TrainingSet], Model]


def _fit_blend(data: TrainingSet) -> Model:
    share = data.parameters.ease_share
    parts: list[tuple[float, Model]] = [data.category]
    if share < 1:
        parts.append((1 - share, data.als))
    if share > 0:
        parts.append((share, data.ease))
    return Mix.of(BLEND, parts, data.trend, data.strengths)


def _fit_item_knn(data: TrainingSet) -> Model:
    if not data.category[0]:
        return data.item_knn
    parts = [(1.0, data.item_knn), data.category]
    return Mix.of(ItemKnnModel.algorithm, parts, np.ones(len(data.products)), data.strengths)


def _fit_trending(data: TrainingSet) -> Model:
    return Mix(TRENDING, (PopularityModel(data.products),), (1.0,), data.products.trend)


ALGORITHMS: dict[str, Fit] = {
    BLEND: _fit_blend,
    AlsModel.algorithm: lambda data: data.als,
    EaseModel.algorithm: lambda data: data.ease,
    ItemKnnModel.algorithm: _fit_item_knn,
    CategoryModel.algorithm: lambda data: CategoryModel(data.products),
    BUY_AGAIN: lambda data: data.buy_again,
    TRENDING: _fit_trending,
    PopularityModel.algorithm: lambda data: PopularityModel(data.products),
}


def products_of(
    engine: Engine, interactions: DataFrame, trend_days: int, categories: DataFrame | None = None
) -> Products:
    """Return the products among INTERACTIONS rows.

    `categories` are `product_id` and `product_category` of those that have one.
    """
    ranked = rank_products(interactions, trend_days)
    if categories is not None:
        columns = [*ranked.columns, "product_category"]
        ranked = ranked.join(categories, "product_id", "left").select(*columns)
    return Products.of(engine.to_arrow(ranked))


def fit(algorithm: str, data: TrainingSet) -> Model:
    """Train one of `ALGORITHMS`, to recommend any product of the training set.

    Raises:
        NotEnoughInteractions: there are none to train a personal model on.
    """
    if not len(data.products) and algorithm not in (PopularityModel.algorithm, TRENDING):
        raise NotEnoughInteractions(
            f"No shopper has met any product: there is nothing to train {algorithm} on."
        )
    model = ALGORITHMS[algorithm](data)
    if algorithm == BUY_AGAIN:
        return model
    return replace(model, ageing=data.ageing)  # type: ignore[type-var]
