"""The event contract and the counting rules once more, written from their description alone."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any

EVENT_TYPES = {
    *("page_view", "view", "click", "impression", "search", "add_to_wishlist", "add_to_cart", "cart"),
    *("remove_from_cart", "begin_checkout", "purchase", "refund", "identify", "custom"),
}
PRODUCT_TYPES = {"add_to_wishlist", "add_to_cart", "cart", "remove_from_cart", "purchase"}
VISITORS = ("user_id", "anonymous_id", "session_id")

Lines = defaultdict[tuple[Any, ...], list[tuple[set[tuple[str, Any]], datetime]]]
"""Order lines that are events: whose, by each of their ids, and when."""


def event_time(event: dict[str, Any], zone: tzinfo = UTC) -> datetime:
    time = datetime.fromisoformat(event["timestamp"])
    return time if time.tzinfo else time.replace(tzinfo=zone)


def problem(value: bytes) -> str | None:
    """Return what makes a record no valid event; a record of several has the first problem of any."""
    try:
        record = json.loads(value.decode("utf-8"))
    except UnicodeDecodeError:
        return "utf8"
    except json.JSONDecodeError:
        return "json"
    if not isinstance(record, dict):
        return "object"
    return next(filter(None, map(_problem_of_event, events_of(record))), None)


def events_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a record's events: itself, or one for each of its items, with the fields that it has for all of them."""
    items = record.get("items")
    if not items:
        return [record]
    common = {name: value for name, value in record.items() if name != "items"}
    ids = [record["event_id"], *(f"{record['event_id']}/{place}" for place in range(2, len(items) + 1))]
    return [common | item | {"event_id": id_} for item, id_ in zip(items, ids, strict=True)]


def _problem_of_event(event: dict[str, Any]) -> str | None:
    if event.get("event_type") not in EVENT_TYPES:
        return "event_type"
    needed = ["event_type", "timestamp", *(["product_id"] if event["event_type"] in PRODUCT_TYPES else [])]
    if event["event_type"] == "custom":
        needed.append("event_name")
    for name in needed:
        if not _is_given(event.get(name)):
            return name
    if not any(_is_given(event.get(name)) for name in VISITORS):
        return "user_id"
    try:
        return "timestamp" if event_time(event).year < 2000 else None
    except ValueError:
        return "timestamp"


def _is_given(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def kind(event: dict[str, Any]) -> str:
    """Return an event's type; a purchase of a negative price or of negative units is a refund."""
    is_back = (event.get("price") or 1) * (event.get("quantity") or 1) < 0
    return "refund" if is_back and event["event_type"] == "purchase" else str(event["event_type"])


def verdicts(values: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield each event's verdict (events, duplicates, conflicts or rejected) and type, in the order of arrival."""
    payloads: dict[str, str] = {}
    order_lines: Lines = defaultdict(list)
    for value in values:
        if problem(value):
            yield "rejected", ""
            continue
        for event in events_of(json.loads(value)):
            yield _verdict(event, payloads, order_lines), kind(event)


def _verdict(event: dict[str, Any], payloads: dict[str, str], order_lines: Lines) -> str:
    event_id = event.pop("event_id", None)
    payload = json.dumps(event, sort_keys=True)
    event_id = event_id or payload
    known = payloads.get(event_id)
    payloads.setdefault(event_id, payload)
    if known is not None:
        return "duplicates" if known == payload else "conflicts"
    if event["event_type"] not in ("purchase", "refund") or "order_id" not in event:
        return "events"
    user, visitor, session = ({(name, event[name])} if event.get(name) else set() for name in VISITORS)
    who = user | visitor or session
    amounts = [abs(event[name]) if event.get(name) else None for name in ("quantity", "price")]
    names = ("order_id", "order_line", "product_id")
    same = order_lines[kind(event), *(event.get(name) for name in names), *amounts]
    # The same line at the very same time is another unit of the order.
    if any(who & theirs and moment != event_time(event) for theirs, moment in same):
        return "duplicates"
    same.append((who, event_time(event)))
    return "events"


def judge(values: Iterable[bytes]) -> Counter[str]:
    """Count the verdicts, and the events of each type."""
    counts: Counter[str] = Counter()
    for verdict, event_type in verdicts(values):
        counts.update([verdict, event_type] if verdict == "events" else [verdict])
    return counts
