"""Popularity among all shoppers: the baseline that a personal model has to beat, and the fallback."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue import POPULAR_PRODUCTS
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.recommender.ranking import FloatArray, IntArray, Products


def rank_products(interactions: DataFrame) -> DataFrame:
    """Rank products by the sum of all shoppers' strengths; equal scores rank by product id.

    Returns:
        `rank` from 1, `product_id`, `score`, `users`, `purchases`: one row per product.
    """
    functions, window = functions_of(interactions)
    # Whole thousandths add up exactly in any order; a sum of doubles would rank ties differently on each run.
    thousandths = functions.round(functions.col("strength") * 1000).cast("long")
    totals = interactions.groupBy("product_id").agg(
        functions.sum(thousandths).cast("long").alias("thousandths"),
        functions.count(functions.lit(1)).cast("long").alias("users"),
        functions.sum("purchases").cast("long").alias("purchases"),
    )
    order = window.orderBy(functions.col("thousandths").desc(), functions.col("product_id"))
    return totals.select(
        functions.row_number().over(order).cast("long").alias("rank"),
        "product_id",
        (functions.col("thousandths").cast("double") / 1000).alias("score"),
        "users",
        "purchases",
    )


def popular_products(interactions: DataFrame, product_days: DataFrame) -> DataFrame:
    """Rank products and add each one's latest category.

    Args:
        interactions: INTERACTIONS rows.
        product_days: PRODUCT_PERFORMANCE rows, or any rows with `report_date`, `product_id` and `product_category`.

    Returns:
        POPULAR_PRODUCTS, one row per product of `interactions`.
    """
    functions, _ = functions_of(interactions)
    latest = functions.max(functions.struct("report_date", "product_category"))
    categories = (
        product_days.where(functions.col("product_category").isNotNull())
        .groupBy("product_id")
        .agg(latest.alias("latest"))
        .select("product_id", functions.col("latest.product_category").alias("product_category"))
    )
    return (
        rank_products(interactions)
        .join(categories, "product_id", "left")
        .select(*POPULAR_PRODUCTS.column_names)
    )


@dataclass(frozen=True)
class PopularityModel:
    """Recommends to everybody the most popular of the products that they have not met."""

    products: Products
    algorithm: ClassVar[str] = "popularity"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Give every shopper the same scores: the products' popularity."""
        return np.broadcast_to(self.products.scores, (strengths.shape[0], len(self.products))).copy()

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:  # noqa: ARG002
        """Nothing of a shopper's own contributes to what is popular."""
        return np.zeros((len(picked), len(own)))
