"""Interactions of shoppers with products by day, their sums and strength, and two ways to hide a part from training."""

from datetime import date
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from clickstream_assets.catalogue import INTERACTION_DAYS, INTERACTIONS
from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.recommender.parameters import USUAL_WEIGHTS, EventWeights

_COUNTED = {
    "views": ("view", "click"),
    "add_to_carts": ("add_to_cart",),
    "purchases": ("purchase",),
}


class NotEnoughInteractions(ClickstreamError):
    """There is nothing to train or to judge a model on; the message says what is missing."""


def interaction_days(events: DataFrame) -> DataFrame:
    """Sum up each shopper's events with each product, by day: views, clicks, additions to the cart and purchases.

    Args:
        events: SHOPPER_EVENTS rows of whole days.

    Returns:
        INTERACTION_DAYS, one row per day, shopper and product. Whether the shopper may be profiled is decided when days
        are added up.
    """
    functions, _ = functions_of(events)
    column = functions.col
    counts = [
        functions.sum(functions.when(column("event_type").isin(*types), 1).otherwise(0))
        .cast("long")
        .alias(name)
        for name, types in _COUNTED.items()
    ]
    counted = product_events(events)
    return counted.groupBy("event_date", "user_id", "product_id").agg(
        *counts,
        functions.min("event_time").alias("first_time"),
        functions.max("event_time").alias("last_time"),
    )


def product_events(events: DataFrame) -> DataFrame:
    """Keep the events that say something of taste: views, clicks, additions to the cart and purchases."""
    functions, _ = functions_of(events)
    column = functions.col
    return events.where(
        column("event_type").isin(*(name for names in _COUNTED.values() for name in names))
        & column("product_id").isNotNull()
    )


def interactions(days: DataFrame, weights: EventWeights = USUAL_WEIGHTS) -> DataFrame:
    """Add up each shopper's days with each product.

    A kind of event met n times adds weight * log2(1 + n), so the tenth view says less than the first (the log
    scaling of Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
    equation 6). Strength is kept to three decimals: both engines' logarithms agree that far.

    Args:
        days: INTERACTION_DAYS rows, of shoppers who may be profiled.
        weights: what an event of each type is worth.

    Returns:
        INTERACTIONS, one row per shopper and product.
    """
    functions, _ = functions_of(days)
    column = functions.col
    is_bought = column("purchases") > 0
    met = days.groupBy("user_id", "product_id").agg(
        *(functions.sum(name).cast("long").alias(name) for name in _COUNTED),
        functions.sum(functions.when(is_bought, 1).otherwise(0)).cast("long").alias("purchase_days"),
        functions.min(functions.when(is_bought, column("first_time"))).alias("first_purchase"),
        functions.max(functions.when(is_bought, column("last_time"))).alias("last_purchase"),
        functions.min("first_time").alias("first_time"),
        functions.max("last_time").alias("last_time"),
    )
    strength = (
        weights.view * functions.log2(column("views") + 1)
        + weights.add_to_cart * functions.log2(column("add_to_carts") + 1)
        + weights.purchase * functions.log2(column("purchases") + 1)
    )
    return met.withColumn("strength", functions.round(strength, 3).cast("double")).select(
        *INTERACTIONS.column_names
    )


def split_by_time(
    engine: Engine, days: DataFrame, events: DataFrame, test_fraction: float
) -> tuple[DataFrame, DataFrame]:
    """Cut the product events at one moment for all shoppers: the past to train on, the future to judge by.

    The moment is the time of the event at position floor(n * (1 - test_fraction)) in order of time; events of
    that very moment are future. So no model sees anything that happened after what it is asked to foretell
    (Meng et al., "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys
    2020). The daily sums say on which day that is, and only that day's events are read.

    Args:
        engine: computes.
        days: INTERACTION_DAYS rows of shoppers who may be profiled; they are read several times.
        events: the SHOPPER_EVENTS rows of the same shoppers and days; those of one day are read.
        test_fraction: share of the events that are future.

    Returns:
        INTERACTION_DAYS rows of the past and of the future; the day that is cut is in both.

    Raises:
        NotEnoughInteractions: there is no event, or all happened at one moment.
    """
    functions, _ = functions_of(days)
    column = functions.col
    by_day = days.groupBy("event_date").agg(
        functions.sum(reduce(add, map(column, _COUNTED))).cast("long").alias("n")
    )
    dates, last = _positions(engine.to_arrow(by_day), "event_date")
    if not len(dates) or last[-1] == 0:
        raise NotEnoughInteractions("No view, click, addition to the cart or purchase to train on.")
    position = int(last[-1] * (1 - test_fraction))
    at = int(np.searchsorted(last, position, side="right"))
    cut, before = dates[at], int(last[at - 1]) if at else 0
    time = functions.unix_micros(column("event_time")).cast("long")
    of_day = product_events(events.where(column("event_date") == functions.lit(cut)))
    boundary = _time_at(engine, of_day.select(time.alias("time")), position - before)
    if not before and boundary.is_first:
        raise NotEnoughInteractions(
            f"None of the {last[-1]} product events is earlier than the test share. "
            "Bring events of a longer time, or take a smaller test fraction."
        )
    is_past, is_future = column("event_date") < functions.lit(cut), column("event_date") > functions.lit(cut)
    names = INTERACTION_DAYS.column_names
    return (
        days.where(is_past)
        .select(*names)
        .unionByName(interaction_days(of_day.where(time < boundary.time)).select(*names)),
        days.where(is_future)
        .select(*names)
        .unionByName(interaction_days(of_day.where(time >= boundary.time)).select(*names)),
    )


def last_day(engine: Engine, days: DataFrame) -> date | None:
    """Return the newest day of INTERACTION_DAYS rows; None of none."""
    functions, _ = functions_of(days)
    return engine.to_arrow(days.agg(functions.max("event_date").alias("last")))["last"][0].as_py()


class _Moment(NamedTuple):
    time: int
    """Microseconds since 1970."""
    is_first: bool
    """True if nothing is earlier."""


def _time_at(engine: Engine, times: DataFrame, position: int) -> _Moment:
    """Return the value at a position of a long column in order, without sorting it in one process.

    Counts per minute come first, then counts per moment within the one minute that holds the position: two
    small results, and no approximate percentile, which would differ between engines.
    """
    functions, _ = functions_of(times)
    minute = functions.floor(functions.col("time") / MINUTE).cast("long")
    minutes, last = _histogram(engine, times.select(minute.alias("value")))
    # The day's events can have been made anew since its sums were, and be a few more or fewer.
    if not minutes:
        return _Moment(0, is_first=True)
    position = min(position, int(last[-1]) - 1)
    at = int(np.searchsorted(last, position, side="right"))
    before = int(last[at - 1]) if at else 0
    moments, last = _histogram(
        engine, times.where(minute == int(minutes[at])).select(functions.col("time").alias("value"))
    )
    found = int(np.searchsorted(last, position - before, side="right"))
    return _Moment(int(moments[found]), is_first=not before and not found)


def _histogram(engine: Engine, values: DataFrame) -> tuple[list[Any], np.ndarray]:
    functions, _ = functions_of(values)
    counted = values.groupBy("value").agg(functions.count(functions.lit(1)).cast("long").alias("n"))
    return _positions(engine.to_arrow(counted), "value")


def _positions(counts: pa.Table, name: str) -> tuple[list[Any], np.ndarray]:
    """Return the values in order, and how many there are of each and of those before it."""
    in_order = counts.sort_by(name)
    return in_order[name].to_pylist(), np.cumsum(in_order["n"].to_numpy())


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
