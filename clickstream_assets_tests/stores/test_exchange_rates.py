"""The file of exchange rates, and what the lake keeps of it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from clickstream_assets.catalogue import EXCHANGE_RATES
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.stores.exchange_rates import Rate, ShopMoney, read_rates
from clickstream_assets.stores.lake import Lake

JPY = Rate("JPY", date(2024, 5, 1), Decimal("0.0061"))


def file(folder: Path, content: str | bytes) -> Path:
    path = folder / "rates.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "date,currency,rate\n2024-05-01,JPY,0.0061\n",
        "Rate, Date ,Currency\r\n0.006100,2024-05-01,JPY\r\n\r\n",
        b'\xef\xbb\xbf"date","currency","rate"\n2024-05-01, JPY ,6.1e-3',
        "date,currency,rate\n2024-05-01,JPY,0.0061\n2024-05-01,JPY,0.00610\n2024-05-01,EUR,1.0\n",
    ],
)
def test_a_file_is_read_as_spreadsheets_and_banks_write_it(tmp_path: Path, content: str | bytes):
    assert read_rates(file(tmp_path, content), "EUR") == (JPY,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "line 1 is empty; it has to be the header date,currency,rate"),
        ("2024-05-01,JPY,0.0061\n", "line 1 is 2024-05-01,jpy,0.0061; it has to be the header"),
        ("date,currency,rate\n2024-05-01;JPY;0,0061\n", "line 2 has 2 values; write date,currency,rate"),
        ("date,currency,rate\n01.05.2024,JPY,0.0061\n", "line 2 has the date '01.05.2024'"),
        ("date,currency,rate\n\n2024-05-01,yen,0.0061\n", "line 3 has the currency 'yen'; write its code"),
        ("date,currency,rate\n2024-05-01,JPY,\n", "line 2 has the rate ''"),
        ("date,currency,rate\n2024-05-01,JPY,0\n", "line 2 has the rate '0'"),
        ("date,currency,rate\n2024-05-01,JPY,-1\n", "line 2 has the rate '-1'"),
        ("date,currency,rate\n2024-05-01,JPY,nan\n", "line 2 has the rate 'nan'"),
        ("date,currency,rate\n2024-05-01,JPY,inf\n", "line 2 has the rate 'inf'"),
        ("date,currency,rate\n2024-05-01,JPY,1e9\n", "a number above 0 and below 10,000,000"),
        ("date,currency,rate\n2024-05-01,JPY,1e-999999\n", "a number above 0"),
        ("date,currency,rate\n2024-05-01,JPY,0.1234567890123\n", "at most 12 decimals"),
        ("date,currency,rate\n2024-05-01,EUR,1.1\n", "line 2 says 1.1 for EUR, the shop's own currency"),
        (
            "date,currency,rate\n2024-05-01,JPY,1\n2024-05-01,JPY,2\n",
            "line 3 says another rate of JPY for 2024-05-01",
        ),
        ('date,currency,rate\n2024-05-01,JPY,"1\n', "line 2 is no CSV"),
        (b"date,currency,rate\n2024-05-01,J\xffY,1\n", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_the_fix(tmp_path: Path, content: str | bytes, problem: str):
    path = file(tmp_path, content)
    with pytest.raises(InputError) as refused:
        read_rates(path, "EUR")
    assert str(refused.value).startswith(f"EXCHANGE_RATES={path}: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize("name", ["missing.csv", ""])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"EXCHANGE_RATES=.*; set it to a CSV file that this user may read"):
        read_rates(tmp_path / name, "EUR")


def test_the_lake_keeps_currency_and_rates_as_they_were(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    money = ShopMoney("EUR", (JPY, Rate("USD", date(2024, 5, 1), Decimal("0.93"))))
    assert ShopMoney.of(lake) == ShopMoney(None, ())
    before = lake.version(EXCHANGE_RATES)
    lake.replace(EXCHANGE_RATES, duckdb_engine.from_arrow(money.table()))
    assert ShopMoney.of(lake) == money
    assert ShopMoney.of(lake, before) == ShopMoney(None, ())
