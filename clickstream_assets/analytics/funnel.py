"""The funnel: how many of a day's viewers put something into a cart and purchased, in this order and in time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from clickstream_assets.analytics.measures import count, flag, percent, rows_of
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.products import NO_CATEGORY
from clickstream_assets.analytics.segments import segment_of
from clickstream_assets.catalogue import FUNNEL, FUNNEL_STEPS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import MICROSECOND
from clickstream_assets.engine import DataFrame, as_view, functions_of

FUNNEL_DAYS_AFTER = 1
"""A day's funnel goes on into this many days after it: the last steps can lie after midnight."""
NO_CUSTOMER = "not_a_customer"


def funnel(
    shoppers: DataFrame,
    customers: DataFrame,
    first: date,
    last: date,
    window: timedelta,
    clock: ShopClock = UTC_CLOCK,
) -> DataFrame:
    """Follow the users who viewed on a day through the steps.

    A user comes to `add_to_cart` if some addition to a cart is at or after one of the day's views and within the
    window of it, and to `purchase` if some purchase is at or after such an addition and within the window of that
    same view. So the later steps may lie after the day's midnight. Overall any products count; in a category, all
    steps have to be in it.

    The groups by `segment` say how those who purchased that day came to it, and how far the others came. The groups by
    `rfm` do not know how the day ends: they are the customers' segments as of the end of the day before.

    Args:
        shoppers: SHOPPER_EVENTS rows, of at least these days and the FUNNEL_DAYS_AFTER.
        customers: CUSTOMER_SEGMENTS rows, of at least the days before these.
        first: first day.
        last: last day.
        window: time from a view to the last step, at most 12 hours.
        clock: says when days begin.

    Returns:
        FUNNEL rows: three per day and group that has viewers.
    """
    return funnel_rows(funnel_groups(shoppers, customers, first, last, window, clock))


def funnel_groups(
    shoppers: DataFrame,
    customers: DataFrame,
    first: date,
    last: date,
    window: timedelta,
    clock: ShopClock = UTC_CLOCK,
    by: Sequence[str] = (),
) -> DataFrame:
    """Count what `funnel` makes its rows of: per day and group that has viewers, how many came to each step.

    A sum over users, each of whom counts by their own events. The arguments are those of `funnel`, and `by`: columns of
    the events, those of different values of which are followed and counted apart.

    Returns:
        `by`, report_date, dimension, value, and a column of users per step, named as in FUNNEL_STEPS.
    """
    latest = last + timedelta(days=FUNNEL_DAYS_AFTER)
    steps = _steps(between(shoppers, "event_date", first, latest), first, last, window, clock, by)
    return _counted(_reached(steps, window, by), customers, by)


def groups_of_funnel(rows: DataFrame) -> DataFrame:
    """Return the rows of `funnel_groups` that FUNNEL rows were made of."""
    F, _ = functions_of(rows)
    of_step = (F.when(F.col("step") == step, F.col("users")) for step in FUNNEL_STEPS)
    return as_view(
        rows.groupBy("report_date", "dimension", "value").agg(
            *(F.max(users).alias(step) for step, users in zip(FUNNEL_STEPS, of_step, strict=True))
        )
    )


def _steps(
    events: DataFrame, first: date, last: date, window: timedelta, clock: ShopClock, by: Sequence[str]
) -> DataFrame:
    """Return the steps of each day, its own and those soon after its midnight; each overall and in its category."""
    F, _ = functions_of(events)
    midnight = clock.begin_column(F, F.col("event_date"), first, last + timedelta(days=FUNNEL_DAYS_AFTER))
    steps = as_view(
        events.where(F.col("event_type").isin(*FUNNEL_STEPS)).select(
            *by,
            "event_date",
            "user_id",
            "event_type",
            F.coalesce(F.col("product_category"), F.lit(NO_CATEGORY)).alias("category"),
            F.unix_micros("event_time").alias("at"),
            midnight.alias("midnight"),
            F.explode(F.array(F.lit(0), F.lit(1))).alias("days_back"),
        )
    )
    # A view in the day's last moment leaves just less than the window.
    is_soon = F.col("at") - F.col("midnight") < window // MICROSECOND
    own = (F.col("days_back") == 0) & (F.col("event_date") <= F.lit(last))
    after = (F.col("days_back") == 1) & (F.col("event_date") > F.lit(first)) & is_soon
    counted = steps.where(own | (after & (F.col("event_type") != "view")))
    dated = as_view(
        counted.select(
            F.when(own, F.col("event_date")).otherwise(F.date_sub("event_date", 1)).alias("report_date"),
            own.alias("is_own"),
            *by,
            "user_id",
            "event_type",
            "category",
            "at",
            F.explode(F.array(F.lit("overall"), F.lit("category"))).alias("dimension"),
        )
    )
    value = F.when(F.col("dimension") == "category", F.col("category")).otherwise(F.lit("all"))
    return as_view(
        dated.select(
            *by, "report_date", "is_own", "dimension", value.alias("value"), "user_id", "event_type", "at"
        )
    )


