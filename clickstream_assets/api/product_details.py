"""Details of the products that answers name: name, category, price, picture and page."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from apiflask import fields
from psycopg import Connection
from psycopg.rows import DictRow

from clickstream_assets.api.fields import field_of
from clickstream_assets.api.queries import products
from clickstream_assets.catalogue import PRODUCTS

DETAILS = ("name", "category", "price", "currency", "image", "link", "available")
"""Columns of PRODUCTS that answers have of their products; null where nothing is known."""


def detail_fields() -> tuple[fields.Field, ...]:
    """Return the fields of DETAILS, in their order, for the schema of a product in an answer."""
    return tuple(field_of(PRODUCTS.by_name[name]) for name in DETAILS)


def with_details(
    connection: Connection[DictRow], items: Iterable[Mapping[str, Any]], names: Sequence[str] = DETAILS
) -> list[dict[str, Any]]:
    """Return items, which have a `product_id`, with some of DETAILS of their products after their own fields."""
    rows = list(items)
    known = products(connection, [row["product_id"] for row in rows])
    nothing = dict.fromkeys(names)
    details = {product_id: _details_of(product, names) for product_id, product in known.items()}
    return [{**row, **details.get(row["product_id"], nothing)} for row in rows]


def _details_of(product: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    values = {name: product[name] for name in names}
    # As JSON has it.
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}
