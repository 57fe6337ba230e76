"""`GET /sessions`: published sessions."""

from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.lists import ListParameters, list_route
from clickstream_assets.api.parameters import Choice, Day, Flag, Text
from clickstream_assets.catalogue import SESSIONS

blueprint = APIBlueprint("sessions", __name__, tag="Sessions")

# As `analytics.sessions` names them, which would bring the engines along.
FURTHEST_STEPS = ("none", "view", "add_to_cart", "purchase")


class _Query(ListParameters):
    user_id = Text(metadata={"description": "Only this shopper's"})
    date = Day(
        attribute="session_date",
        metadata={"description": "Only those that started on this UTC day"},
    )
    since = Day(metadata={"description": "Only those that started on this UTC day or later"})
    until = Day(metadata={"description": "Only those that started on this UTC day or earlier"})
    campaign = Text(metadata={"description": "Only those whose first marketing campaign is this one"})
    furthest_step = Choice(
        *FURTHEST_STEPS, metadata={"description": "Only those that came so far, no further"}
    )
    include_bots = Flag(load_default=False, metadata={"description": "Whether bots' sessions count too"})
    sort = Choice(*queries.SESSION_SORTS, load_default="total_events", metadata={"description": "Sort by"})
    order = Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"})


Session = schema_of("Session", SESSIONS.columns)


class Sessions(Schema):
    """The answer."""

    sessions = fields.List(fields.Nested(Session), required=True)


@list_route(blueprint, "/sessions", _Query, Sessions)
def list_sessions(query_data: dict[str, Any]) -> dict[str, Any]:
    """List sessions, those with the most events first.

    Bots' sessions are left out unless `include_bots` is true; equals are ordered by session id.
    """
    with database().snapshot() as connection:
        return {"sessions": queries.sessions(connection, queries.SessionQuery(**query_data))}
