"""UCI's Online Retail, I and II: lines of a gift shop's invoices, by the shop's own clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from clickstream_assets.ingest.files.kinds.kind import Event, Kind, ReadRow, column, number, texts
from clickstream_assets.ingest.files.skipped import (
    MALFORMED_ROW,
    NO_CUSTOMER,
    NO_PRICE,
    NO_QUANTITY,
    Skipped,
    SkippedRow,
)
from clickstream_assets.ingest.files.tables import Table

_TIME = re.compile(
    r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})[ T](\d{1,2}):(\d{2})(?::(\d{2}))?(?: ([AP]M))?",
    re.ASCII | re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})[ T](\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)", re.ASCII)
_TIMES_LOOKED_AT = 200_000


def _reader(table: Table) -> ReadRow:
    return partial(_event, _is_day_first(table))


def _is_day_first(table: Table) -> bool:
    """Return whether times like 1/12/2010 begin with the day: some number there is no month, or stands still.

    The publisher's begin with the month, 12/1/2010 8:26; copies that went through a spreadsheet elsewhere do not.
    """
    places = ONLINE_RETAIL.places(table) or list(range(len(ONLINE_RETAIL.columns)))
    place = places[_TIME_COLUMN]
    for count, (_, (text,)) in enumerate(table.rows([place], Skipped())):
        given = _TIME.fullmatch(text)
        if count == 0 and (given is None):
            return False
        if given is not None and (int(given[1]) > 12 or int(given[3]) > 12):
            return int(given[1]) > 12
        if count > _TIMES_LOOKED_AT:
            break
    return False


def _event(is_day_first: bool, row: Sequence[str]) -> Event:
    invoice, stock_code, description, quantity_text, time, price_text, customer, country = row
    if not customer:
        raise SkippedRow(NO_CUSTOMER)
    quantity_text, price_text = (_with_dot(text) for text in (quantity_text, price_text))
    try:
        quantity = float(quantity_text)
        price = float(price_text)
    except ValueError as error:
        raise SkippedRow(MALFORMED_ROW, str(error)) from None
    if not quantity:
        raise SkippedRow(NO_QUANTITY)
    if price <= 0:
        raise SkippedRow(NO_PRICE)
    return Event(
        # Cancelled invoices, whose numbers begin with C, give back what they list.
        event_type="purchase" if quantity > 0 else "refund",
        user_id=customer.removesuffix(".0"),
        timestamp=_time(time, is_day_first),
        product_id=stock_code,
        price=number(price_text),
        currency="GBP",
        quantity=number(quantity_text.removeprefix("-").removesuffix(".0")),
        order_id=invoice,
        properties=texts(description=description, country=country),
    )


def _with_dot(text: str) -> str:
    found = _DECIMAL_COMMA.fullmatch(text)
    return f"{found[1]}.{found[2]}" if found else text


def _time(text: str, is_day_first: bool) -> str:
    """Return the shop's local time, which is read by SHOP_TIME_ZONE."""
    parts: list[int] | None = None
    if given := _TIME.fullmatch(text):
        first, _, second, year, hour, minute, seconds, half = given.groups(default="0")
        month, day = (second, first) if is_day_first else (first, second)
        hours = int(hour) if half == "0" else int(hour) % 12 + 12 * (half.upper() == "PM")
        parts = [
            int(year) + (2000 if len(year) == 2 else 0),
            int(month),
            int(day),
            hours,
            int(minute),
            int(seconds),
        ]
    elif given := _YEAR_FIRST.fullmatch(text):
        parts = list(map(int, given.groups(default="0")))
    if parts:
        try:
            return datetime(*parts).isoformat()  # type: ignore[arg-type]
        except ValueError as error:
            raise SkippedRow(MALFORMED_ROW, f"InvoiceDate {text!r}: {error}") from None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise SkippedRow(
            MALFORMED_ROW,
            f"InvoiceDate {text!r} is neither like 2010-12-01 08:26:00 nor like 12/1/2010 8:26",
        ) from None
    return text.replace(" ", "T", 1)


_TIME_COLUMN = 4
ONLINE_RETAIL = Kind(
    "UCI Online Retail",
    (
        column("InvoiceNo|Invoice", r"[A-Za-z]?\d{6}"),
        column("StockCode", r"\w[\w .-]*"),
        column("Description", r".*", optional=True, text=True),
        column("Quantity", r"-?\d+(\.0)?"),
        column("InvoiceDate", r"\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}[ T]\d{1,2}:\d{2}(:\d{2})?"),
        column("UnitPrice|Price", r"-?\d*[.,]?\d*"),
        column("CustomerID|Customer", r"(\d{5}(\.0)?)?"),
        column("Country", r"\D*", optional=True, text=True),
    ),
    _reader,
)
