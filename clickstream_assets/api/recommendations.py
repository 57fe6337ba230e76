"""`GET /api/recommend/{user_id}` and `POST /api/session/recommend`: products for one shopper.

First what a shopper may go to next, by what they did last (`moment`); then what `product_recommendations` has published
of them; then popular products. `selection` is what these lists share with others.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from apiflask import APIBlueprint, Schema, fields, validators
from flask import Response
from psycopg import Connection
from psycopg.rows import DictRow
from werkzeug.routing import BaseConverter

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.encoding import as_it_is
from clickstream_assets.api.experiments import experiments
from clickstream_assets.api.moment import ServedModel, moment
from clickstream_assets.api.parameters import Flag, Text, path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.api.selection import (
    Asked,
    OfVisitor,
    ProductList,
    Selection,
    SelectionQuery,
    message_of,
)
from clickstream_assets.api.visitor import visitor_now
from clickstream_assets.keys import Scope
from clickstream_assets.recommender.bought import OFTEN
from clickstream_assets.recommender.experiments import Assigned, Serves
from clickstream_assets.recommender.next_product import Act, Met, Pick, Why

blueprint = APIBlueprint("recommendations", __name__, url_prefix="/api", tag="Recommendations")

_ALGORITHMS = {Why.MET: "recent", Why.SESSIONS: "vmis_knn", Why.CATEGORY: "category"}
_ACTS = {
    Act.VIEWED: "you viewed {}",
    Act.ADDED_TO_CART: "you added {} to your cart",
    Act.BOUGHT: "you bought {}",
}
_MOST_PRODUCTS = 100


class AnyTextConverter(BaseConverter):
    """The rest of the path, slashes and line breaks included: a user id may hold any character."""

    part_isolating = False
    regex = r"[\s\S]+"


class _Query(SelectionQuery):
    met = Flag(
        load_default=True,
        metadata={
            "description": "Whether products that the shopper met lately are given again where they are likely to come "
            "next; what they bought just now is given where most of its buyers come back for it"
        },
    )


class InTheMoment(Schema):
    """The shopper's last events, and how far they count."""

    events = fields.Integer(required=True, metadata={"description": "Events of the shopper that count"})
    model_version = fields.String(
        required=True, allow_none=True, metadata={"description": "The model that says what comes next"}
    )
    problem = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "What keeps the last events from counting; null if they count"},
    )


class Recommendations(ProductList):
    """The answer: products for one shopper."""

    user_id = fields.String(required=True, metadata={"description": "The shopper"})
    fallback = fields.Boolean(
        required=True,
        metadata={"description": "Whether nothing of the shopper is known, nor what they did last"},
    )
    in_the_moment = fields.Nested(InTheMoment, required=True)


class _OfVisitor(OfVisitor, _Query):
    pass


@blueprint.get("/recommend")
@needs(Scope.PERSONAL)
@blueprint.input(_OfVisitor, location="query", unknown="raise")
@blueprint.output(Recommendations)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def recommend_to_visitor(query_data: dict[str, Any], **_: object) -> Response:
    """Recommend products to a visitor, as to the person that they are now."""
    return _of_person(query_data, anonymous_id=query_data["anonymous_id"])


@blueprint.get("/recommend/<any_text:user_id>")
@needs(Scope.PERSONAL)
@blueprint.input(path_of(user_id="The shopper"), location="path")
@blueprint.input(_Query, location="query", unknown="raise")
@blueprint.output(Recommendations)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def recommend(user_id: str, query_data: dict[str, Any], **_: object) -> Response:
    """Recommend products to a shopper.

    What they may go to next by what they did in the last minutes comes first, down to a second ago. Then come products
    that are published for the shopper, without the excluded ones; the most popular products that the shopper has not
    met fill the list up to `n`. A shopper who has met nearly everything gets fewer than `n`. A shopper of whom nothing
    is known gets popular products only, and `fallback` is true. A list of one category or price is filled with what is
    popular there.
    """
    return _of_person(query_data, user_id)


def _some_of_them(description: str) -> fields.List:
    return fields.List(
        Text(min_length=1),
        load_default=list,
        validate=validators.Length(
            max=_MOST_PRODUCTS, error=f"must not have more than {_MOST_PRODUCTS} products"
        ),
        metadata={"description": description, "example": []},
    )


class _Session(Schema):
    products = fields.List(
        Text(min_length=1),
        required=True,
        validate=validators.Length(1, _MOST_PRODUCTS, error=f"must have 1 to {_MOST_PRODUCTS} products"),
        metadata={
            "description": "Products that were met, in order, the newest last",
            "example": ["product_1", "product_2"],
        },
    )
    in_cart = _some_of_them("Those of them that are in the cart")
    bought = _some_of_them(
        "Those of them that were bought; given again where most of their buyers come back for them"
    )


