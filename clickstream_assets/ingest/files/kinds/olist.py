"""Olist's order items, a row for each unit, joined with the orders and customers that lie beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files.kinds.kind import Event, Kind, Rows, column, number, texts
from clickstream_assets.ingest.files.kinds.local_times import day_order, iso_time
from clickstream_assets.ingest.files.skipped import MALFORMED_ROW, NO_CUSTOMER, NO_ORDER, Skipped, SkippedRow
from clickstream_assets.ingest.files.sources import FAULTS, Source, named_fault
from clickstream_assets.ingest.files.tables import PARQUET, Table, csv_tables, parquet_table

_ORDERS = ("orders", ("order_id", "customer_id", "order_purchase_timestamp", "order_status"))
_CUSTOMERS = ("customers", ("customer_id", "customer_unique_id"))
_PRODUCTS = ("products", ("product_id", "product_category_name"))
_TEXTS = {"product_category_name"}
# More is no folder of a data set.
_MOST_FILES = 200

_Orders = dict[str, tuple[str, str, str]]


def _reader(table: Table) -> Rows:
    """Read what a row alone does not say: when it was ordered, by whom, and of which category the product is.

    Raises:
        InputError: there are no orders or customers beside it.
    """
    found = dict(_tables_beside(table.source))
    missing = [name for name, _ in (_ORDERS, _CUSTOMERS) if name not in found]
    if missing:
        raise InputError(
            f"{table.source} has Olist's order items, which do not say when and by whom; put the data set's "
            f"{' and '.join(missing)} beside it, as {' and '.join(f'olist_{name}_dataset.csv' for name in missing)}"
        )
    person_of = dict(_pairs(found["customers"], _CUSTOMERS[1]))
    orders = {
        order: (time, person_of.get(customer, ""), status)
        for order, customer, time, status in _rows(found["orders"], _ORDERS[1])
    }
    categories = dict(_pairs(found["products"], _PRODUCTS[1])) if "products" in found else {}
    order = day_order((None, time) for time, _, _ in orders.values())
    time_of = partial(_time, found["orders"].source.name, order.is_day_first)
    return Rows(partial(_event, orders, time_of, categories), order.remark)


def _time(file: str, is_day_first: bool, text: str) -> str:
    """Return the shop's local time, which is read by SHOP_TIME_ZONE."""
    try:
        return iso_time(text, is_day_first)
    except ValueError as error:
        raise SkippedRow(MALFORMED_ROW, f"order_purchase_timestamp {text!r} in {file}: {error}") from None


def _event(
    orders: _Orders, time_of: Callable[[str], str], categories: dict[str, str], row: Sequence[str]
) -> Event:
    order_id, line, product_id, seller, price, freight = row
    ordered = orders.get(order_id)
    if ordered is None:
        raise SkippedRow(NO_ORDER)
    time, person, status = ordered
    if not person:
        raise SkippedRow(NO_CUSTOMER)
    return Event(
        event_type="purchase",
        user_id=person,
        timestamp=time_of(time),
        product_id=product_id,
        product_category=categories.get(product_id) or None,
        price=number(price),
        currency="BRL",
        quantity=1,
        order_id=order_id,
        order_line=line,
        properties=texts(seller_id=seller, freight_value=freight, order_status=status),
    )


def _tables_beside(source: Source) -> Iterator[tuple[str, Table]]:
    for other in source.beside()[:_MOST_FILES]:
        try:
            head = other.head()
            tables = [parquet_table(other)] if head.startswith(PARQUET) else list(csv_tables(other, head))
        except InputError:
            # Somebody else's file, which is none of ours to judge.
            continue
        for table in tables:
            for name, columns in (_ORDERS, _CUSTOMERS, _PRODUCTS):
                if set(columns) <= {key.strip('"') for key in table.names}:
                    yield name, table


def _rows(table: Table, columns: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the rows that have an id, which is the first column.

    Raises:
        InputError: the table is damaged.
    """
    places = [table.names.index(name) for name in columns]
    texts = {place for place, name in zip(places, columns, strict=True) if name in _TEXTS}
    read = 0
    try:
        for _, row in table.rows(places, Skipped(), texts):
            read += 1
            if row[0]:
                yield row
    except FAULTS as error:
        raise named_fault(table.source, error, f"{read} readable rows") from None


def _pairs(table: Table, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((first, second) for first, second in _rows(table, columns))


OLIST = Kind(
    "Olist order items",
    (
        column("order_id"),
        column("order_item_id"),
        column("product_id"),
        column("seller_id", optional=True),
        column("price"),
        column("freight_value", optional=True),
    ),
    _reader,
)
