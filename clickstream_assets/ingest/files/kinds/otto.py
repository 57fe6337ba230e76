"""OTTO's sessions: an object a line, with what a shopper did in four weeks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from clickstream_assets.ingest.files.kinds.kind import Event
from clickstream_assets.ingest.files.kinds.research import otto_event
from clickstream_assets.ingest.files.skipped import MALFORMED_ROW, NO_EVENTS, SkippedRow


class _Action(msgspec.Struct):
    aid: int | str
    ts: int | float | str
    type: int | str


class _Session(msgspec.Struct):
    session: int | str
    events: list[_Action]


_decode = msgspec.json.Decoder(_Session).decode


def is_session(value: dict[str, Any]) -> bool:
    """Return whether an object is a session."""
    events = value.get("events")
    return (
        "session" in value
        and isinstance(events, list)
        and all(isinstance(one, dict) and one.keys() >= {"aid", "ts", "type"} for one in events)
    )


def events_of(value: bytes) -> Iterator[Event]:
    """Yield the events of a session.

    Raises:
        SkippedRow: it is none, or has no events.
    """
    try:
        session = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SkippedRow(MALFORMED_ROW, str(error)) from None
    if not session.events:
        raise SkippedRow(NO_EVENTS)
    visitor = str(session.session)
    return (otto_event((visitor, str(one.aid), str(one.ts), str(one.type))) for one in session.events)
