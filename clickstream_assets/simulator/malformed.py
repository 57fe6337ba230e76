"""Records that are no valid events, each kind wrong in one way.

None of them holds a line break, so that each is one line of a daily file too.
"""

from collections.abc import Callable
from typing import Any

import msgspec

Fields = dict[str, Any]


def _not_json(event: Fields) -> bytes:
    encoded = msgspec.json.encode(event)
    return encoded[: len(encoded) * 2 // 3]


def _not_an_object(event: Fields) -> bytes:
    return msgspec.json.encode([event])


def _without(*fields: str) -> Callable[[Fields], bytes]:
    return lambda event: msgspec.json.encode({name: event[name] for name in event if name not in fields})


def _with(**changes: Any) -> Callable[[Fields], bytes]:
    return lambda event: msgspec.json.encode(event | changes)


def _invalid_utf8(event: Fields) -> bytes:
    encoded = msgspec.json.encode(event | {"event_type": "view", "product_id": "caf?"})
    return encoded.replace(b'"caf?"', b'"caf\xe9"')


KINDS: dict[str, Callable[[Fields], bytes]] = {
    "not_json": _not_json,
    "not_an_object": _not_an_object,
    "no_user_id": _without("user_id", "anonymous_id", "session_id"),
    "no_timestamp": _without("timestamp"),
    "unknown_event_type": _with(event_type="teleport"),
    "product_id_is_an_object": _with(event_type="add_to_cart", product_id={"id": "product_1"}),
    "timestamp_is_nonsense": _with(timestamp="the day before yesterday"),
    "timestamp_before_2000": _with(timestamp="1999-12-31T23:59:59Z"),
    "empty_product_id": _with(event_type="add_to_cart", product_id=""),
    "invalid_utf8": _invalid_utf8,
}
"""From an event's fields to bytes that are no event, by kind."""
