"""Dialects: what other trackers send, translated to own fields.

A dialect is pure functions from one decoded record to items, an event's own fields each; they then go through the same
contract as own records do. A record's dialect is told by its shape, or set.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickstream_assets.ingest.dialects import datagen, ga4, segment, shopify, snowplow
from clickstream_assets.ingest.dialects.paths import Item, Written
from clickstream_assets.settings import EventDialect

_BY_SHAPE: Sequence[tuple[EventDialect, Callable[[dict[str, Any]], bool]]] = (
    (EventDialect.SEGMENT, segment.is_one),
    (EventDialect.GA4, ga4.is_one),
    (EventDialect.SNOWPLOW, snowplow.is_one),
    (EventDialect.SHOPIFY, shopify.is_one),
    (EventDialect.DATAGEN, datagen.is_one),
)


_WRITTEN: Mapping[EventDialect, Written] = {
    EventDialect.SEGMENT: segment.WRITTEN,
    EventDialect.GA4: ga4.WRITTEN,
    EventDialect.SNOWPLOW: snowplow.WRITTEN,
    EventDialect.SHOPIFY: shopify.WRITTEN,
    EventDialect.DATAGEN: datagen.WRITTEN,
}


def paths_of(field: str, dialect: EventDialect) -> tuple[tuple[str, ...], ...]:
    """Return the paths at which objects of a record in a dialect have an own field, the first that counts first."""
    return ((field,),) if dialect is EventDialect.OWN else _WRITTEN[dialect].get(field, ())


_VISITORS = ("user_id", "anonymous_id", "session_id")


def visitors_in(dialect: EventDialect) -> tuple[str, ...]:
    """Return the own fields that say whose an event in a dialect is; one without any of them is nobody's."""
    # GA4's session is a second since 1970, which visits of several visitors begin in.
    return _VISITORS[:2] if dialect is EventDialect.GA4 else _VISITORS


def dialect_of(record: dict[str, Any]) -> EventDialect:
    """Return the dialect that a record is in by its shape; what is like none of the others is an own record."""
    # Before all: no other dialect has the one field that an own event cannot lack.
    if "event_type" in record:
        return EventDialect.OWN
    for dialect, is_one in _BY_SHAPE:
        if is_one(record):
            return dialect
    return EventDialect.OWN


def translated(record: dict[str, Any], dialect: EventDialect, decode: Callable[[bytes], Any]) -> list[Item]:
    """Return the items of a record in another dialect, at least one.

    Args:
        record: the decoded record.
        dialect: the one that it is in.
        decode: reads JSON that a field holds as text.
    """
    match dialect:
        case EventDialect.SEGMENT:
            return segment.items(record, decode)
        case EventDialect.GA4:
            return ga4.items(record)
        case EventDialect.SHOPIFY:
            return shopify.items(record)
        case EventDialect.SNOWPLOW:
            return snowplow.items(record, decode)
        case EventDialect.DATAGEN:
            return datagen.items(record)
        case _:
            raise ValueError(f"{dialect} is no dialect of others")
