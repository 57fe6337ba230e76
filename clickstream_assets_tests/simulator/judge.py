"""The event contract and the counting rules once more, written from their description alone."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

EVENT_TYPES = {"view", "click", "add_to_cart", "cart", "remove_from_cart", "purchase", "search"}


def event_time(event: dict[str, Any]) -> datetime:
    time = datetime.fromisoformat(event["timestamp"])
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def problem(value: bytes) -> str | None:
    """What makes a record no valid event."""
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


def judge(values: Iterable[bytes]) -> Counter[str]:
    """Counts of events, duplicates, conflicts and rejected, in the order of arrival."""
    counts: Counter[str] = Counter()
    payloads: dict[str, str] = {}
    order_lines: set[tuple[Any, ...]] = set()
    for value in values:
        if problem(value):
            counts["rejected"] += 1
            continue
        event = json.loads(value)
        event_id = event.pop("event_id", None)
        payload = json.dumps(event, sort_keys=True)
        event_id = event_id or payload
        if event_id in payloads:
            counts["duplicates" if payloads[event_id] == payload else "conflicts"] += 1
            continue
        if event["event_type"] == "purchase" and "order_id" in event:
            line = tuple(event.get(name) for name in ("order_id", "product_id", "quantity", "price"))
            if line in order_lines:
                counts["duplicates"] += 1
                continue
            order_lines.add(line)
        payloads[event_id] = payload
        counts["events"] += 1
        counts[event["event_type"]] += 1
    return counts
