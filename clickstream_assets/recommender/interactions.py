"""Interactions of shoppers with products, their strength, and the two ways to hide a part of it from training.

Shoppers who refused consent are left out here, once, for every model.
"""

import numpy as np

from clickstream_assets.catalogue import INTERACTIONS
from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.errors import ClickstreamError

VIEW_WEIGHT = 1
ADD_TO_CART_WEIGHT = 4
PURCHASE_WEIGHT = 10
_COUNTED = {
    "views": ("view", "click"),
    "add_to_carts": ("add_to_cart",),
    "purchases": ("purchase",),
}


class NotEnoughInteractions(ClickstreamError):
    """There is nothing to train or to judge a model on; the message says what is missing."""


def product_events(events: DataFrame) -> DataFrame:
    """Keep the events that say something of taste: views, clicks, additions to the cart and purchases.

    Left out are all events of shoppers who do not agree to being profiled. The latest event of a shopper that states a
    `consent`, whatever its type, decides for all of theirs; who never stated any is not left out.
    """
    functions, _ = functions_of(events)
    column = functions.col
    counted = events.where(
        column("event_type").isin(*(name for names in _COUNTED.values() for name in names))
        & column("product_id").isNotNull()
    )
    return counted.join(_refusers(events), "user_id", "left_anti")


def _refusers(events: DataFrame) -> DataFrame:
    """Ids of the shoppers whose latest stated consent is a no; one of the same moment as a yes counts."""
    functions, _ = functions_of(events)
    column = functions.col
    stated = events.where(column("consent").isNotNull()).groupBy("user_id")
    latest = stated.agg(
        functions.max(functions.when(column("consent"), column("event_time"))).alias("agreed"),
        functions.max(functions.when(~column("consent"), column("event_time"))).alias("refused"),
    )
    return latest.where(
        column("refused").isNotNull() & (column("agreed").isNull() | (column("refused") >= column("agreed")))
    ).select("user_id")


def interactions(events: DataFrame) -> DataFrame:
    """Sum up each shopper's events with each product; only `product_events` count.

    Args:
        events: SHOPPER_EVENTS rows, all that state a consent among them.

    Returns:
        INTERACTIONS, one row per shopper and product.
    """
    return interactions_of(product_events(events))


def interactions_of(counted: DataFrame) -> DataFrame:
    """Sum up each shopper's product events with each product.

    A kind of event met n times adds weight * log2(1 + n), so the tenth view says less than the first (the log
    scaling of Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
    equation 6). Strength is kept to three decimals: both engines' logarithms agree that far.

    Args:
        counted: rows of `product_events`, or a part of them such as the past of a split: who is profiled was
            decided by all events, and is not decided anew by a part's.

    Returns:
        INTERACTIONS, one row per shopper and product.
    """
    functions, _ = functions_of(counted)
    column = functions.col
    counts = [
        functions.sum(functions.when(column("event_type").isin(*types), 1).otherwise(0))
        .cast("long")
        .alias(name)
        for name, types in _COUNTED.items()
    ]
    met = counted.groupBy("user_id", "product_id").agg(
        *counts,
        functions.min("event_time").alias("first_time"),
        functions.max("event_time").alias("last_time"),
    )
    strength = (
        VIEW_WEIGHT * functions.log2(column("views") + 1)
        + ADD_TO_CART_WEIGHT * functions.log2(column("add_to_carts") + 1)
        + PURCHASE_WEIGHT * functions.log2(column("purchases") + 1)
    )
    return met.withColumn("strength", functions.round(strength, 3).cast("double")).select(
        *INTERACTIONS.column_names
    )


def split_by_time(engine: Engine, counted: DataFrame, test_fraction: float) -> tuple[DataFrame, DataFrame]:
    """Cut the product events at one moment for all shoppers: the past to train on, the future to judge by.

    The moment is the time of the event at position floor(n * (1 - test_fraction)) in order of time; events of
    that very moment are future. So no model sees anything that happened after what it is asked to foretell
    (Meng et al., "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys
    2020).

    Args:
        engine: computes.
        counted: rows of `product_events`; they are read several times.
        test_fraction: share of the events that are future.

    Raises:
        NotEnoughInteractions: there is no event, or all happened at one moment.
    """
    functions, _ = functions_of(counted)
    time = functions.unix_micros(functions.col("event_time"))
    boundary = _time_at(engine, counted.select(time.cast("long").alias("time")), 1 - test_fraction)
    return counted.where(time < boundary), counted.where(time >= boundary)


def _time_at(engine: Engine, times: DataFrame, fraction: float) -> int:
    """Return the exact quantile of a long column, in microseconds, without sorting it in one process.

    Counts per minute come first, then counts per moment within the one minute that holds the quantile: two
    small results, and no approximate percentile, which would differ between engines.
    """
    functions, _ = functions_of(times)
    minute = functions.floor(functions.col("time") / MINUTE).cast("long")
    minutes, minute_counts = _histogram(engine, times.select(minute.alias("value")))
    total = int(minute_counts.sum())
    if total == 0:
        raise NotEnoughInteractions("No view, click, addition to the cart or purchase to train on.")
    position = int(total * fraction)
    last = np.cumsum(minute_counts)
    at = int(np.searchsorted(last, position, side="right"))
    before = int(last[at] - minute_counts[at])
    moments, moment_counts = _histogram(
        engine, times.where(minute == int(minutes[at])).select(functions.col("time").alias("value"))
    )
    boundary = int(moments[np.searchsorted(np.cumsum(moment_counts), position - before, side="right")])
    if before == 0 and boundary == int(moments[0]):
        raise NotEnoughInteractions(
            f"None of the {total} product events is earlier than the test share. "
            "Bring events of a longer time, or take a smaller test fraction."
        )
    return boundary


def _histogram(engine: Engine, values: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    functions, _ = functions_of(values)
    counts = engine.to_arrow(
        values.groupBy("value").agg(functions.count(functions.lit(1)).cast("long").alias("n"))
    )
    by_value = counts.sort_by("value")
    return by_value["value"].to_numpy(), by_value["n"].to_numpy()


def split_at_random(interactions: DataFrame, test_fraction: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Hide the same share of each product's interactions, whatever their time.

    Kept for comparison with published figures; it lets a model learn from the future, so it does not decide
    what is published. Which rows are hidden depends on the ids and the seed alone: a hash orders them, and
    the first round(count * test_fraction) of each group are the test rows.
    """
    functions, window = functions_of(interactions)
    key = functions.sha2(functions.concat_ws("|", functions.lit(str(seed)), "user_id", "product_id"), 256)
    group = window.partitionBy("product_id")
    drawn = (
        interactions.withColumn("draw", key)
        .withColumn(
            "position",
            functions.row_number().over(group.orderBy("draw", "user_id", "product_id")).cast("long"),
        )
        .withColumn("size", functions.count(functions.lit(1)).over(group).cast("long"))
        .withColumn("hidden", functions.floor(functions.col("size") * test_fraction + 0.5).cast("long"))
    )
    is_test = functions.col("position") <= functions.col("hidden")
    train, test = (drawn.where(part).select(*INTERACTIONS.column_names) for part in (~is_test, is_test))
    return train, test
