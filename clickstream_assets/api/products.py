"""`GET /api/products`, `/api/products/{product_id}` and `/api/categories`: what sells, day by day."""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.listing import list_route, listing, range_of
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import ApiError
from clickstream_assets.catalogue import CATEGORY_CONVERSION, LONG, PRODUCT_PERFORMANCE, Column

blueprint = APIBlueprint("products", __name__, url_prefix="/api", tag="Products")

ProductDay = listing(
    blueprint,
    "/products",
    PRODUCT_PERFORMANCE,
    "ProductDay",
    "List a day's products, the most viewed first; equals are ordered by day, the newest first, and product id.",
    order=["rank"],
    newest_day=True,
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
)


ProductTotals = schema_of(
    "ProductTotals",
    (
        Column("days", LONG, "Days on which somebody met it"),
        *(PRODUCT_PERFORMANCE.by_name[name] for name in queries.PRODUCT_TOTALS),
    ),
)


class ProductHistory(Schema):
    """The answer: one product's days."""

    product_id = fields.String(required=True, metadata={"description": "The product"})
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
def list_product_days(asked: queries.Asked, product_id: str) -> dict[str, Any]:
    """List a product's days, the newest first, and their totals."""
    with database().snapshot() as connection:
        found = queries.product(connection, product_id, asked)
    if found is None:
        raise ApiError(
            HTTPStatus.NOT_FOUND, "unknown_product", "There is no day on which anybody met this product."
        )
    days, totals = found
    return {"product_id": product_id, "totals": totals, "days": days}
