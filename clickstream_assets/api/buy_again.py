"""`GET /api/buy-again/{user_id}`: what a shopper has bought and may buy again."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from apiflask import APIBlueprint, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.moment import moment
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.api.selection import (
    Asked,
    OfVisitor,
    ProductList,
    Selection,
    SelectionQuery,
    message_of,
    nothing_published,
)
from clickstream_assets.api.visitor import visitor_now
from clickstream_assets.catalogue.units import SECOND
from clickstream_assets.keys import Scope
from clickstream_assets.recommender.bought import Again, rank_again, with_purchases

blueprint = APIBlueprint("buy_again", __name__, url_prefix="/api", tag="Buying again")


class BuyAgain(ProductList):
    """The answer: products that one shopper has bought."""

    user_id = fields.String(required=True, metadata={"description": "The shopper"})


class _OfVisitor(OfVisitor, SelectionQuery):
    pass


@blueprint.get("/buy-again")
@needs(Scope.PERSONAL)
@blueprint.input(_OfVisitor, location="query", unknown="raise")
@blueprint.output(BuyAgain)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def buy_again_of_visitor(query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List what a visitor has bought and may buy again, as the person that they are now."""
    return _answer(query_data, anonymous_id=query_data["anonymous_id"])


@blueprint.get("/buy-again/<any_text:user_id>")
@needs(Scope.PERSONAL)
@blueprint.input(path_of(user_id="The shopper"), location="path")
@blueprint.input(SelectionQuery, location="query", unknown="raise")
@blueprint.output(BuyAgain)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def buy_again(user_id: str, query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List what a shopper has bought and may buy again: by how often, how lately, and which products are bought again.

    A purchase counts from the second in which it is made. Nothing else fills the list up.
    """
    return _answer(query_data, user_id)


def _answer(query_data: dict[str, Any], person: str = "", anonymous_id: str | None = None) -> dict[str, Any]:
    with visitor_now(person, anonymous_id) as (connection, visitor):
        learnt = queries.buying_again(connection)
        if learnt is None:
            raise nothing_published()
        version, parameters = learnt
        known = visitor.known
        before = queries.bought_products(connection, known.person) if known.may_be_profiled else []
        day_of = _clock(database().settings.shop_time_zone)
        bought = with_purchases(before, visitor.lately.purchases, day_of)
        rates = queries.repeat_rates(connection, [each.product_id for each in bought])
        again = rank_again(bought, rates, parameters["usual_rate"], parameters["half_life_days"])
        selection = Selection(connection, Asked.of(query_data))
        selection.add(_rows(again, day_of, version))
        items = selection.items()
    return {
        "user_id": person or visitor.person,
        "message": message_of(_special(known, bool(bought), bool(items)), moment().problem),
        "model_version": version,
        "experiment": None,
        "items": items,
    }


def _clock(zone: str) -> Callable[[int], date]:
    """Return the function from a time in microseconds since 1970 to the shop's day."""
    return lambda time: datetime.fromtimestamp(time / SECOND, ZoneInfo(zone)).date()


def _rows(again: Sequence[Again], day_of: Callable[[int], date], version: str) -> Iterator[dict[str, Any]]:
    for bought, score in again:
        last = day_of(bought.last)
        on = f"on {bought.days} days, last on {last}" if bought.days > 1 else f"on {last}"
        yield {
            "product_id": bought.product_id,
            "score": score,
            "confidence_score": score,
            "algorithm": "buy_again",
            "reason": f"You bought this {on}",
            "source": "bought",
            "model_version": version,
        }


def _special(known: queries.Known, has_bought: bool, is_listed: bool) -> str | None:
    if not known.may_be_profiled:
        return "This user does not want what they did to be looked at."
    if not has_bought:
        return "This user has bought nothing that is known."
    if not is_listed:
        return "This user has bought nothing that is as it was asked for, and not excluded."
    return None
