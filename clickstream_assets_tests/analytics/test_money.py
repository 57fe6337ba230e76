"""Prices in the shop's currency, against sums by hand."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.money import in_shop_money
from clickstream_assets.engine import Engine
from clickstream_assets.stores.exchange_rates import Rate, ShopMoney
from clickstream_assets_tests.analytics.records import event, event_table, rows_of

RATES = (
    Rate("JPY", date(2024, 5, 2), Decimal("0.0061")),
    Rate("JPY", date(2024, 5, 4), Decimal("0.00615")),
    Rate("USD", date(2024, 4, 30), Decimal("0.93")),
    Rate("VND", date(2024, 5, 1), Decimal("0.00005")),
)


def paid(day: int, price: str | None, currency: str | None, quantity: int | None = None) -> dict[str, Any]:
    return event(
        "purchase",
        f"2024-05-0{day} 10:00",
        price=None if price is None else Decimal(price),
        currency=currency,
        quantity=quantity,
    )


EVENTS = [
    # In the shop's own, or in none.
    (paid(1, "100", "EUR"), "100"),
    (paid(1, "7.50", None, 3), "7.50"),
    (paid(1, None, "JPY"), None),
    # Before the first rate, on its day, after it, and from the next one on.
    (paid(1, "10000", "JPY"), None),
    (paid(2, "10000", "JPY"), "61"),
    (paid(3, "10000", "JPY"), "61"),
    (paid(4, "10000", "JPY"), "61.5"),
    (paid(9, "0.01", "USD", 2), "0.0093"),
    # A half of the last decimal goes up.
    (paid(3, "1", "VND"), "0.0001"),
    (paid(3, "0.9999", "VND"), "0"),
    # Without a rate.
    (paid(3, "5", "GBP"), None),
]


@pytest.mark.parametrize("own", ["EUR", None])
def test_prices_are_converted_by_the_latest_rate_of_the_day_or_kept_apart(engine: Engine, own: str | None):
    money = ShopMoney(own, RATES)
    df = in_shop_money(
        engine.from_arrow(event_table(one for one, _ in EVENTS)), own, engine.from_arrow(money.table())
    )
    rows = rows_of(engine, df, "event_id")
    sent = [one["price"] for one, _ in EVENTS]
    assert [row["sent_price"] for row in rows] == sent
    assert [row["sent_currency"] for row in rows] == [one["currency"] for one, _ in EVENTS]
    expected = [price if own or one["currency"] != "EUR" else None for one, price in EVENTS]
    assert {row["currency"] for row in rows if row["price"] is not None} == {own, None}
    assert [row["price"] for row in rows] == [None if price is None else Decimal(price) for price in expected]


@pytest.mark.long_on_spark
def test_what_would_not_fit_is_kept_apart(engine: Engine):
    rates = ShopMoney("VND", (Rate("EUR", date(2024, 1, 1), Decimal("27000.5")),))
    lines = [paid(1, "9999999999.9999", "EUR"), paid(1, "370000", "EUR"), paid(1, "4", "EUR", 100_000)]
    df = in_shop_money(engine.from_arrow(event_table(lines)), "VND", engine.from_arrow(rates.table()))
    assert [row["price"] for row in rows_of(engine, df, "event_id")] == [
        None,
        Decimal(9_990_185_000),
        None,
    ]


@pytest.mark.long_on_spark
def test_without_rates_only_the_shops_currency_is_money(engine: Engine):
    money = ShopMoney("EUR", ())
    lines = [paid(1, "1", "EUR"), paid(1, "2", None), paid(1, "3", "JPY")]
    for rates in (engine.from_arrow(money.table()), None):
        df = in_shop_money(engine.from_arrow(event_table(lines)), "EUR", rates)
        assert [row["price"] for row in rows_of(engine, df, "event_id")] == [Decimal(1), Decimal(2), None]
