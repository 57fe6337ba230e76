"""`GET /api/persons/{person_id}`: which ids are one person."""

from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.pseudonyms import kept_person, persons_as_sent, valued
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue.who import kind_and_id, person_of_visitor
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("persons", __name__, url_prefix="/api", tag="Persons")


class TiedId(Schema):
    """An anonymous id that came with the person's user id."""

    anonymous_id = fields.String(required=True, metadata={"description": "The id"})
    first_tied_at = UtcTime(
        required=True,
        allow_none=True,
        metadata={"description": "When it first came with the user id; null of a visitor without one"},
    )
    is_latest = fields.Boolean(
        required=True, metadata={"description": "Whether events with it alone are this person's now"}
    )


class Person(Schema):
    """The answer: a person, and the ids that are theirs."""

    person_id = fields.String(
        required=True,
        metadata={"description": "The person, as `user_id` of sessions, carts, segments and recommendations"},
    )
    anonymous_ids = fields.List(
        fields.Nested(TiedId), required=True, metadata={"description": "By first_tied_at"}
    )


@blueprint.get("/persons/<any_text:person_id>")
@needs(Scope.PERSONAL)
@blueprint.input(
    path_of(person_id="A user id, or `anonymous:` and a visitor's id, or `session:` and a session's"),
    location="path",
)
@blueprint.output(Person)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def person(person_id: str, **_: object) -> dict[str, Any]:
    """Say which ids are one person.

    A visitor who is tied to a user by now is that user.
    """
    with database().snapshot() as connection:
        kept = valued(connection, kept_person(person_id))
        found = queries.person(connection, kept)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "unknown_person", "There is nothing of this person.")
        if kept != person_id:
            # Who asks by an id knows ids, and who asks by a pseudonym is told no more.
            own = [person_of_visitor(each["anonymous_id"]) for each in found["anonymous_ids"]]
            sent = persons_as_sent(connection, [found["person_id"], *own])
            for each, visitor in zip(found["anonymous_ids"], own, strict=True):
                each["anonymous_id"] = kind_and_id(sent[visitor])[1]
            found["person_id"] = sent[found["person_id"]]
    return found
