"""Products and categories by day: views, purchases, revenue and rank."""

from __future__ import annotations

from collections.abc import Sequence

from clickstream_assets.analytics.measures import (
    MONEY,
    MONEY_SUM,
    count_of,
    event_counts,
    net,
    percent,
    refunds,
    revenue,
    rows_of,
    units,
)
from clickstream_assets.catalogue import CATEGORY_CONVERSION, PRODUCT_PERFORMANCE
from clickstream_assets.engine import DataFrame, as_view, functions_of

NO_CATEGORY = "unknown"


def product_performance(events: DataFrame) -> DataFrame:
    """Sum up each product's events of a day, and rank the day's products by views.

    Args:
        events: SHOPPER_EVENTS rows of whole days.

    Returns:
        PRODUCT_PERFORMANCE rows, one per day and product that has events.
    """
    F, Window = functions_of(events)
    is_purchase = F.col("event_type") == "purchase"
    sold = F.when(is_purchase, units(F)).otherwise(F.lit(0).cast(MONEY))
    named = F.col("product_category").isNotNull()
    by_product = as_view(
        events.where(F.col("product_id").isNotNull())
        .withColumn("buyer", F.when(is_purchase, F.col("user_id")))
        .groupBy("event_date", "product_id")
        .agg(
            count_of(F, "view").alias("view_count"),
            *event_counts(F, "add_to_carts", "purchases"),
            F.sum(sold).cast(MONEY_SUM).alias("quantity"),
            revenue(F).alias("revenue"),
            refunds(F).alias("refunds"),
            F.countDistinct("user_id").cast("long").alias("users"),
            F.countDistinct("buyer").cast("long").alias("buyers"),
            # Events of the same moment in two categories: the same one is chosen every time.
            F.max(F.when(named, F.struct("event_time", "product_category"))).alias("latest"),
        )
    )
    by_views = Window.partitionBy("event_date").orderBy(F.col("view_count").desc(), F.col("product_id"))
    computed = {
        "report_date": F.col("event_date"),
        "rank": F.row_number().over(by_views).cast("long"),
        "product_category": F.col("latest").getField("product_category"),
        "net_revenue": net(F),
        "conversion_rate": percent(F, F.col("purchases"), F.col("view_count")),
    }
    return rows_of(PRODUCT_PERFORMANCE, by_product, computed)


CATEGORY_SUMS = {
    **dict.fromkeys(("views", "purchases", "add_to_carts"), "long"),
    "revenue": MONEY_SUM,
    "refunds": MONEY_SUM,
    "users": "long",
}
"""Columns of `category_sums` beside the group, and their types."""


def category_conversion(events: DataFrame) -> DataFrame:
    """Count views and purchases per category, as the events name it.

    Args:
        events: SHOPPER_EVENTS rows of whole days.

    Returns:
        CATEGORY_CONVERSION rows, one per day and category; what has none counts as `unknown`.
    """
    return category_rows(category_sums(events))


def category_sums(events: DataFrame, by: Sequence[str] = ()) -> DataFrame:
    """Sum up what `category_conversion` makes its rows of, each of which is a sum over users of their own events.

    Args:
        events: SHOPPER_EVENTS rows of whole days.
        by: columns of the events, those of different values of which are summed up apart.

    Returns:
        `by`, report_date, category, and the columns CATEGORY_SUMS.
    """
    F, _ = functions_of(events)
    return as_view(
        events.where(F.col("event_type").isin("view", "add_to_cart", "purchase", "refund"))
        .withColumn("report_date", F.col("event_date"))
        .withColumn("category", F.coalesce(F.col("product_category"), F.lit(NO_CATEGORY)))
        .withColumn("shopper", F.when(F.col("event_type") != "refund", F.col("user_id")))
        .groupBy(*by, "report_date", "category")
        .agg(
            *event_counts(F, "views", "add_to_carts", "purchases"),
            revenue(F).alias("revenue"),
            refunds(F).alias("refunds"),
            F.countDistinct("shopper").cast("long").alias("users"),
        )
    )


def category_rows(sums: DataFrame) -> DataFrame:
    """Return CATEGORY_CONVERSION rows of those of `category_sums`."""
    F, _ = functions_of(sums)
    computed = {
        "net_revenue": net(F),
        "conversion_rate": percent(F, F.col("purchases"), F.col("views")),
    }
    return rows_of(CATEGORY_CONVERSION, sums, computed)
