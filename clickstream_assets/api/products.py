"""`GET /api/products`, `/api/product-totals`, `/api/products/{product_id}` and `/api/categories`: what sells.

And `GET /api/catalogue`: what the shop sells.
"""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields, validators

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.listing import (
    SHOWN_OF_PRODUCT,
    AnyFilter,
    filters_of,
    list_route,
    listing,
    named,
    range_of,
)
from clickstream_assets.api.parameters import Choice, Text, path_of
from clickstream_assets.api.problems import ApiError
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import CATEGORY_CONVERSION, LONG, PRODUCT_PERFORMANCE, PRODUCTS, Column
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("products", __name__, url_prefix="/api", tag="Products")

_ASKED_FOR = 100

ProductDay = listing(
    blueprint,
    "/products",
    PRODUCT_PERFORMANCE,
    "ProductDay",
    "List a day's products, the most viewed first; equals are ordered by day, the newest first, and product id.",
    order=["rank"],
    newest_day=True,
    with_names=True,
    scope=Scope.READ,
)

listing(
    blueprint,
    "/categories",
    CATEGORY_CONVERSION,
    "CategoryDay",
    "List a day's categories, those that convert best first; equals are ordered by day and category.",
    order=["conversion_rate DESC"],
    limit=100,
    newest_day=True,
    scope=Scope.READ,
)


Product = listing(
    blueprint,
    "/catalogue",
    PRODUCTS,
    "Product",
    "List what the shop sells, by product id: names, categories, prices, pictures and pages.",
    limit=100,
    filters={
        "product_id": AnyFilter(
            "product_id",
            fields.List(
                Text(min_length=1),
                load_default=list,
                validate=validators.Length(
                    max=_ASKED_FOR, error=f"must not have more than {_ASKED_FOR} products"
                ),
                metadata={"description": "Only these products; may be given several times"},
            ),
        )
    },
    scope=Scope.READ,
)

ProductTotals = schema_of(
    "ProductTotals",
    (
        Column("days", LONG, "Days on which somebody met it"),
        *(PRODUCT_PERFORMANCE.by_name[name] for name in queries.PRODUCT_TOTALS),
    ),
)


ProductInAll = schema_of(
    "ProductInAll",
    (
        PRODUCT_PERFORMANCE.by_name["product_id"],
        Column("days", LONG, "Days on which somebody met it"),
        *(PRODUCT_PERFORMANCE.by_name[name] for name in queries.PRODUCT_TOTALS),
    ),
    **SHOWN_OF_PRODUCT,
)


class ProductsInAll(Schema):
    """The answer: products, each with the sums of its days."""

    products = fields.List(fields.Nested(ProductInAll), required=True)


@list_route(
    blueprint,
    "/product-totals",
    ProductsInAll,
    filters={
        name: asked_for
        for name, asked_for in filters_of(PRODUCT_PERFORMANCE).items()
        if name in ("date", "since", "until", "category")
    },
    parameters={
        "sort": Choice(*queries.PRODUCT_SUMS, load_default="view_count", metadata={"description": "Sort by"}),
        "order": Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"}),
    },
    limit=100,
)
@needs(Scope.READ)
def list_product_totals(asked: queries.Asked, sort: str, order: str) -> dict[str, Any]:
    """List products with the sums of their days, the most viewed first; equals are ordered by product id.

    Of all days, or of those that are asked for. A day counts whose category is the one asked for.
    """
    terms = [f"{sort} DESC" if order == "desc" else sort, "product_id"]
    with database().snapshot() as connection:
        return {"products": named(connection, queries.product_totals(connection, terms, asked))}


class ProductHistory(Schema):
    """The answer: one product's days."""

    product_id = fields.String(required=True, metadata={"description": "The product"})
    product = fields.Nested(
        Product,
        required=True,
        allow_none=True,
        metadata={"description": "What the shop says of it; null where neither feed nor event names it"},
    )
    totals = fields.Nested(
        ProductTotals,
        required=True,
        metadata={"description": "Of all days that were asked for, on whichever page they are"},
    )
    days = fields.List(fields.Nested(ProductDay), required=True)


@list_route(
    blueprint,
    "/products/<any_text:product_id>",
    ProductHistory,
    filters=range_of(PRODUCT_PERFORMANCE),
    path=path_of(product_id="The product"),
    problems=[404],
)
@needs(Scope.READ)
def list_product_days(asked: queries.Asked, product_id: str) -> dict[str, Any]:
    """Say what a product is, and list its days, the newest first, with their totals."""
    with database().snapshot() as connection:
        days, totals = queries.product_days(connection, product_id, asked)
        days = named(connection, days)
        product = queries.products(connection, [product_id]).get(product_id)
        is_known = product or days.rows or queries.is_met(connection, product_id)
    if not is_known:
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            "unknown_product",
            "The shop does not say what it is, and there is no day on which anybody met it.",
        )
    return {"product_id": product_id, "product": product, "totals": totals, "days": days}
