"""Customers: recency, frequency and monetary value of their orders, day by day, and their abandoned carts.

A day's snapshot contains no later days, so an event changes the snapshots of its own day and of those after it, and
no other. That reach has no end, so a fingerprint of each day's input says which snapshots are out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.carts import CART_EVENTS
from clickstream_assets.analytics.measures import MONEY_SUM, amount, count, fingerprint, order_key, total
from clickstream_assets.catalogue import CUSTOMER_SEGMENT_DAYS, CUSTOMER_SEGMENTS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS, SCORES
from clickstream_assets.engine import DataFrame, as_view, functions_of

CUSTOMER_EVENTS = (*CART_EVENTS, "refund")
"""The events that customers are made from."""
ABANDONED_CART_DAYS = 30
"""Days for which an abandoned cart is worth a reminder."""


def orders(events: DataFrame) -> DataFrame:
    """Sum up purchases per order and day.

    Args:
        events: SHOPPER_EVENTS rows.

    Returns:
        user_id, order_key (unique within the user), order_date, amount and last_line_at. An order whose lines are of
        several days has a row for each.
    """
    F, _ = functions_of(events)
    lines = as_view(
        events.where(F.col("event_type") == "purchase").select(
            "user_id",
            order_key(F).alias("order_key"),
            F.col("event_date").alias("order_date"),
            amount(F).alias("paid"),
            "event_time",
        )
    )
    return lines.groupBy("user_id", "order_key", "order_date").agg(
        total(F, "paid").alias("amount"),
        F.max("event_time").alias("last_line_at"),
    )


def refunds(events: DataFrame) -> DataFrame:
    """Sum up refunds per user and day.

    Args:
        events: EVENTS rows, without bots.

    Returns:
        user_id, refund_date and amount.
    """
    F, _ = functions_of(events)
    lines = events.where(F.col("event_type") == "refund").select(
        "user_id", F.col("event_date").alias("refund_date"), amount(F).alias("refunded")
    )
    return as_view(lines).groupBy("user_id", "refund_date").agg(total(F, "refunded").alias("amount"))


def customer_segments(
    orders: DataFrame,
    refunds: DataFrame,
    abandonments: DataFrame,
    days: DataFrame,
    rfm_days: int,
    refusals: DataFrame | None = None,
) -> DataFrame:
    """Describe the customers as of the end of each of some days.

    A customer has bought in the last `rfm_days`, or has abandoned a cart in the last ABANDONED_CART_DAYS and has not
    taken it up since. The scores compare the day's buyers with each other, and are those of `catalogue/rfm.py`.

    Args:
        orders: rows of `orders`.
        refunds: rows of `refunds`.
        abandonments: rows of `carts.abandonments`, of the days and at least the ABANDONED_CART_DAYS before.
        days: `report_date` of the days.
        rfm_days: days that orders count for, the day itself included.
        refusals: rows of `consent.refusal_spans`: of their days these shoppers are left out (default: nobody is).

    Returns:
        CUSTOMER_SEGMENTS rows.
    """
    F, Window = functions_of(orders)
    order_age = F.datediff("report_date", "order_date")
    bought = orders.join(days, on=(order_age >= 0) & (order_age < rfm_days), how="inner").select(
        "report_date",
        "user_id",
        "order_key",
        "order_date",
        "amount",
        F.lit(0).cast(MONEY_SUM).alias("refunded"),
        F.lit(0).alias("carts"),
        F.lit(0).cast(MONEY_SUM).alias("cart_value"),
    )
    refund_age = F.datediff("report_date", "refund_date")
    returned = refunds.join(days, on=(refund_age >= 0) & (refund_age < rfm_days), how="inner").select(
        "report_date",
        "user_id",
        F.lit(None).cast("string").alias("order_key"),
        F.lit(None).cast("date").alias("order_date"),
        F.lit(0).cast(MONEY_SUM).alias("amount"),
        F.col("amount").alias("refunded"),
        F.lit(0).alias("carts"),
        F.lit(0).cast(MONEY_SUM).alias("cart_value"),
    )
    left_age = F.datediff("report_date", "given_up_date")
    is_lately = (left_age >= 0) & (left_age < ABANDONED_CART_DAYS)
    known = F.datediff("report_date", "step_date") >= 0
    abandoned = abandonments.join(days, on=is_lately & known, how="inner").select(
        "report_date",
        "user_id",
        F.lit(None).cast("string").alias("order_key"),
        F.lit(None).cast("date").alias("order_date"),
        F.lit(0).cast(MONEY_SUM).alias("amount"),
        F.lit(0).cast(MONEY_SUM).alias("refunded"),
        "carts",
        F.col("value").alias("cart_value"),
    )
    customers = as_view(
        as_view(bought.unionByName(returned).unionByName(abandoned))
        .groupBy("report_date", "user_id")
        .agg(
            F.max("order_date").alias("last_order_date"),
            F.countDistinct("order_key").cast("long").alias("frequency"),
            F.sum("amount").cast(MONEY_SUM).alias("monetary"),
            F.sum("refunded").cast(MONEY_SUM).alias("refunds"),
            F.sum("carts").cast("long").alias("abandoned_carts"),
            F.sum("cart_value").cast(MONEY_SUM).alias("abandoned_value"),
        )
        .withColumn("recency_days", F.datediff("report_date", "last_order_date").cast("long"))
        .withColumn("net_monetary", (F.col("monetary") - F.col("refunds")).cast(MONEY_SUM))
        .withColumn("is_buyer", F.col("frequency") > 0)
        # A refund of an older purchase makes nobody a customer again.
        .where(F.col("is_buyer") | (F.col("abandoned_carts") > 0))
    )
    if refusals is not None:
        refuses = (
            (F.col("user_id") == F.col("refuser"))
            & (F.col("report_date") >= F.col("since"))
            & (F.col("until").isNull() | (F.col("report_date") < F.col("until")))
        )
        customers = as_view(customers.join(refusals, on=refuses, how="left_anti"))

    among = Window.partitionBy("report_date", "is_buyer")
    measures = {"r_score": "recency_days", "f_score": "frequency", "m_score": "net_monetary"}
    worst_first = {
        score: F.col(measure).desc() if score == "r_score" else F.col(measure)
        for score, measure in measures.items()
    }
    ranked = as_view(
        customers.select(
            *customers.columns,
            F.count(F.lit(1)).over(among).alias("buyers"),
            *(F.rank().over(among.orderBy(order)).alias(score) for score, order in worst_first.items()),
            *(
                F.count(F.lit(1))
                .over(Window.partitionBy("report_date", "is_buyer", measure))
                .alias(f"{score}_equals")
                for score, measure in measures.items()
            ),
        )
    )
    scored = as_view(
        ranked.select(
            *customers.columns,
            *(
                F.when(
                    F.col("is_buyer"),
                    # The middle of those who did as well: rank + (equals - 1) / 2, less the half that is one's own.
                    F.floor(
                        (F.lit(2) * F.col(score) + F.col(f"{score}_equals") - F.lit(2))
                        * F.lit(SCORES)
                        / (F.lit(2) * F.col("buyers"))
                    )
                    + F.lit(1),
                )
                .cast("long")
                .alias(score)
                for score in measures
            ),
        )
    )
    value_score = F.floor((F.col("f_score") + F.col("m_score") + F.lit(1)) / F.lit(2))
    named = as_view(scored.withColumn("value_score", value_score.cast("long")))
    segment = F.lit(None).cast("string")
    # From the last, so that the first that fits stays.
    for one in reversed(RFM_SEGMENTS):
        within = F.col("r_score").between(*one.recency) & F.col("value_score").between(*one.value)
        if one.most_orders is not None:
            within = within & (F.col("frequency") <= one.most_orders)
        segment = F.when(within, F.lit(one.name)).otherwise(segment)
    return named.withColumn("rfm_segment", segment).select(*CUSTOMER_SEGMENTS.column_names)


def shopper_days(events: DataFrame) -> DataFrame:
    """Count the events that carts and customers are made from, and make a fingerprint of them, day by day.

    Args:
        events: SHOPPER_EVENTS rows.

    Returns:
        SHOPPER_DAYS rows without `files`, of the days that have such events.
    """
    F, _ = functions_of(events)
    of_days = events.where(F.col("event_type").isin(*CUSTOMER_EVENTS)).groupBy(
        F.col("event_date").alias("report_date")
    )
    return of_days.agg(count(F).alias("events"), fingerprint(F).alias("fingerprint"))


def segment_days(
    days: pa.Table,
    as_of: datetime,
    settings_text: str,
    clock: ShopClock = UTC_CLOCK,
    refusals: Mapping[date, str] | None = None,
) -> pa.Table:
    """Fingerprint the input of each day's snapshot, by which a later run finds the first day that has changed.

    Args:
        days: SHOPPER_DAYS rows.
        as_of: time of the newest event; its day is the last, and that of the first of CUSTOMER_EVENTS the
            first.
        settings_text: the settings that the snapshots depend on.
        clock: says when days begin.
        refusals: fingerprints of who refuses to be profiled from a day on, and who no more.

    Returns:
        CUSTOMER_SEGMENT_DAYS rows, in order.
    """
    known: dict[date, dict[str, Any]] = {row["report_date"]: row for row in days.to_pylist() if row["events"]}
    last = clock.day_of(as_of)
    first = min(known, default=last + timedelta(days=1))
    changes: dict[date, str] = {}
    for day, its in sorted((refusals or {}).items()):
        # Who refused before anybody was a customer counts from the first day on.
        changes[max(day, first)] = changes.get(max(day, first), "") + f"|{its}"
    rows = []
    for day in (first + timedelta(days=offset) for offset in range((last - first).days + 1)):
        row = known.get(day, {"events": 0, "fingerprint": ""})
        rows.append(
            {
                "report_date": day,
                "as_of": min(as_of, clock.begin(day + timedelta(days=1))),
                "events": row["events"],
                "fingerprint": sha256(
                    f"{settings_text}|{row['fingerprint']}{changes.get(day, '')}".encode()
                ).hexdigest()[:32],
            }
        )
    return pa.Table.from_pylist(rows, schema=CUSTOMER_SEGMENT_DAYS.arrow)


def first_changed(before: pa.Table, after: pa.Table) -> date | None:
    """Return the first day on which two tables of CUSTOMER_SEGMENT_DAYS differ; None where they are equal."""
    old, new = ({row["report_date"]: row for row in table.to_pylist()} for table in (before, after))
    return min((day for day in old.keys() | new.keys() if old.get(day) != new.get(day)), default=None)
