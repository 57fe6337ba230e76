"""Exchange rates: the file that EXCHANGE_RATES names, and what the lake keeps of the shop's money.

The lake's table has the shop's currency and the rates in one, so that a version of it says all that amounts were
converted by.
"""

import csv
import re
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pyarrow as pa

from clickstream_assets.catalogue import EXCHANGE_RATES
from clickstream_assets.errors import InputError
from clickstream_assets.stores.lake import Lake

if TYPE_CHECKING:
    import _csv

_HEADER = ["date", "currency", "rate"]
_CURRENCY = re.compile("[A-Z]{3}")
_MAX_RATE = 10**7
_LEAST_RATE = Decimal("0.000000000001")
# The shop's own rate is of all days.
_ALWAYS = date(1970, 1, 1)


class Rate(NamedTuple):
    """Worth of a unit of a currency, in units of the shop's, from a day on."""

    currency: str
    since: date
    rate: Decimal


class ShopMoney(NamedTuple):
    """The shop's currency, where one is known, and rates of others, in order."""

    currency: str | None
    rates: tuple[Rate, ...]

    @classmethod
    def of(cls, lake: Lake, version: int | None = None) -> Self:
        """Read what the lake keeps; `version` is that of its table (default: the newest)."""
        rows = lake.engine.to_arrow(lake.read(EXCHANGE_RATES, version)).to_pylist()
        own = [row["currency"] for row in rows if row["is_shops"]]
        rates = (
            Rate(row["currency"], row["since"], row["rate"].normalize())
            for row in rows
            if not row["is_shops"]
        )
        return cls(own[0] if own else None, tuple(sorted(rates)))

    def table(self) -> pa.Table:
        """Return EXCHANGE_RATES rows."""
        own = [Rate(self.currency, _ALWAYS, Decimal(1))] if self.currency else []
        rows = [{**rate._asdict(), "is_shops": rate in own} for rate in (*own, *self.rates)]
        return pa.Table.from_pylist(rows, schema=EXCHANGE_RATES.arrow)


def read_rates(path: Path, currency: str | None) -> tuple[Rate, ...]:
    """Read a CSV of `date`, `currency` and `rate`: units of the shop's currency per unit of that one.

    Args:
        path: names the file, which begins with a header.
        currency: the shop's own, for which the file may only say 1; rows of it are left out.

    Raises:
        InputError: the file cannot be read, or a line of it says no rate; the message names file, line and fix.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rates(csv.reader(file, strict=True), str(path), currency)
    except OSError as error:
        raise _unusable(
            path, f"{error.strerror or error}; set it to a CSV file that this user may read"
        ) from None
    except UnicodeDecodeError as error:
        raise _unusable(
            path, f"is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _rates(rows: "_csv.Reader", path: str, currency: str | None) -> tuple[Rate, ...]:
    found: dict[tuple[str, date], Decimal] = {}
    lines = iter(rows)
    header = [name.strip().lower() for name in _next(lines, path) or []]
    if sorted(header) != sorted(_HEADER):
        raise _unusable(
            path, f"line 1 is {','.join(header) or 'empty'}; it has to be the header date,currency,rate"
        )
    while (row := _next(lines, path)) is not None:
        if not row:
            continue
        where = f"line {rows.line_num}"
        if len(row) != len(header):
            raise _unusable(
                path, f"{where} has {len(row)} values; write date,currency,rate, the rate with a point"
            )
        values = dict(zip(header, (value.strip() for value in row), strict=True))
        rate = _rate(values, path, where)
        if rate.currency == currency:
            if rate.rate != 1:
                raise _unusable(
                    path,
                    f"{where} says {rate.rate} for {currency}, the shop's own currency; rates are units of {currency} "
                    "per unit of the other currency. Leave the line out",
                )
            continue
        if found.setdefault(rate[:2], rate.rate) != rate.rate:
            raise _unusable(
                path,
                f"{where} says another rate of {rate.currency} for {rate.since} than before; leave one of them out",
            )
    return tuple(sorted(Rate(*key, rate) for key, rate in found.items()))


def _next(lines: "_csv.Reader", path: str) -> list[str] | None:
    try:
        return next(lines, None)
    except csv.Error as error:
        raise _unusable(path, f"line {lines.line_num} is no CSV: {error}") from None


def _rate(values: dict[str, str], path: str, where: str) -> Rate:
    try:
        since = date.fromisoformat(values["date"])
    except ValueError:
        raise _unusable(
            path, f"{where} has the date {values['date']!r}; write one such as 2024-05-31"
        ) from None
    if not _CURRENCY.fullmatch(values["currency"]):
        raise _unusable(path, f"{where} has the currency {values['currency']!r}; write its code, such as JPY")
    try:
        rate = Decimal(values["rate"])
    except InvalidOperation:
        rate = Decimal("nan")
    if not rate.is_finite() or not _LEAST_RATE <= rate < _MAX_RATE or rate != rate.quantize(_LEAST_RATE):
        raise _unusable(
            path,
            f"{where} has the rate {values['rate']!r}; write a number above 0 and below {_MAX_RATE:,}, with a point "
            "and at most 12 decimals",
        )
    return Rate(values["currency"], since, rate.normalize())


def _unusable(path: object, problem: str) -> InputError:
    return InputError(f"EXCHANGE_RATES={path}: {problem}")
