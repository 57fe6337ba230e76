"""The shop's money follows its settings, and the days that a change concerns are made again."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from clickstream_assets.catalogue import EVENTS, EXCHANGE_RATES
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.money import days_of_other_money, update_money
from clickstream_assets.settings import Settings
from clickstream_assets.stores.exchange_rates import Rate, ShopMoney
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import event, event_table

DAYS = [date(2024, 5, number) for number in range(1, 5)]
JPY = Rate("JPY", DAYS[1], Decimal("0.0061"))
BATCHES = [
    [event("view", "2024-05-01 10:00", currency="GBP"), event("purchase", "2024-05-01 11:00")],
    [
        event("purchase", "2024-05-02 11:00", currency="JPY", event_id="second"),
        event("purchase", "2024-05-02 10:00", currency="EUR", event_id="first"),
    ],
    [
        event("purchase", "2024-05-03 10:00", currency="JPY"),
        event("purchase", "2024-05-04 10:00", currency="JPY"),
    ],
]


@pytest.fixture
def lake(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Lake:
    """Purchases in three batches: the first names no currency."""
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    for number, events in enumerate(BATCHES, start=1):
        rows = event_table({"event_id": f"{number} {n}", "batch": number, **e} for n, e in enumerate(events))
        lake.append_batch(EVENTS, duckdb_engine.from_arrow(rows), number)
    return lake


def settings(folder: Path, currency: str | None = None, *rates: str) -> Settings:
    path = folder / "rates.csv"
    path.write_text("\n".join(["date,currency,rate", *rates]))
    return Settings(_env_file=None, shop_currency=currency, exchange_rates=path if rates else None)


def test_the_shops_currency_is_that_of_the_first_purchase_that_names_one(lake: Lake, tmp_path: Path):
    unset = settings(tmp_path)
    # Of batches after the second there is another, and the first has none.
    assert update_money(lake, 3, unset).currency is None
    assert update_money(lake, 1, unset).currency == "EUR"
    # From then on it is kept, whatever comes.
    assert update_money(lake, 2, unset).currency == "EUR"
    assert update_money(lake, 2, settings(tmp_path, "USD")).currency == "USD"
    assert update_money(lake, 0, unset).currency == "USD"


def test_nothing_is_written_where_nothing_has_changed(lake: Lake, tmp_path: Path):
    for money in (settings(tmp_path), settings(tmp_path, "EUR", "2024-05-02,JPY,0.0061")):
        update_money(lake, 0, money)
        version = lake.version(EXCHANGE_RATES)
        assert update_money(lake, 0, money) == ShopMoney.of(lake)
        assert lake.version(EXCHANGE_RATES) == version


@pytest.mark.parametrize(
    ("currency", "rates", "days"),
    [
        ("EUR", ["2024-05-02,JPY,0.0061"], []),
        # Its days with such amounts alone, and none from before.
        ("EUR", ["2024-05-02,JPY,0.0061", "2024-05-04,JPY,0.0062"], [DAYS[3]]),
        ("EUR", ["2024-05-02,JPY,0.0062"], DAYS[1:]),
        ("EUR", ["2024-05-03,JPY,0.0061"], [DAYS[1]]),
        ("EUR", [], DAYS[1:]),
        ("EUR", ["2024-05-02,JPY,0.0061", "2024-05-01,GBP,1.17"], [DAYS[0]]),
        ("EUR", ["2024-05-02,JPY,0.0061", "2024-05-01,CHF,1.02", "2030-01-01,JPY,1"], []),
        # Another currency of the shop's: what was its own, and what is.
        ("JPY", [], DAYS[1:]),
    ],
)
def test_the_days_whose_amounts_are_worth_something_else_are_made_again(
    lake: Lake, tmp_path: Path, currency: str, rates: list[str], days: list[date]
):
    update_money(lake, 0, settings(tmp_path, "EUR", "2024-05-02,JPY,0.0061"))
    version = lake.version(EXCHANGE_RATES)
    money = update_money(lake, 0, settings(tmp_path, currency, *rates))
    assert days_of_other_money(lake, version, money) == days
    assert days_of_other_money(lake, lake.version(EXCHANGE_RATES), money) == []
    assert days_of_other_money(lake, None, money) == []


def test_a_broken_file_changes_nothing(lake: Lake, tmp_path: Path):
    update_money(lake, 0, settings(tmp_path, "EUR", "2024-05-02,JPY,0.0061"))
    with pytest.raises(InputError, match=r"EXCHANGE_RATES=.*line 2 has the rate 'x'"):
        update_money(lake, 0, settings(tmp_path, "EUR", "2024-05-02,JPY,x"))
    assert ShopMoney.of(lake) == ShopMoney("EUR", (JPY,))
