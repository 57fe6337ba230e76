"""UCI's Online Retail, I and II: lines of a gift shop's invoices, by the shop's own clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files.kinds.kind import Event, Kind, Rows, column, number, texts
from clickstream_assets.ingest.files.kinds.local_times import Span, day_order, iso_time
from clickstream_assets.ingest.files.skipped import (
    MALFORMED_ROW,
    NO_CUSTOMER,
    NO_PRICE,
    NO_QUANTITY,
    Skipped,
    SkippedRow,
)
from clickstream_assets.ingest.files.sources import FAULTS
from clickstream_assets.ingest.files.tables import Table

_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)", re.ASCII)
_INVOICE = re.compile(r"[A-Za-z]?(\d{6})", re.ASCII)
# The first invoices of Online Retail II, of Online Retail, and after both, with their days.
_FIRST_INVOICES = (
    (489_434, datetime(2009, 12, 1)),
    (536_365, datetime(2010, 12, 1)),
    (581_588, datetime(2011, 12, 10)),
)


def _reader(table: Table) -> Rows:
    places = ONLINE_RETAIL.places(table) or list(range(len(ONLINE_RETAIL.columns)))
    order = day_order(_invoice_times(table, [places[_INVOICE_COLUMN], places[_TIME_COLUMN]]), _span_of)
    return Rows(partial(_event, order.is_day_first), order.remark)


def _invoice_times(table: Table, places: Sequence[int | None]) -> Iterator[tuple[int | None, str]]:
    # Whoever reads on meets a fault where it is, with the number of events before it.
    with suppress(InputError, *FAULTS):
        for _, (invoice, time) in table.rows(places, Skipped()):
            yield _number_of(invoice), time


def _number_of(invoice: str) -> int | None:
    """Return an invoice's number, which rises with time, also among those that give back."""
    given = _INVOICE.fullmatch(invoice)
    return int(given[1]) if given else None


def _span_of(number: int) -> Span | None:
    for (first, begin), (last, end) in pairwise(_FIRST_INVOICES):
        if first <= number < last:
            return begin, end
    return None


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
    try:
        return iso_time(text, is_day_first)
    except ValueError as error:
        raise SkippedRow(MALFORMED_ROW, f"InvoiceDate {text!r}: {error}") from None


_INVOICE_COLUMN = 0
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
