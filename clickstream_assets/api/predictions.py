"""`GET /api/predictions` and `/api/predictions/{person_id}`: how probable it is that persons buy, and sessions do."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.listing import listing
from clickstream_assets.api.moment import moment
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.recent import Seen
from clickstream_assets.api.scopes import needs
from clickstream_assets.api.visitor import visitor_now
from clickstream_assets.catalogue import PERSON_PREDICTIONS
from clickstream_assets.keys import Scope
from clickstream_assets.predictions.sessions import SessionEvent, session_probability
from clickstream_assets.recommender.next_product import Act

blueprint = APIBlueprint("predictions", __name__, url_prefix="/api", tag="Predictions")

_TYPES = {Act.VIEWED: "view", Act.ADDED_TO_CART: "add_to_cart", Act.BOUGHT: "purchase"}


listing(
    blueprint,
    "/predictions",
    PERSON_PREDICTIONS,
    "ProbableBuyer",
    """List persons by how probable it is that they buy, the most probable first.

    Those who bought within a year or were there within 28 days, but not those who refuse to be profiled.
    """,
    order=["probability_28_days DESC"],
    limit=100,
    scope=Scope.PERSONAL,
)


class LiveSession(Schema):
    """The answer's part on the session that is under way."""

    probability = fields.Float(
        required=True,
        metadata={"description": "Probability that it still buys; after a purchase, that it buys again"},
    )
    reasons = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "What speaks most for or against it, in words"},
    )
    events = fields.Integer(required=True, metadata={"description": "Product events of it so far"})
    model_version = fields.String(required=True, metadata={"description": "Version of the model"})


PersonPrediction = schema_of(
    "PersonPrediction",
    PERSON_PREDICTIONS.columns,
    as_of=fields.Date(
        required=True,
        allow_none=True,
        metadata={"description": "The shop's day; what they did up to its end counts, but in `session`"},
    ),
    model_version=fields.String(
        required=True, allow_none=True, metadata={"description": "Version of the models of persons"}
    ),
    session=fields.Nested(
        LiveSession,
        required=True,
        allow_none=True,
        metadata={"description": "Their session that is under way, down to a second ago; null without one"},
    ),
    problem=fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "What keeps their session from being judged; null if nothing does"},
    ),
)


@blueprint.get("/predictions/<any_text:person_id>")
@needs(Scope.PERSONAL)
@blueprint.input(
    path_of(person_id="A user id, or `anonymous:` and a visitor's id, or `session:` and a session's"),
    location="path",
)
@blueprint.output(PersonPrediction)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def person_prediction(person_id: str, **_: object) -> dict[str, Any]:
    """Say how probable it is that a person buys within 7 and within 28 days, and in their session now, and why.

    Of those who bought within a year, were there within 28 days or are there now. A probability is null where no model
    foretold what it had not seen better than the base rate and a simple rule.
    """
    now = moment()
    with visitor_now(person_id) as (connection, visitor):
        agreed = visitor.known.may_be_profiled
        found = queries.person_prediction(connection, visitor.known.person) if agreed else None
    session = _session(visitor.lately.session(now.session_gap))
    if found is None and session is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_person", "There is no prediction of this person.")
    nothing = dict.fromkeys(("probability_7_days", "probability_28_days", "as_of", "model_version"), None)
    return {
        "reasons": [],
        **nothing,
        **(found or {}),
        "user_id": person_id,
        "session": session,
        "problem": now.problem,
    }


def _session(seen: Sequence[Seen]) -> dict[str, Any] | None:
    """Judge the events of a session, in order; None without any, or without a model."""
    served = moment().session_model
    if not seen or served is None:
        return None
    events = [
        SessionEvent(_TYPES[each.met.act], each.met.product_id, each.named_category, each.met.price)
        for each in seen
    ]
    judged = session_probability(served.model, events)
    return {
        "probability": round(judged.probability, 3),
        "reasons": judged.reasons,
        "events": len(events),
        "model_version": served.version,
    }
