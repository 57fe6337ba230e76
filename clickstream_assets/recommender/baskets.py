"""Products that are bought together: those that the same orders have.

A pair's score, seen from a product, is the orders that have both over the orders that have the product and the square
root of those that have the other: the conditional probability of Deshpande and Karypis, "Item-Based Top-N
Recommendation Algorithms", ACM TOIS 22(1), 2004, section 4.2.2, with their exponent at one half, so that what is in
most orders anyway does not come first everywhere. A pair counts where two orders or more have it, and more than chance
would have (lift above 1: Brin, Motwani, Ullman and Tsur, "Dynamic Itemset Counting and Implication Rules for Market
Basket Data", SIGMOD 1997).
"""

import numpy as np
import pyarrow as pa

from clickstream_assets.analytics.measures import order_key
from clickstream_assets.catalogue import RELATED_PRODUCTS
from clickstream_assets.engine import DataFrame, Engine, functions_of

LEAST_ORDERS = 2
"""Orders that have both products of a pair: once is chance."""
MOST_PRODUCTS = 50
"""Products of an order that counts: one with more is a retailer's, and pairs grow with the square of them."""


def bought_together(engine: Engine, events: DataFrame, n: int) -> pa.Table:
    """List up to n products that are bought with each product, closest first; equal scores by product id.

    Args:
        engine: where the events are.
        events: SHOPPER_EVENTS rows; purchases are read.
        n: products for each.

    Returns:
        RELATED_PRODUCTS rows of the relation `bought_together`.
    """
    F, window = functions_of(events)
    column = F.col
    lines = (
        events.where((column("event_type") == "purchase") & column("product_id").isNotNull())
        .select("user_id", order_key(F).alias("order_key"), "product_id")
        .distinct()
    )
    sizes = lines.groupBy("user_id", "order_key").agg(F.count(F.lit(1)).cast("long").alias("size"))
    few = sizes.where(column("size") <= MOST_PRODUCTS)
    lines = engine.persist(
        lines.join(few, ["user_id", "order_key"]).select("user_id", "order_key", "product_id", "size")
    )
    try:
        orders = few.count()
        counts = lines.groupBy("product_id").agg(F.count(F.lit(1)).cast("long").alias("orders"))
        several = lines.where(column("size") > 1)
        others = several.select("user_id", "order_key", column("product_id").alias("related_id"))
        pairs = (
            several.select("user_id", "order_key", "product_id")
            .join(others, ["user_id", "order_key"])
            .where(column("product_id") != column("related_id"))
            .groupBy("product_id", "related_id")
            .agg(F.count(F.lit(1)).cast("long").alias("together"))
            .where(column("together") >= LEAST_ORDERS)
        )
        of_others = counts.select(
            column("product_id").alias("related_id"), column("orders").alias("others_orders")
        )
        score = column("together") / (column("orders") * F.sqrt(column("others_orders").cast("double")))
        scored = (
            pairs.join(counts, "product_id")
            .join(of_others, "related_id")
            .where(
                column("together").cast("double") * float(orders)
                > column("orders").cast("double") * column("others_orders")
            )
            .withColumn("score", F.round(score, 6).cast("double"))
        )
        place = F.row_number().over(
            window.partitionBy("product_id").orderBy(column("score").desc(), column("related_id"))
        )
        listed = scored.withColumn("place", place.cast("long")).where(column("place") <= n)
        found = engine.to_arrow(
            listed.select("product_id", "related_id", "score", "orders", "together", "place")
        )
    finally:
        engine.release(lines)
    return _by_product(found)


def _by_product(pairs: pa.Table) -> pa.Table:
    pairs = pairs.sort_by([("product_id", "ascending"), ("place", "ascending")]).combine_chunks()
    starts = np.flatnonzero(pairs["place"].to_numpy() == 1)
    offsets = pa.array(np.concatenate((starts, [len(pairs)])).astype(np.int32))
    lists = {
        name: pa.ListArray.from_arrays(offsets, pa.array(pairs[column].to_numpy(zero_copy_only=False), type))
        for name, column, type in (
            ("related_ids", "related_id", pa.string()),
            ("scores", "score", pa.float64()),
            ("together", "together", pa.int64()),
        )
    }
    at = pa.array(starts)
    rows = {
        "relation": pa.repeat("bought_together", len(starts)),
        "product_id": pairs["product_id"].take(at),
        "orders": pairs["orders"].take(at),
        **lists,
    }
    return pa.table(rows).select(RELATED_PRODUCTS.column_names).cast(RELATED_PRODUCTS.arrow)
