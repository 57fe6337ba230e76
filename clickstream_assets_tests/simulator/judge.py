"""The event contract and the counting rules once more, written from their description alone."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

EVENT_TYPES = {"view", "click", "add_to_cart", "cart", "remove_from_cart", "purchase", "search"}
PRODUCT_TYPES = {"add_to_cart", "cart", "remove_from_cart", "purchase"}


def event_time(event: dict[str, Any]) -> datetime:
    time = datetime.fromisoformat(event["timestamp"])
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def problem(value: bytes) -> str | None:
    """Return what makes a record no valid event."""
    try:
        event = json.loads(value.decode("utf-8"))
    except UnicodeDecodeError:
        return "utf8"
    except json.JSONDecodeError:
        return "json"
    if not isinstance(event, dict):
        return "object"
    if event.get("event_type") not in EVENT_TYPES:
        return "event_type"
    needed = ["event_type", "timestamp", *(["product_id"] if event["event_type"] in PRODUCT_TYPES else [])]
    for name in needed:
        if not _is_given(event.get(name)):
            return name
    if not any(_is_given(event.get(name)) for name in ("user_id", "anonymous_id", "session_id")):
        return "user_id"
    try:
        return "timestamp" if event_time(event).year < 2000 else None
    except ValueError:
        return "timestamp"


def _is_given(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def verdicts(values: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield each record's verdict (events, duplicates, conflicts or rejected) and type, in the order of arrival."""
    payloads: dict[str, str] = {}
    order_lines: dict[tuple[Any, ...], datetime] = {}
    for value in values:
        if problem(value):
            yield "rejected", ""
            continue
        event = json.loads(value)
        event_id = event.pop("event_id", None)
        payload = json.dumps(event, sort_keys=True)
        event_id = event_id or payload
        known = payloads.get(event_id)
        payloads.setdefault(event_id, payload)
        line = tuple(event.get(name) for name in ("user_id", "order_id", "product_id", "quantity", "price"))
        is_line = event["event_type"] == "purchase" and "order_id" in event
        if known is not None:
            verdict = "duplicates" if known == payload else "conflicts"
        else:
            # The same line at the very same time is another unit of the order.
            is_again = is_line and order_lines.setdefault(line, event_time(event)) != event_time(event)
            verdict = "duplicates" if is_again else "events"
        yield verdict, event["event_type"]


def judge(values: Iterable[bytes]) -> Counter[str]:
    """Count the verdicts, and the events of each type."""
    counts: Counter[str] = Counter()
    for verdict, event_type in verdicts(values):
        counts.update([verdict, event_type] if verdict == "events" else [verdict])
    return counts
