"""`GET /api/carts`: shoppers' carts."""

from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import daily_queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.lists import ListParameters, list_route
from clickstream_assets.api.parameters import Choice, Moment, Text
from clickstream_assets.catalogue import CARTS

blueprint = APIBlueprint("carts", __name__, url_prefix="/api", tag="Carts")

# As `analytics.carts` names them, which would bring the engines along.
STATES = ("open", "abandoned", "emptied", "converted", "recovered")


class _Query(ListParameters):
    state = Choice(*STATES, metadata={"description": "Only carts that are in this state now"})
    user_id = Text(metadata={"description": "Only this shopper's"})
    since = Moment(metadata={"description": "Only carts whose last activity is at this time or later"})
    until = Moment(metadata={"description": "Only carts whose last activity is before this time"})
    sort = Choice(
        *daily_queries.CART_SORTS, load_default="last_activity_at", metadata={"description": "Sort by"}
    )
    order = Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"})


class Carts(Schema):
    """The answer."""

    carts = fields.List(fields.Nested(schema_of("Cart", CARTS.columns)), required=True)


@list_route(blueprint, "/carts", _Query, Carts)
def list_carts(query_data: dict[str, Any]) -> dict[str, Any]:
    """List carts, those with the latest activity first; equals are ordered by cart id."""
    with database().snapshot() as connection:
        return {"carts": daily_queries.carts(connection, **query_data)}
