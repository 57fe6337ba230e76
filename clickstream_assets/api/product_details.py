"""Details of the products that answers name: name, category, price, picture and page."""

import re
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
    """Return items, which have a `product_id`, with some of DETAILS of their products after their own fields.

    A `reason` that speaks of the product `reason_product_id` calls it by its name, where that is known.
    """
    rows = list(items)
    spoken_of = {row["reason_product_id"] for row in rows if row.get("reason_product_id")}
    known = products(connection, {row["product_id"] for row in rows} | spoken_of)
    nothing = dict.fromkeys(names)
    details = {product_id: _details_of(product, names) for product_id, product in known.items()}
    called = {product_id: known[product_id]["name"] for product_id in spoken_of if product_id in known}
    return [{**row, **_reason_of(row, called), **details.get(row["product_id"], nothing)} for row in rows]


def _reason_of(row: Mapping[str, Any], called: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the reason of a row with the name in place of the id; nothing where there is no name."""
    product_id = row.get("reason_product_id")
    name = called.get(product_id) if product_id else None
    if not product_id or not name:
        return {}
    # The id as a word of its own: one such as 5 may be within another.
    its_id = re.compile(rf"(?<!\S){re.escape(product_id)}(?![^\s,])")
    return {"reason": its_id.sub(lambda _: name, row["reason"], count=1)}


def _details_of(product: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    values = {name: product[name] for name in names}
    # As JSON has it.
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}
