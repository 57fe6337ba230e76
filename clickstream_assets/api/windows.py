"""`GET /api/windows` and `GET /api/alerts`: what the stream counts, and the flash sales that it sees in that."""

from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime, schema_of
from clickstream_assets.api.lists import ListParameters, list_route
from clickstream_assets.api.parameters import Choice, Moment, Text
from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS

blueprint = APIBlueprint("windows", __name__, url_prefix="/api", tag="Windows")


class _WindowQuery(ListParameters):
    product_id = Text(metadata={"description": "Only this product's"})
    since = Moment(metadata={"description": "Only windows that start at this time or later"})
    until = Moment(metadata={"description": "Only windows that start before this time"})
    state = Choice(
        "open",
        "closed",
        metadata={"description": "Only open windows, which events may still change, or only closed ones"},
    )
    sort = Choice(*queries.WINDOW_SORTS, load_default="window_start", metadata={"description": "Sort by"})
    order = Choice("asc", "desc", load_default="desc", metadata={"description": "Sort order"})


class Windows(Schema):
    """The answer."""

    windows = fields.List(fields.Nested(schema_of("Window", PRODUCT_WINDOWS.columns)), required=True)


@list_route(blueprint, "/windows", _WindowQuery, Windows)
def list_windows(query_data: dict[str, Any]) -> dict[str, Any]:
    """List sliding windows, the latest first: what happened to a product in each.

    Equals are ordered by start, the latest first, and then by product id.
    """
    with database().snapshot() as connection:
        return {"windows": queries.windows(connection, queries.WindowQuery(**query_data))}


class _AlertQuery(ListParameters):
    state = Choice("open", "resolved", metadata={"description": "Only open or only resolved ones"})
    product_id = Text(metadata={"description": "Only this product's"})
    since = Moment(metadata={"description": "Only alerts whose first window starts at this time or later"})
    until = Moment(metadata={"description": "Only alerts whose first window starts before this time"})


class Alerts(Schema):
    """The answer."""

    alerts = fields.List(
        fields.Nested(
            schema_of(
                "Alert",
                FLASH_SALE_ALERTS.columns,
                detected_at=UtcTime(required=True, metadata={"description": "When the stream found it"}),
            )
        ),
        required=True,
    )


@list_route(blueprint, "/alerts", _AlertQuery, Alerts)
def list_alerts(query_data: dict[str, Any]) -> dict[str, Any]:
    """List flash-sale alerts, those that began last first; equals are ordered by alert id."""
    with database().snapshot() as connection:
        return {"alerts": queries.alerts(connection, queries.AlertQuery(**query_data))}