def _reached(steps: DataFrame, window: timedelta, by: Sequence[str]) -> DataFrame:
    """Return a row per group and user who viewed: `carted` and `purchased`, 1 where the user came to these steps.

    And `bought`, 1 where the user purchased on the day itself, in whatever way.
    """
    F, Window = functions_of(steps)
    key = [*by, "report_date", "dimension", "value", "user_id"]
    columns = [*key, "is_own", "event_type", "at"]
    event_type, at = F.col("event_type"), F.col("at")
    # Without a frame of rows, what happened at the same moment counts as before.
    so_far = Window.partitionBy(*key).orderBy("at")
    # Of all views before a step the latest leaves the most time, so no other need be tried.
    view_at = F.max(F.when(event_type == "view", at)).over(so_far)
    viewed = as_view(steps.select(*columns, view_at.alias("view_at")))
    cart_view_at = F.max(F.when(event_type == "add_to_cart", F.col("view_at"))).over(so_far)
    carted = as_view(viewed.select(*columns, "view_at", cart_view_at.alias("cart_view_at")))
    in_cart = (event_type == "add_to_cart") & (at - F.col("view_at") <= window // MICROSECOND)
    purchased = (event_type == "purchase") & (at - F.col("cart_view_at") <= window // MICROSECOND)
    return as_view(
        carted.groupBy(*key).agg(
            F.max("view_at").alias("viewed_at"),
            F.max(flag(F, in_cart)).alias("carted"),
            F.max(flag(F, purchased)).alias("purchased"),
            F.max(flag(F, (event_type == "purchase") & F.col("is_own"))).alias("bought"),
        )
    ).where(F.col("viewed_at").isNotNull())


def _counted(reached: DataFrame, customers: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return a row per group, those of both kinds of segments too, with a column of users per step."""
    F, _ = functions_of(reached)
    rfm_of = customers.select(
        F.date_add("report_date", 1).alias("rfm_date"),
        F.col("user_id").alias("rfm_user"),
        F.col("rfm_segment"),
    )
    same_customer = (F.col("report_date") == F.col("rfm_date")) & (F.col("user_id") == F.col("rfm_user"))
    joined = reached.join(rfm_of, on=(F.col("dimension") == "overall") & same_customer, how="left")
    # What counts overall counts in the user's segment, and as a customer, once more.
    named = as_view(
        joined.select(
            *by,
            "report_date",
            "dimension",
            "value",
            segment_of(F, F.col("bought") > 0).alias("segment"),
            F.coalesce(F.col("rfm_segment"), F.lit(NO_CUSTOMER)).alias("rfm"),
            "carted",
            "purchased",
            F.explode(F.array(*(F.lit(kind) for kind in ("itself", "segment", "rfm")))).alias("kind"),
        )
    )
    kind = F.col("kind")
    groups = as_view(
        named.where((kind == "itself") | (F.col("dimension") == "overall")).select(
            *by,
            "report_date",
            F.when(kind == "itself", F.col("dimension")).otherwise(kind).alias("dimension"),
            F.when(kind == "itself", F.col("value"))
            .when(kind == "segment", F.col("segment"))
            .otherwise(F.col("rfm"))
            .alias("value"),
            "carted",
            "purchased",
        )
    )
    counts = (count(F), *(F.sum(name).cast("long") for name in ("carted", "purchased")))
    return as_view(
        groups.groupBy(*by, "report_date", "dimension", "value").agg(
            *(users.alias(step) for step, users in zip(FUNNEL_STEPS, counts, strict=True))
        )
    )


def funnel_rows(groups: DataFrame) -> DataFrame:
    """Return FUNNEL rows of those of `funnel_groups`: one per step instead of a column per step."""
    F, _ = functions_of(groups)
    key = ["report_date", "dimension", "value"]
    numbered = as_view(
        groups.select(*key, *FUNNEL_STEPS, F.explode(F.array(*(F.lit(n) for n in (1, 2, 3)))).alias("number"))
    )
    number = F.col("number")

    def by_number(first: Any, second: Any, third: Any) -> Any:
        return F.when(number == 1, first).when(number == 2, second).otherwise(third)

    viewers, carters, purchasers = (F.col(name) for name in FUNNEL_STEPS)
    rows = as_view(
        numbered.select(
            *key,
            by_number(*(F.lit(step) for step in FUNNEL_STEPS)).alias("step"),
            number.cast("int").alias("step_number"),
            by_number(viewers, carters, purchasers).alias("users"),
            F.when(number == 2, viewers).when(number == 3, carters).alias("previous"),
            viewers.alias("viewers"),
        )
    )
    from_previous = percent(F, F.col("users"), F.col("previous"))
    rates = {
        "conversion_from_previous": F.when(F.col("step_number") > 1, from_previous),
        "conversion_from_first": percent(F, F.col("users"), F.col("viewers")),
    }
    return rows_of(FUNNEL, rows, rates)
