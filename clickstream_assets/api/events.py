"""`GET /real-time-events`: the events that came last, from Elasticsearch."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa
from apiflask import APIBlueprint, Schema, fields
from flask import current_app
from psycopg.sql import Composed

from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime, schema_of
from clickstream_assets.api.listing import MAX_LIMIT, filters_of, list_route
from clickstream_assets.api.outages import Outage
from clickstream_assets.api.parameters import Text, WholeNumber
from clickstream_assets.api.pseudonyms import valued
from clickstream_assets.api.queries import Asked, Condition, Page
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import LIVE_EVENTS
from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import RESULT_WINDOW, WORDS, LiveEvents

blueprint = APIBlueprint("events", __name__, tag="Events")

EXTENSION = "clickstream_live_events"

_TIMES = {
    column.name: (datetime if pa.types.is_timestamp(column.type) else date).fromisoformat
    for column in LIVE_EVENTS.columns
    if pa.types.is_temporal(column.type)
}
_NEVER_NULL = [column.name for column in LIVE_EVENTS.columns if not column.nullable]
_RANGE = {">=": "gte", "<=": "lte", "<": "lt"}
# Of one request; a search is two.
_TIMEOUT_SECONDS = 2.5


class ReadEvents(LiveEvents):
    """The live events as requests read them: without a long wait."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, timeout=_TIMEOUT_SECONDS)
        self._outage = Outage()

    def check(self) -> None:
        """See the base class."""
        with self._outage.remembered():
            super().check()

    def search(self, query: Mapping[str, Any], limit: int, offset: int) -> list[dict[str, Any]]:
        """See the base class."""
        with self._outage.remembered():
            return super().search(query, limit, offset)


def live_events() -> LiveEvents:
    """Return the running application's live events."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, LiveEvents)
    return found


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


@list_route(
    blueprint,
    "/real-time-events",
    Events,
    filters=filters_of(LIVE_EVENTS),
    parameters={
        "n": WholeNumber(
            1, MAX_LIMIT, metadata={"description": "Another name of limit, which it takes precedence over"}
        ),
        "offset": WholeNumber(
            0,
            # Elasticsearch does not page deeper, whatever the limit.
            RESULT_WINDOW - MAX_LIMIT,
            load_default=0,
            metadata={"description": "How many rows to pass over; `until` finds the rows that lie deeper"},
        ),
        "q": Text(
            min_length=1,
            max_length=256,
            metadata={
                "description": "Words that all have to be in the event's query, product, category or brand; "
                '"a phrase", a prefix*, either | or, -without'
            },
        ),
    },
)
@needs(Scope.PERSONAL)
def list_events(asked: Asked, n: int | None = None, q: str | None = None) -> dict[str, Any]:
    """List events, the latest first; equals are ordered by event id.

    An event is here about a second after the stream has read it.
    """
    asked = replace(asked, limit=n or asked.limit)
    filters = [_query(condition) for condition in _valued(asked.conditions)]
    if q:
        # Of the query languages the one that has no wrong input.
        words = {"query": q, "fields": [WORDS], "default_operator": "and"}
        filters.append(
            {"simple_query_string": words | {"flags": "AND|OR|NOT|PHRASE|PREFIX|PRECEDENCE|WHITESPACE"}}
        )
    found = live_events().search(
        {"bool": {"filter": filters}},
        # One more than asked for shows whether there are more that a page can reach.
        min(asked.limit + 1, RESULT_WINDOW - asked.offset),
        asked.offset,
    )
    rows = [row for event in found[: asked.limit] if (row := _row(event))]
    return {"real_time_events": Page(rows, asked.limit, asked.offset, more=len(found) > asked.limit)}


def _valued(conditions: Iterable[Condition]) -> list[Condition]:
    """Return conditions with values, of which some are SQL expressions of what stands in place of an id."""
    found = list(conditions)
    if all(not isinstance(condition.value, Composed) for condition in found):
        return found
    with database().snapshot() as connection:
        return [
            condition._replace(value=valued(connection, condition.value))
            if isinstance(condition.value, Composed)
            else condition
            for condition in found
        ]


def _row(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the columns of a document, which has no fields for what is null, and times as text.

    None of a document that is none of ours: whoever may write to Elasticsearch can put one into our indices.
    """
    row = {name: event.get(name) for name in LIVE_EVENTS.column_names}
    try:
        row |= {name: read(event[name]) for name, read in _TIMES.items()}
    except (KeyError, TypeError, ValueError):
        return None
    if any(row[name] is None for name in _NEVER_NULL):
        return None
    return row | {"timestamp": row["event_time"]}


def _query(condition: Condition) -> dict[str, Any]:
    """Return the condition in Elasticsearch's query language."""
    if condition.comparison == "=":
        return {"term": {condition.column: condition.value}}
    return {"range": {condition.column: {_RANGE[condition.comparison]: condition.value}}}
