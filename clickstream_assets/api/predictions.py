"""`GET /api/predictions/{person_id}`: how probable it is that a person buys."""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.catalogue import PERSON_PREDICTIONS

blueprint = APIBlueprint("predictions", __name__, url_prefix="/api", tag="Predictions")

PersonPrediction = schema_of(
    "PersonPrediction",
    PERSON_PREDICTIONS.columns,
    as_of=fields.Date(
        required=True, metadata={"description": "The shop's day; what they did up to its end counts"}
    ),
    model_version=fields.String(required=True, metadata={"description": "Version of the models"}),
)


@blueprint.get("/predictions/<any_text:person_id>")
@blueprint.input(
    path_of(person_id="A user id, or `anonymous:` and a visitor's id, or `session:` and a session's"),
    location="path",
)
@blueprint.output(PersonPrediction)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def person_prediction(person_id: str, **_: object) -> dict[str, Any]:
    """Say how probable it is that a person buys within 7 and within 28 days, and why.

    Of those who bought within a year or were there within 28 days. A probability is null where no model foretold what
    it had not seen better than the base rate and the time since the last purchase.
    """
    with database().snapshot() as connection:
        found = queries.person_prediction(connection, person_id)
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_person", "There is no prediction of this person.")
    return found
