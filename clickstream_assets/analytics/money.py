"""The shop's money: prices of other currencies by the day's exchange rate, or kept apart."""

from __future__ import annotations

from clickstream_assets.analytics.measures import MONEY, MONEY_SUM, units
from clickstream_assets.engine import DataFrame, as_view, functions_of

RATE = "decimal(19,12)"
MOST = 10**10
"""Price times quantity in the shop's currency is less than this, as it is of an event's own; more is kept apart."""


SENT = ("sent_price", "sent_currency")
"""Columns of events in the shop's money: price and currency as they were sent."""


def as_sent(events: DataFrame) -> DataFrame:
    """Return events with `sent_price` and `sent_currency`, all of them in one currency: nothing is converted."""
    F, _ = functions_of(events)
    return events.select(*events.columns, *(F.col(name.removeprefix("sent_")).alias(name) for name in SENT))


def in_shop_money(events: DataFrame, currency: str | None, rates: DataFrame | None) -> DataFrame:
    """Return events with `price` in the shop's currency, which `currency` is, and with what was sent in SENT.

    A price without a currency is in the shop's. One in another currency is converted by the latest rate at or before
    the event's day, and rounded to four decimals, halves up. Where there is no rate it is null: to be counted, and
    never added.

    Args:
        events: rows with at least `event_date`, `price`, `currency` and `quantity`.
        currency: the shop's; None where none is known yet.
        rates: EXCHANGE_RATES rows; None where there are none but the shop's own.
    """
    F, _ = functions_of(events)
    rated = events.withColumn("rate", F.lit(None).cast(RATE)) if rates is None else _rated(events, rates)
    is_shops = F.col("currency").isNull()
    if currency:
        is_shops = is_shops | (F.col("currency") == F.lit(currency))
    converted = (F.col("price") * F.col("rate")).cast(MONEY_SUM)
    fits = converted * units(F) < F.lit(MOST)
    computed = {
        "price": F.when(is_shops, F.col("price")).when(fits, converted.cast(MONEY)),
        "currency": F.when(is_shops, F.col("currency")).when(fits, F.lit(currency)),
    }
    columns = (computed[name].alias(name) if name in computed else F.col(name) for name in events.columns)
    sent = (F.col(name.removeprefix("sent_")).alias(name) for name in SENT)
    return as_view(rated.select(*columns, *sent))


def _rated(events: DataFrame, rates: DataFrame) -> DataFrame:
    """Return events with the `rate` of their currency on their day; null where there is none."""
    F, Window = functions_of(events)
    of_currency = Window.partitionBy("currency").orderBy("since")
    others = as_view(
        rates.where(~F.col("is_shops")).select(
            F.col("currency").alias("rate_currency"),
            F.col("since").alias("rate_since"),
            F.lead("since").over(of_currency).alias("rate_until"),
            "rate",
        )
    )
    day = F.col("event_date")
    counts = (
        (F.col("currency") == F.col("rate_currency"))
        & (day >= F.col("rate_since"))
        & (F.col("rate_until").isNull() | (day < F.col("rate_until")))
    )
    return as_view(events.join(others, on=counts, how="left"))
