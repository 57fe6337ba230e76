"""What a shopper has bought and may buy again: own past purchases, by how often, how lately and what repeats.

A purchase's score is the number of days on which the shopper bought the product, halved with each `HALF_LIFE_INTERVALS`
of the shop's usual time between two purchases of a product by the same shopper, times the share of the product's buyers
who came back for it. Where few bought the product, that share is drawn to that of its category, and this one to that of
the shop: of a beta-binomial distribution the mean, with a prior as heavy as `_USUAL_BUYERS` (Gelman et al., "Bayesian
Data Analysis", 3rd edition, 2013, section 2.4).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue.units import DAY
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender.ranking import LEAST_STRENGTH, Ageing, FloatArray, IntArray, Products

HALF_LIFE_INTERVALS = 4.0
# With so many buyers a product's own share counts half, and half that of its category; a category's likewise.
_USUAL_BUYERS = 10.0


@dataclass(frozen=True)
class Purchases(Ageing):
    """The ageing of purchases: days of purchase, from the last of them; what was not bought is left out."""

    def of(self, interactions: DataFrame) -> DataFrame:
        """Return INTERACTIONS rows with purchases, and what these say now as their strength."""
        functions, _ = functions_of(interactions)
        column = functions.col
        bought = interactions.where(column("purchases") > 0)
        strength = column("purchase_days").cast("double")
        if self.half_life_days:
            age = functions.greatest(
                functions.lit(self.now) - functions.unix_micros(column("last_purchase")), functions.lit(0)
            )
            left = functions.pow(functions.lit(0.5), age.cast("double") / float(DAY * self.half_life_days))
            strength = functions.round(strength * left, 3)
        aged = functions.greatest(strength, functions.lit(LEAST_STRENGTH)).cast("double").alias("strength")
        return bought.select(*(name for name in bought.columns if name != "strength"), aged)


@dataclass(frozen=True)
class BuyAgainModel:
    """Ranks what a shopper has bought; after it comes what is popular.

    `rates` is [products], the share of each one's buyers who bought it on several days, where few did drawn to that of
    its category; `usual_rate` is that of the shop.
    """

    products: Products
    rates: FloatArray
    ageing: Ageing
    usual_rate: float = 0.0
    algorithm: str = "buy_again"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Score what was bought; all else is 0."""
        scores = np.zeros(strengths.shape, np.float32)
        shoppers = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr))
        scores[shoppers, strengths.indices] = strengths.data * self.rates[strengths.indices]
        return scores

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """A product is bought again for itself."""
        return np.where(own[:, None, :] == picked[:, :, None], (strengths * self.rates[own])[:, None, :], 0)


def train(engine: Engine, interactions: DataFrame, products: Products) -> BuyAgainModel:
    """Learn how soon and which products are bought again.

    Args:
        engine: where the interactions are.
        interactions: INTERACTIONS rows, not aged.
        products: the products of these.
    """
    functions, _ = functions_of(interactions)
    column = functions.col
    bought = interactions.where(column("purchases") > 0)
    first, last = (functions.unix_micros(column(name)) for name in ("first_purchase", "last_purchase"))
    by_product = engine.to_arrow(
        bought.groupBy("product_id").agg(
            functions.count(functions.lit(1)).cast("long").alias("buyers"),
            functions.sum(functions.when(column("purchase_days") > 1, 1).otherwise(0))
            .cast("long")
            .alias("repeaters"),
            functions.sum(column("purchase_days") - 1).cast("long").alias("repeats"),
            functions.sum(last - first).cast("double").alias("time_between"),
            functions.max(last).cast("long").alias("last"),
        )
    )
    buyers, repeaters = np.zeros(len(products)), np.zeros(len(products))
    at = products.positions(by_product["product_id"])
    buyers[at], repeaters[at] = by_product["buyers"].to_numpy(), by_product["repeaters"].to_numpy()
    usual = (repeaters.sum() + 1) / (buyers.sum() + 1)
    has_category = products.categories >= 0
    of_category = np.full(len(products), usual)
    if has_category.any():
        category = products.categories[has_category]
        came_back, bought_it = (
            np.bincount(category, weights=counts[has_category]).astype(float)
            for counts in (repeaters, buyers)
        )
        of_category[has_category] = _drawn(came_back, bought_it, usual)[category]
    rates = _drawn(repeaters, buyers, of_category)
    repeats = int(by_product["repeats"].to_numpy().sum())
    interval = float(by_product["time_between"].to_numpy().sum()) / DAY / repeats if repeats else 0.0
    now = int(by_product["last"].to_numpy().max(initial=0))
    # To the hour: the sum of all times between is rounded differently by each order of summing.
    ageing = Purchases(round(HALF_LIFE_INTERVALS * interval * 24) / 24, now)
    return BuyAgainModel(products, rates, ageing, usual)


def _drawn(repeaters: FloatArray, buyers: FloatArray, usual: FloatArray | float) -> FloatArray:
    """Return shares of buyers who came back, drawn to a usual one where there are few."""
    shares: FloatArray = (repeaters + usual * _USUAL_BUYERS) / (buyers + _USUAL_BUYERS)
    return shares
