"""`GET /api/shop`: what all figures have in common: the shop's clock, its currency, and the days that there are."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema, fields
from flask import current_app

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("shop", __name__, url_prefix="/api", tag="Shop")

EXTENSION = "clickstream_shop_clock"


class Shop(Schema):
    """The answer."""

    time_zone = fields.String(
        required=True, metadata={"description": "IANA name of the zone whose midnights days begin at"}
    )
    today = fields.Date(required=True, metadata={"description": "The day that it is now by the shop's clock"})
    currency = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "ISO 4217 code of what amounts are in; null if none has named one"},
    )
    first_day = fields.Date(
        required=True,
        allow_none=True,
        metadata={"description": "The first day with figures; null without any"},
    )
    last_day = fields.Date(
        required=True,
        allow_none=True,
        metadata={"description": "The newest day with figures; null without any"},
    )


@blueprint.get("/shop")
@needs(Scope.READ)
@blueprint.output(Shop)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(503))
def show_shop() -> dict[str, Any]:
    """Say what all figures have in common: the time zone, the currency, and the days that there are."""
    clock = current_app.extensions[EXTENSION]
    assert isinstance(clock, ShopClock)
    with database().snapshot() as connection:
        days = queries.days_with_figures(connection)
    return {"time_zone": clock.zone, "today": clock.today(), **days}