@blueprint.post("/session/recommend")
@needs(Scope.READ)
@blueprint.input(_Session, location="json")
@blueprint.input(_Query, location="query", unknown="raise")
@blueprint.output(Recommendations(exclude=["user_id"]), status_code=200)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def recommend_to_session(json_data: dict[str, Any], query_data: dict[str, Any], **_: object) -> Response:
    """Recommend products to a session that the request describes; nobody need be known."""
    in_cart, bought = set(json_data["in_cart"]), set(json_data["bought"])
    times: dict[str, int] = {}
    for product_id in reversed(json_data["products"]):
        times[product_id] = times.get(product_id, 0) + 1
    met = [
        Met(
            product_id,
            Act.BOUGHT
            if product_id in bought
            else Act.ADDED_TO_CART
            if product_id in in_cart
            else Act.VIEWED,
            count,
        )
        for product_id, count in times.items()
    ]
    with database().snapshot() as connection:
        version = queries.served_model(connection, "recommendations")
        of_nobody = queries.Known("", [], [], None, may_be_profiled=True, model_version=version)
        answer = _answer(connection, query_data, of_nobody, met, len(json_data["products"]))
    return as_it_is(answer)


def _of_person(query_data: dict[str, Any], person: str = "", anonymous_id: str | None = None) -> Response:
    with visitor_now(person, anonymous_id) as (connection, visitor):
        known, lately, unit = visitor
        into = experiments().of_unit(connection, unit) if known.may_be_profiled else None
        answer = _answer(connection, query_data, known, lately.met, len(lately.seen), into)
    noted = experiments().note(
        into,
        unit,
        [item["product_id"] for item in answer["items"]],
        answer["model_version"],
        answer["in_the_moment"]["model_version"],
    )
    return as_it_is({"user_id": person or unit, **answer, "experiment": noted})


def _answer(
    connection: Connection[DictRow],
    query_data: dict[str, Any],
    known: queries.Known,
    met: list[Met],
    events: int,
    into: Assigned | None = None,
) -> dict[str, Any]:
    now, model = moment(), moment().model
    serves = into.arm.serves if into else Serves.CONTROL
    if serves in (Serves.SESSION, Serves.POPULARITY):
        known = replace(known, published=[])
    elif into and (algorithm := into.arm.lists_of):
        its = queries.experiment_list(connection, algorithm, known.person)
        version = its[0]["model_version"] if its else known.model_version
        known = replace(known, published=its, model_version=version)
    met_lately = {each.product_id for each in met}
    selection = Selection(connection, Asked.of(query_data), _not_wanted_again(connection, met))
    if model and serves not in (Serves.LISTS, Serves.POPULARITY):
        selection.add(_of_session(model, met, selection, query_data["met"]))
    is_known = known.met is not None or len(selection) > 0
    selection.add(
        {**row, "score": row["confidence_score"], "source": "personal"}
        for row in known.published
        if row["product_id"] not in met_lately
    )
    selection.add_popular(known.model_version, met_lately | set(known.met or ()))
    items = selection.items()
    problem = now.problem
    return {
        "fallback": not is_known,
        "message": message_of(_special(items, is_known, is_any_wanted=not selection.wanted), problem),
        "model_version": known.model_version,
        "experiment": None,
        "in_the_moment": {
            "events": events,
            "model_version": model.version if model else None,
            "problem": problem,
        },
        "items": items,
    }


def _not_wanted_again(connection: Connection[DictRow], met: list[Met]) -> set[str]:
    """Return what was bought just now, but for what most of its buyers come back for."""
    bought = {each.product_id for each in met if each.act is Act.BOUGHT}
    rates = queries.repeat_rates(connection, bought) if bought else {}
    return {product_id for product_id in bought if rates.get(product_id, 0.0) < OFTEN}


def _of_session(
    model: ServedModel, met: list[Met], selection: Selection, with_met: bool
) -> Iterator[dict[str, Any]]:
    """Yield what may come next by the visit itself; what is only popular is left to the lists that follow."""
    for pick in model.ranks.rank(met, selection.most, selection.left_out, without_met=not with_met):
        if pick.why is not Why.POPULAR:
            yield {
                "product_id": pick.product_id,
                "score": pick.score,
                "confidence_score": pick.score,
                "algorithm": _ALGORITHMS[pick.why],
                "reason": _reason(pick),
                "reason_product_id": None if pick.why is Why.MET or pick.of is None else pick.of.product_id,
                "source": "session",
                "model_version": model.version,
            }


def _reason(pick: Pick) -> str:
    assert pick.of is not None
    act = _ACTS[pick.of.act]
    if pick.why is Why.MET:
        return act.format("this").capitalize()
    because = act.format(pick.of.product_id)
    if pick.why is Why.SESSIONS:
        return f"Because {because}, and others went on to this"
    return f"Because {because}, which is of the same category"


def _special(items: list[dict[str, Any]], is_known: bool, *, is_any_wanted: bool) -> str | None:
    if not items and not is_any_wanted:
        return "There is no product left that is as it was asked for, not excluded and new to this user."
    if not is_known:
        return "Nothing is published for this user; these are the most popular products."
    if not items:
        return "There is no product left that this user has not met and that is not excluded."
    return None
