"""`GET /real-time-events`: the events that came last, from Elasticsearch."""

from datetime import date, datetime
from typing import Any

from apiflask import APIBlueprint, Schema, fields
from flask import current_app

from clickstream_assets.api.fields import UtcTime, schema_of
from clickstream_assets.api.lists import MOST, ListParameters, list_route
from clickstream_assets.api.parameters import Choice, Moment, Text, WholeNumber
from clickstream_assets.api.queries import Page
from clickstream_assets.catalogue import LIVE_EVENTS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import RESULT_WINDOW, WORDS, LiveEvents

blueprint = APIBlueprint("events", __name__, tag="Events")

EXTENSION = "clickstream_live_events"
# As named in `analytics.events`, which would bring the engines along.
EVENT_TYPES = ("view", "click", "add_to_cart", "remove_from_cart", "purchase", "search")

_TIMES = {
    "event_time": datetime.fromisoformat,
    "kafka_time": datetime.fromisoformat,
    "event_date": date.fromisoformat,
}
_TIMEOUT_SECONDS = 3


def attach_live_events(app_extensions: dict[str, object], settings: Settings) -> None:
    """Give an application the live events; nothing is connected yet."""
    app_extensions[EXTENSION] = LiveEvents(settings, timeout=_TIMEOUT_SECONDS)


def live_events() -> LiveEvents:
    """The running application's live events."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, LiveEvents)
    return found


class _Query(ListParameters):
    n = WholeNumber(1, MOST, metadata={"description": "Another name of limit, which it takes the place of"})
    offset = WholeNumber(
        0,
        # What Elasticsearch lets itself be paged through, whatever the limit.
        RESULT_WINDOW - MOST,
        load_default=0,
        metadata={"description": "How many rows to pass over; what lies deeper is found by `until`"},
    )
    user_id = Text(metadata={"description": "Only this shopper's"})
    event_type = Choice(*EVENT_TYPES, metadata={"description": "Only of this type"})
    q = Text(
        min_length=1,
        max_length=256,
        metadata={
            "description": "Words that all have to be in the event's query, product, category or brand; "
            '"a phrase", a prefix*, either | or, -without'
        },
    )
    since = Moment(metadata={"description": "Only events at this time or later"})
    until = Moment(metadata={"description": "Only events before this time"})


class Events(Schema):
    """The answer."""

    real_time_events = fields.List(
        fields.Nested(
            schema_of(
                "Event",
                (column for column in LIVE_EVENTS.columns if column.name != "properties"),
                timestamp=UtcTime(
                    required=True, metadata={"description": "event_time, by the name that it was sent under"}
                ),
                properties=fields.Dict(
                    required=True,
                    allow_none=True,
                    metadata={"description": "All other fields that the sender sent"},
                ),
            )
        ),
        required=True,
    )


@list_route(blueprint, "/real-time-events", _Query, Events)
def list_events(query_data: dict[str, Any]) -> dict[str, Any]:
    """List events, the latest first; equals are ordered by event id.

    An event is here about a second after the stream has read it.
    """
    limit = query_data.get("n", query_data["limit"])
    offset = query_data["offset"]
    found = live_events().search(
        {"bool": {"filter": _filters(query_data)}},
        # One more than asked for tells whether there are more that a page can reach.
        min(limit + 1, RESULT_WINDOW - offset),
        offset,
    )
    rows = [_row(event) for event in found[:limit]]
    return {"real_time_events": Page(rows, limit, offset, more=len(found) > limit)}


def _row(event: dict[str, Any]) -> dict[str, Any]:
    """The columns of a document, which has no fields for what is null, and times as text."""
    row = {name: event.get(name) for name in LIVE_EVENTS.column_names}
    row |= {name: read(event[name]) for name, read in _TIMES.items()}
    return row | {"timestamp": row["event_time"]}


def _filters(asked: dict[str, Any]) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = [
        {"term": {name: asked[name]}} for name in ("user_id", "event_type") if name in asked
    ]
    times = {
        operator: asked[name].isoformat()
        for name, operator in (("since", "gte"), ("until", "lt"))
        if name in asked
    }
    if times:
        filters.append({"range": {"event_time": times}})
    if "q" in asked:
        # Of the query languages the one that has no wrong input.
        words = {"query": asked["q"], "fields": [WORDS], "default_operator": "and"}
        filters.append(
            {"simple_query_string": words | {"flags": "AND|OR|NOT|PHRASE|PREFIX|PRECEDENCE|WHITESPACE"}}
        )
    return filters
