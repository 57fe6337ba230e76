"""`GET /sessions`: published sessions."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.analytics.schema import SESSIONS, Column
from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.parameters import Choice, Day, Flag, QueryParameters, Text, WholeNumber
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented

blueprint = APIBlueprint("sessions", __name__, tag="Sessions")


class _Query(QueryParameters):
    limit = WholeNumber(1, 1000, load_default=10, metadata={"description": "How many sessions"})
    offset = WholeNumber(0, 2**31 - 1, load_default=0, metadata={"description": "How many to pass over"})
    user_id = Text(metadata={"description": "Only this shopper's"})
    date = Day(
        attribute="session_date",
        metadata={"description": "Only those that started on this UTC day"},
    )
    include_bots = Flag(load_default=False, metadata={"description": "Whether bots' sessions count too"})
    sort = Choice(*queries.SESSION_SORTS, load_default="total_events", metadata={"description": "Sort by"})
    order = Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"})


def _iso_utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


class _UtcTime(fields.DateTime):
    """ISO 8601 in UTC, ending in Z."""

    SERIALIZATION_FUNCS = {"iso": _iso_utc}


def _field(column: Column) -> fields.Field:
    """The JSON field of a table's column."""
    field: type[fields.Field]
    if pa.types.is_timestamp(column.type):
        field = _UtcTime
    elif pa.types.is_date(column.type):
        field = fields.Date
    elif pa.types.is_decimal(column.type):
        field = fields.Float
    elif pa.types.is_integer(column.type):
        field = fields.Integer
    elif pa.types.is_boolean(column.type):
        field = fields.Boolean
    else:
        field = fields.String
    return field(required=True, allow_none=column.nullable, metadata={"description": column.description})


Session = Schema.from_dict({column.name: _field(column) for column in SESSIONS.columns}, name="Session")


class Sessions(Schema):
    """The answer."""

    sessions = fields.List(fields.Nested(Session), required=True)


@blueprint.get("/sessions")
@blueprint.input(_Query, location="query", unknown="raise")
@blueprint.output(Sessions)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def list_sessions(query_data: dict[str, Any]) -> dict[str, Any]:
    """List sessions, those with the most events first.

    Bots' sessions are left out unless `include_bots` is true; equals are ordered by session id.
    """
    with database().snapshot() as connection:
        return {"sessions": queries.sessions(connection, queries.SessionQuery(**query_data))}
