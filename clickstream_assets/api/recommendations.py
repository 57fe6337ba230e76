"""`GET /api/recommend/{user_id}`: products for one shopper.

From what `product_recommendations` has published of them, and popular products they have not met (`queries`).
"""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields, validators
from werkzeug.routing import BaseConverter

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.parameters import QueryParameters, Text, WholeNumber, path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.product_details import detail_fields, with_details

blueprint = APIBlueprint("recommendations", __name__, url_prefix="/api", tag="Recommendations")

_POPULAR_REASON = "Popular with other shoppers"


class AnyTextConverter(BaseConverter):
    """The rest of the path, slashes and line breaks included: a user id may hold any character."""

    part_isolating = False
    regex = r"[\s\S]+"


class _Query(QueryParameters):
    n = WholeNumber(1, 100, load_default=10, metadata={"description": "How many products"})
    exclude = fields.List(
        Text(),
        load_default=list,
        validate=validators.Length(max=100, error="must not be given more than 100 times"),
        metadata={"description": "Products to leave out; repeated, or with commas between them"},
    )


class RecommendedProduct(Schema):
    """One product."""

    product_id = fields.String(required=True, metadata={"description": "The product"})
    rank = fields.Integer(required=True, metadata={"description": "Place in this list, from 1"})
    score = fields.Float(
        required=True, metadata={"description": "Comparable among the products of one algorithm"}
    )
    confidence_score = fields.Float(
        required=True,
        allow_none=True,
        metadata={
            "description": "The score of a published recommendation; null for a product that fills the list"
        },
    )
    algorithm = fields.String(required=True, metadata={"description": "als, item_knn or popularity"})
    reason = fields.String(required=True, metadata={"description": "Why, in words for the shopper"})
    source = fields.String(
        required=True,
        validate=validators.OneOf(["personal", "popular"]),
        metadata={"description": "personal: published for this shopper; popular: filled in"},
    )
    name, category, price, currency, image, link, available = detail_fields()


class Recommendations(Schema):
    """The answer: products for one shopper."""

    user_id = fields.String(required=True, metadata={"description": "The shopper"})
    fallback = fields.Boolean(required=True, metadata={"description": "Whether the shopper is not known"})
    message = fields.String(
        required=True, allow_none=True, metadata={"description": "What is special about this answer"}
    )
    model_version = fields.String(
        required=True, allow_none=True, metadata={"description": "The model that is being served"}
    )
    items = fields.List(
        fields.Nested(RecommendedProduct), required=True, metadata={"description": "Best first"}
    )


class _OfVisitor(_Query):
    anonymous_id = Text(
        required=True,
        min_length=1,
        metadata={"description": "The visitor; once they are tied to a user, that user's products are given"},
    )


@blueprint.get("/recommend")
@blueprint.input(_OfVisitor, location="query", unknown="raise")
@blueprint.output(Recommendations)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def recommend_to_visitor(query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """Recommend products to a visitor, as to the person that they are now."""
    return _answer(query_data, anonymous_id=query_data["anonymous_id"])


@blueprint.get("/recommend/<any_text:user_id>")
@blueprint.input(path_of(user_id="The shopper"), location="path")
@blueprint.input(_Query, location="query", unknown="raise")
@blueprint.output(Recommendations)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def recommend(user_id: str, query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """Recommend products to a shopper.

    Products that are published for the shopper come first, without the excluded ones; the most popular products
    that the shopper has not met fill the list up to `n`. A shopper who has met nearly everything gets fewer than
    `n`. A shopper who is not known gets popular products only, and `fallback` is true.
    """
    return _answer(query_data, user_id)


def _answer(
    query_data: dict[str, Any], user_id: str = "", *, anonymous_id: str | None = None
) -> dict[str, Any]:
    excluded = {part for value in query_data["exclude"] for part in (value, *value.split(","))}
    with database().snapshot() as connection:
        if anonymous_id is not None:
            user_id = queries.resolved_visitor(connection, anonymous_id)
        found = queries.recommendations(connection, user_id, query_data["n"], excluded)
        items = with_details(connection, _items(found))
    if not found.anything_published:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "nothing_published",
            "No recommendations have been published yet.",
        )
    return {
        "user_id": user_id,
        "fallback": not found.known_user,
        "message": _message(found),
        "model_version": found.model_version,
        "items": [{**item, "rank": rank} for rank, item in enumerate(items, start=1)],
    }


def _items(found: queries.Recommendations) -> list[dict[str, Any]]:
    return [
        *({**row, "score": row["confidence_score"], "source": "personal"} for row in found.personal),
        *(
            {
                **row,
                "confidence_score": None,
                "algorithm": "popularity",
                "reason": _POPULAR_REASON,
                "source": "popular",
            }
            for row in found.popular
        ),
    ]


def _message(found: queries.Recommendations) -> str | None:
    if not found.known_user:
        return "Nothing is published for this user; these are the most popular products."
    if not found.personal and not found.popular:
        return "There is no product left that this user has not met and that is not excluded."
    return None
