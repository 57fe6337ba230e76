"""Popularity among all shoppers: the baseline that a personal model has to beat, and the fallback.

And what grows from it: the trend of each product, and what is popular in the categories that a shopper cares for.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue.units import DAY
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.recommender.ranking import NO_AGEING, Ageing, FloatArray, IntArray, Products


def rank_products(interactions: DataFrame, trend_days: int) -> DataFrame:
    """Rank products by the sum of all shoppers' strengths; equal scores rank by product id.

    Args:
        interactions: INTERACTIONS rows.
        trend_days: days up to the newest of them that count as recent.

    Returns:
        `rank` from 1, `product_id`, `score`, `users`, `recent_users`, `purchases`: one row per product.
    """
    functions, window = functions_of(interactions)
    column = functions.col
    time = functions.unix_micros(column("last_time"))
    newest = interactions.agg(functions.max(time).cast("long").alias("newest"))
    is_recent = time >= column("newest") - functions.lit(trend_days * DAY)
    # Whole thousandths add up exactly in any order; a sum of doubles would rank ties differently on each run.
    thousandths = functions.round(column("strength") * 1000).cast("long")
    totals = (
        interactions.crossJoin(newest)
        .groupBy("product_id")
        .agg(
            functions.sum(thousandths).cast("long").alias("thousandths"),
            functions.count(functions.lit(1)).cast("long").alias("users"),
            functions.sum(functions.when(is_recent, 1).otherwise(0)).cast("long").alias("recent_users"),
            functions.sum("purchases").cast("long").alias("purchases"),
        )
    )
    order = window.orderBy(column("thousandths").desc(), column("product_id"))
    return totals.select(
        functions.row_number().over(order).cast("long").alias("rank"),
        "product_id",
        (column("thousandths").cast("double") / 1000).alias("score"),
        "users",
        "recent_users",
        "purchases",
    )


def latest_categories(product_days: DataFrame, until: date | None = None) -> DataFrame:
    """Return each product's latest category.

    Args:
        product_days: PRODUCT_PERFORMANCE rows, or any rows with `report_date`, `product_id` and `product_category`.
        until: the last day to look at; None for all.

    Returns:
        `product_id`, `product_category`: one row per product that has one.
    """
    functions, _ = functions_of(product_days)
    if until is not None:
        product_days = product_days.where(functions.col("report_date") <= functions.lit(until))
    latest = functions.max(functions.struct("report_date", "product_category"))
    return (
        product_days.where(functions.col("product_category").isNotNull())
        .groupBy("product_id")
        .agg(latest.alias("latest"))
        .select("product_id", functions.col("latest.product_category").alias("product_category"))
    )


def popular_products(interactions: DataFrame, categories: DataFrame, trend_days: int) -> DataFrame:
    """Rank products and add each one's category.

    Args:
        interactions, trend_days: as for `rank_products`.
        categories: `product_id` and `product_category`, as `latest_categories` returns them.

    Returns:
        What `rank_products` returns and `product_category`, one row per product of `interactions`.
    """
    return rank_products(interactions, trend_days).join(categories, "product_id", "left")


def with_trends(popular: pa.Table, exponent: float) -> pa.Table:
    """Add each product's `trend`, and its `trending_rank` by score * trend, to rows of `popular_products`.

    They are ranked anew by score * trend ^ exponent; what is equal stays in its order.
    """
    popular = popular.sort_by("rank")
    products = Products.of(popular)
    order = np.argsort(-products.scores * products.trend**exponent, kind="stable")
    trending = np.argsort(-products.scores * products.trend, kind="stable")
    places = np.arange(1, len(products) + 1)
    ranks, trending_ranks = places.copy(), places.copy()
    ranks[order], trending_ranks[trending] = places, places
    found = popular.set_column(popular.schema.get_field_index("rank"), "rank", pa.array(ranks))
    found = found.append_column("trend", pa.array(products.trend))
    return found.append_column("trending_rank", pa.array(trending_ranks)).sort_by("rank")


@dataclass(frozen=True)
class PopularityModel:
    """Recommends to everybody the most popular of the products that they have not met."""

    products: Products
    ageing: Ageing = NO_AGEING
    algorithm: str = "popularity"

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Give every shopper the same scores: the products' popularity."""
        scores = self.products.scores.astype(np.float32)
        return np.broadcast_to(scores, (strengths.shape[0], len(self.products))).copy()

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:  # noqa: ARG002
        """Nothing of a shopper's own contributes to what is popular."""
        return np.zeros((*picked.shape, own.shape[1]))


@dataclass(frozen=True)
class CategoryModel:
    """Recommends what is popular in the categories that a shopper cares for.

    A product's score is the share of the shopper's strengths that its category has, times the product's share of all
    shoppers' in that category: the chance to pick it by drawing first a category and then one of its products.
    """

    products: Products
    ageing: Ageing = NO_AGEING
    algorithm: str = "category"

    @cached_property
    def _membership(self) -> csr_matrix:
        """[products, categories]: 1 where a product is in a category."""
        categories = self.products.categories
        known = np.flatnonzero(categories >= 0)
        shape = (len(categories), int(categories.max(initial=-1)) + 1)
        return csr_matrix((np.ones(len(known)), (known, categories[known])), shape=shape)

    @cached_property
    def _shares(self) -> FloatArray:
        """[products], each one's share of its category; 0 without one."""
        categories, scores = self.products.categories, self.products.scores
        known = np.flatnonzero(categories >= 0)
        shares = np.zeros(len(categories))
        totals = self._membership.T @ scores
        shares[known] = scores[known] / totals[categories[known]]
        return shares

    def scores(self, strengths: csr_matrix) -> FloatArray:
        """Score products by that chance."""
        # Nothing is added up over products without a category, whose part of a shopper's strengths is in none.
        total = np.asarray(strengths.sum(axis=1)).ravel()
        total[total == 0] = 1
        by_category = (strengths @ self._membership).multiply(1 / total[:, None]).tocsr()
        scores = (by_category @ self._membership.T).astype(np.float32).toarray()
        return scores * self._shares.astype(np.float32)

    def contributions(self, own: IntArray, strengths: FloatArray, picked: IntArray) -> FloatArray:
        """Give the terms of the sum over what a shopper has met."""
        categories = self.products.categories
        ours, theirs = categories[own][:, None, :], categories[picked][:, :, None]
        terms = (strengths / strengths.sum(axis=1, keepdims=True))[:, None, :] * self._shares[picked][
            :, :, None
        ]
        return np.where((ours == theirs) & (ours >= 0), terms, 0)
