"""`GET /api/segments`, `/api/segments/{user_id}`, `/api/segment-counts`, `/api/segment-moves`: shoppers' segments."""

from dataclasses import replace
from datetime import date, timedelta
from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields, validators

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.listing import Filter, list_route, range_of
from clickstream_assets.api.parameters import Choice, Day, Text, WholeNumber, path_of
from clickstream_assets.api.problems import ApiError
from clickstream_assets.api.pseudonyms import kept_id, kept_person
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import ACTIVITY_SEGMENTS, CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.catalogue.rfm import DEFINITIONS, RFM_SEGMENT_NAMES
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("segments", __name__, url_prefix="/api", tag="Segments")

_KINDS = ("activity", "rfm", "carts")
_COLUMNS = {column.name: column for column in (*CUSTOMER_SEGMENTS.columns, *USER_SEGMENTS.columns)}

UserDay = schema_of(
    "UserDay",
    (
        _COLUMNS[name] if name in USER_SEGMENTS.key else replace(_COLUMNS[name], nullable=True)
        for name in queries.USER_DAY_COLUMNS
    ),
)


class UserHistory(Schema):
    """The answer: one shopper's days."""

    user_id = fields.String(required=True, metadata={"description": "The shopper"})
    segments = fields.List(fields.Nested(UserDay), required=True)


@list_route(
    blueprint,
    "/segments/<any_text:user_id>",
    UserHistory,
    filters=range_of(USER_SEGMENTS),
    path=path_of(user_id="The shopper"),
    problems=[404],
)
@needs(Scope.PERSONAL)
def list_user_segments(asked: queries.Asked, user_id: str) -> dict[str, Any]:
    """List a shopper's segments, the newest day first.

    `segment` and the counts after it are null on days on which the shopper was not there; `rfm_segment` and the
    columns after it on days on which the shopper was not a customer.
    """
    with database().snapshot() as connection:
        found = queries.user_segments(connection, kept_person(user_id), asked)
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_user", "There are no segments of this user.")
    days = [row | {"user_id": user_id} for row in found.rows]
    return {"user_id": user_id, "segments": replace(found, rows=days)}


class SegmentCount(Schema):
    """The number of users in a segment."""

    report_date = fields.Date(required=True, metadata={"description": "The shop's day"})
    kind = fields.String(
        required=True,
        validate=validators.OneOf(_KINDS),
        metadata={
            "description": "activity: what they did that day; rfm: their orders up to then; carts: left ones. "
            "A user is in one segment of a kind at most"
        },
    )
    segment = fields.String(
        required=True, metadata={"description": f"The segment. Of kind rfm: {DEFINITIONS}"}
    )
    users = fields.Integer(
        required=True, metadata={"description": "Users in it; segments without are left out"}
    )


class DaySegments(Schema):
    """The answer: the segments of a day, or the users of one of them."""

    date = fields.Date(
        required=True, allow_none=True, metadata={"description": "The shop's day; null if there is none yet"}
    )
    segments = fields.List(
        fields.Nested(SegmentCount), metadata={"description": "Where no segment is asked for"}
    )
    users = fields.List(
        fields.Nested(UserDay), metadata={"description": "Where a segment or a visitor is asked for"}
    )


@list_route(
    blueprint,
    "/segments",
    DaySegments,
    parameters={
        "date": Day(metadata={"description": "The shop's day; the newest one by default"}),
        "segment": Choice(
            *ACTIVITY_SEGMENTS,
            *RFM_SEGMENT_NAMES,
            queries.CART_ABANDONER,
            metadata={"description": "List the users of this segment, instead of how many there are in each"},
        ),
        "anonymous_id": Text(
            min_length=1,
            metadata={
                "description": "List the days of the person that this anonymous id is now, the newest first, instead"
            },
        ),
    },
    limit=100,
)
@needs(Scope.READ, segment=Scope.PERSONAL, anonymous_id=Scope.PERSONAL)
def list_day_segments(
    asked: queries.Asked,
    date: date | None = None,
    segment: str | None = None,
    anonymous_id: str | None = None,
) -> dict[str, Any]:
    """Count a day's users by segment, or list the users of a segment by user id.

    `buyer` and `window_shopper` are about the day itself. The others are as of its end: the segments of recency,
    frequency and monetary value, and `cart_abandoner`, who has left a cart in the last 30 days.
    """
    with database().snapshot() as connection:
        if anonymous_id:
            if date:
                asked = asked.where(queries.Condition("report_date", "=", date))
            person = queries.resolved_visitor(connection, kept_id("anonymous", anonymous_id))
            return {"date": date, "users": queries.user_days(connection, person, asked)}
        day = date or queries.newest_segment_day(connection)
        if segment:
            return {"date": day, "users": queries.segment_users(connection, day, segment, asked)}
        of_day = asked.where(queries.Condition("report_date", "=", day))
        return {"date": day, "segments": queries.segment_counts(connection, of_day)}


class SegmentCounts(Schema):
    """The answer: users by segment, day by day."""

    segments = fields.List(fields.Nested(SegmentCount), required=True)


@list_route(
    blueprint,
    "/segment-counts",
    SegmentCounts,
    filters={
        **range_of(USER_SEGMENTS),
        "kind": Filter("kind", Choice(*_KINDS, metadata={"description": "Only segments of this kind"})),
    },
    limit=100,
)
@needs(Scope.READ)
def list_segment_counts(asked: queries.Asked) -> dict[str, Any]:
    """Count users by segment on each day, the newest first, and by kind, the largest segment first."""
    with database().snapshot() as connection:
        return {"segments": queries.segment_counts(connection, asked)}


class SegmentMove(Schema):
    """How many customers went from one segment to another."""

    from_segment = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Where they were; null for no customer, or one without a segment"},
    )
    to_segment = fields.String(
        required=True, allow_none=True, metadata={"description": "Where they are; null as before"}
    )
    users = fields.Integer(required=True, metadata={"description": "How many went there, or stayed"})


class SegmentMoves(Schema):
    """The answer: from which RFM segment to which customers went."""

    date = fields.Date(
        required=True, allow_none=True, metadata={"description": "The later day; null if there is none yet"}
    )
    before = fields.Date(
        required=True, allow_none=True, metadata={"description": "The earlier day; null if there is none yet"}
    )
    moves = fields.List(fields.Nested(SegmentMove), required=True)


@list_route(
    blueprint,
    "/segment-moves",
    SegmentMoves,
    parameters={
        "date": Day(metadata={"description": "The later day; the newest one by default"}),
        "days": WholeNumber(
            1, 366, load_default=7, metadata={"description": "How many days the earlier one is before it"}
        ),
    },
    limit=200,
)
@needs(Scope.READ)
def list_segment_moves(asked: queries.Asked, days: int, date: date | None = None) -> dict[str, Any]:
    """Count customers by the RFM segment that they were in and the one that they are in, the most first.

    Those who stayed are among them. Of a day without customers all come from nowhere.
    """
    with database().snapshot() as connection:
        day = date or queries.newest_segment_day(connection)
        if day is None:
            return {
                "date": None,
                "before": None,
                "moves": queries.Page([], asked.limit, asked.offset, more=False),
            }
        before = day - timedelta(days=days)
        return {"date": day, "before": before, "moves": queries.segment_moves(connection, day, before, asked)}
