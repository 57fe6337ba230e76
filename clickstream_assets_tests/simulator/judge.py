"""The event contract and the counting rules once more, written from their description alone."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

EVENT_TYPES = {"view", "click", "add_to_cart", "cart", "remove_from_cart", "purchase", "search"}


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
    needed = ["user_id", "event_type", "timestamp"]
    if event.get("event_type") not in EVENT_TYPES:
        return "event_type"
    if event["event_type"] != "search":
        needed.append("product_id")
    for name in needed:
        if not isinstance(event.get(name), str | int) or event[name] == "":
            return name
    try:
        return "timestamp" if event_time(event).year < 2000 else None
    except ValueError:
        return "timestamp"


def verdicts(values: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield each record's verdict (events, duplicates, conflicts or rejected) and type, in the order of arrival."""
    payloads: dict[str, str] = {}
    order_lines: set[tuple[Any, ...]] = set()
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
        line = tuple(event.get(name) for name in ("order_id", "product_id", "quantity", "price"))
        is_line = event["event_type"] == "purchase" and "order_id" in event
        if known is not None:
            verdict = "duplicates" if known == payload else "conflicts"
        else:
            verdict = "duplicates" if is_line and line in order_lines else "events"
            order_lines |= {line} if is_line else set()
        yield verdict, event["event_type"]


def judge(values: Iterable[bytes]) -> Counter[str]:
    """Count the verdicts, and the events of each type."""
    counts: Counter[str] = Counter()
    for verdict, event_type in verdicts(values):
        counts.update([verdict, event_type] if verdict == "events" else [verdict])
    return counts
