"""`GET /api/products`, `/api/products/{product_id}` and `/api/categories`: what sells, day by day."""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import daily_queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.lists import DaysParameters, RangeParameters, list_route, row_limit
from clickstream_assets.api.parameters import Choice, Text
from clickstream_assets.api.problems import ServiceProblem
from clickstream_assets.catalogue import CATEGORY_CONVERSION, PRODUCT_PERFORMANCE

blueprint = APIBlueprint("products", __name__, url_prefix="/api", tag="Products")

ProductDay = schema_of("ProductDay", PRODUCT_PERFORMANCE.columns)


class _ProductsQuery(DaysParameters):
    category = Text(metadata={"description": "Only products of this category"})
    sort = Choice(*daily_queries.PRODUCT_SORTS, load_default="rank", metadata={"description": "Sort by"})
    order = Choice("asc", "desc", load_default="asc", metadata={"description": "Sort order"})


class Products(Schema):
    """The answer: products on days."""

    products = fields.List(fields.Nested(ProductDay), required=True)


@list_route(blueprint, "/products", _ProductsQuery, Products)
def list_products(query_data: dict[str, Any]) -> dict[str, Any]:
    """List a day's products, the most viewed first; equals are ordered by day, the newest first, and product id."""
    with database().snapshot() as connection:
        return {"products": daily_queries.products(connection, **query_data)}


class _Path(Schema):
    product_id = Text(required=True, metadata={"description": "The product", "minLength": 1})


class ProductTotals(Schema):
    """A product's days together."""

    days = fields.Integer(required=True, metadata={"description": "Days on which somebody met it"})
    view_count = fields.Integer(required=True, metadata={"description": "Events of type view"})
    add_to_carts = fields.Integer(required=True, metadata={"description": "Events of type add_to_cart"})
    purchases = fields.Integer(required=True, metadata={"description": "Events of type purchase"})
    quantity = fields.Integer(required=True, metadata={"description": "Units purchased"})
    revenue = fields.Float(
        required=True, metadata={"description": "Sum of price times quantity of the purchases"}
    )
    conversion_rate = fields.Float(
        required=True, metadata={"description": "Purchases per hundred views; 0 without views"}
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
    blueprint, "/products/<any_text:product_id>", RangeParameters, ProductHistory, path=_Path, problems=[404]
)
def list_product_days(product_id: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """List a product's days, the newest first, and their totals."""
    with database().snapshot() as connection:
        found = daily_queries.product(connection, product_id, **query_data)
    if found.totals is None:
        raise ServiceProblem(
            HTTPStatus.NOT_FOUND, "unknown_product", "There is no day on which anybody met this product."
        )
    return {"product_id": product_id, "totals": found.totals, "days": found.days}


class _CategoriesQuery(DaysParameters):
    limit = row_limit(100)
    category = Text(metadata={"description": "Only this category"})
    sort = Choice(
        *daily_queries.CATEGORY_SORTS, load_default="conversion_rate", metadata={"description": "Sort by"}
    )
    order = Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"})


class Categories(Schema):
    """The answer: categories on days."""

    categories = fields.List(
        fields.Nested(schema_of("CategoryDay", CATEGORY_CONVERSION.columns)), required=True
    )


@list_route(blueprint, "/categories", _CategoriesQuery, Categories)
def list_categories(query_data: dict[str, Any]) -> dict[str, Any]:
    """List a day's categories, those that convert best first; equals are ordered by day and category."""
    with database().snapshot() as connection:
        return {"categories": daily_queries.categories(connection, **query_data)}
