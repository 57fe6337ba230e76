"""Lists that are the same for everybody: what is like a product, bought with it, popular or trending."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, fields
from psycopg import Connection
from psycopg.rows import DictRow

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.api.selection import (
    Asked,
    ProductList,
    Selection,
    SelectionQuery,
    nothing_published,
)
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("product_lists", __name__, url_prefix="/api", tag="Related and popular products")

_SIMILAR_REASON = "Shoppers who care for {} care for this"
_TOGETHER_REASON = "In {together:,} of the {orders:,} orders that had {product}"
_CATEGORY_REASON = "Popular, and of the same category as {}"


class RelatedProducts(ProductList):
    """The answer: products that are related to another."""

    product_id = fields.String(required=True, metadata={"description": "The product that was asked about"})


@blueprint.get("/item-to-item/<any_text:product_id>")
@needs(Scope.READ)
@blueprint.input(path_of(product_id="The product"), location="path")
@blueprint.input(SelectionQuery, location="query", unknown="raise")
@blueprint.output(RelatedProducts)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def item_to_item(product_id: str, query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List products that the shoppers who care for a product care for, too.

    By the cosine of their shoppers' interactions. Then comes what is popular in the product's category, and then what
    is popular anywhere.
    """
    with database().snapshot() as connection:
        version = _version(connection, product_id)
        selection = Selection(connection, Asked.of(query_data), {product_id})
        related = queries.related_products(connection, "item_to_item", product_id)
        if related:
            selection.add(_similar(product_id, related, version))
        category = queries.products(connection, [product_id]).get(product_id, {}).get("category")
        if category:
            selection.add_popular_of(
                category,
                version,
                algorithm="category",
                reason=_CATEGORY_REASON.format(product_id),
                reason_product_id=product_id,
            )
        selection.add_popular(version)
        return {"product_id": product_id, **_answer(selection, version)}


@blueprint.get("/bought-together/<any_text:product_id>")
@needs(Scope.READ)
@blueprint.input(path_of(product_id="The product"), location="path")
@blueprint.input(SelectionQuery, location="query", unknown="raise")
@blueprint.output(RelatedProducts)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def bought_together(product_id: str, query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List products that orders have together with a product: in two orders or more, and more often than by chance.

    What was not bought together fills no list up.
    """
    with database().snapshot() as connection:
        version = _version(connection, product_id)
        selection = Selection(connection, Asked.of(query_data), {product_id})
        related = queries.related_products(connection, "bought_together", product_id)
        if related:
            selection.add(_together(product_id, related, version))
        message = (
            None if len(selection) else "Orders have none that was asked for together with this product."
        )
        return {"product_id": product_id, **_answer(selection, version, message)}


@blueprint.get("/popular")
@needs(Scope.READ)
@blueprint.input(SelectionQuery, location="query", unknown="raise")
@blueprint.output(ProductList)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def popular(query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List the most popular products: by how much all shoppers' views, additions to carts and purchases say."""
    return _popular(query_data)


@blueprint.get("/trending")
@needs(Scope.READ)
@blueprint.input(SelectionQuery, location="query", unknown="raise")
@blueprint.output(ProductList)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def trending(query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List trending products: by popularity, times their share of the shoppers of TREND_DAYS over that of all."""
    return _popular(query_data, by_trend=True)


def _popular(query_data: dict[str, Any], *, by_trend: bool = False) -> dict[str, Any]:
    with database().snapshot() as connection:
        version = queries.served_model(connection, "recommendations")
        selection = Selection(connection, Asked.of(query_data))
        selection.add_popular(version, by_trend=by_trend)
        return _answer(selection, version)


def _version(connection: Connection[DictRow], product_id: str) -> str | None:
    """Return the version of the model that is served.

    Raises:
        ApiError: nothing is known of the product, or nothing is published at all.
    """
    version = queries.served_model(connection, "recommendations")
    if not queries.is_product(connection, product_id):
        if version is None:
            raise nothing_published()
        raise ApiError(
            HTTPStatus.NOT_FOUND, "unknown_product", "The shop does not name it, and nobody met it."
        )
    return version


def _answer(selection: Selection, version: str | None, message: str | None = None) -> dict[str, Any]:
    items = selection.items()
    if not items and message is None:
        message = "There is no product that is as it was asked for, and not excluded."
    return {"message": message, "model_version": version, "experiment": None, "items": items}


def _similar(product_id: str, related: dict[str, Any], version: str | None) -> Iterator[dict[str, Any]]:
    for other, score in zip(related["related_ids"], related["scores"], strict=True):
        yield {
            "product_id": other,
            "score": score,
            "confidence_score": score,
            "algorithm": "item_knn",
            "reason": _SIMILAR_REASON.format(product_id),
            "reason_product_id": product_id,
            "source": "similar",
            "model_version": version,
        }


def _together(product_id: str, related: dict[str, Any], version: str | None) -> Iterator[dict[str, Any]]:
    lists = (related[name] for name in ("related_ids", "scores", "together"))
    for other, score, together in zip(*lists, strict=True):
        yield {
            "product_id": other,
            "score": score,
            "confidence_score": together / related["orders"],
            "algorithm": "bought_together",
            "reason": _TOGETHER_REASON.format(
                together=together, orders=related["orders"], product=product_id
            ),
            "reason_product_id": product_id,
            "source": "together",
            "model_version": version,
        }
