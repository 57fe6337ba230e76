"""Segment's calls by its e-commerce specification, version 2, as RudderStack has them too; and PostHog's events.

The specification is https://segment.com/docs/connections/spec/ecommerce/v2/; PostHog's events have other fields around
the same names and properties. A request of several calls, `batch`, is a record of several.
"""

from collections.abc import Callable
from typing import Any

from clickstream_assets.catalogue import MONEY_TYPES
from clickstream_assets.ingest.dialects.paths import (
    PER_PRODUCT,
    Item,
    at,
    consent_of,
    in_utc,
    is_given,
    mapping,
    names,
    objects,
    picked,
    rest,
    spread,
    table,
    type_of,
    written,
)
from clickstream_assets.ingest.fields import Rejection

# Those without an event's name, and what they are.
_CALLS = {
    "page": "page_view",
    "screen": "page_view",
    "identify": "identify",
    "alias": "identify",
    "group": "custom",
}
_TYPES = {
    "product viewed": "view",
    "product clicked": "click",
    "product added": "add_to_cart",
    "product removed": "remove_from_cart",
    "order completed": "purchase",
    "products searched": "search",
    "cart viewed": "page_view",
    "product list viewed": "impression",
    "product added to wishlist": "add_to_wishlist",
    "checkout started": "begin_checkout",
    "order refunded": "refund",
    "order cancelled": "refund",
    "order canceled": "refund",
    # Of version 1.
    "viewed product": "view",
    "added product": "add_to_cart",
    "removed product": "remove_from_cart",
    "completed order": "purchase",
    "viewed product category": "impression",
}
# In a warehouse, and in some libraries, all names are with underscores.
SIGNS = frozenset(
    {"messageId", "anonymousId", "userId", "originalTimestamp", "message_id", "original_timestamp"}
)
"""Fields of which a call has at least one."""

_RECORD = table(
    event_id="messageId message_id",
    timestamp="timestamp originalTimestamp original_timestamp sentAt sent_at receivedAt received_at",
    user_id="userId user_id",
    anonymous_id="anonymousId anonymous_id",
    session_id="context.sessionId",
    campaign="context.campaign.name",
    user_agent="context.userAgent context.user_agent",
)
_PREVIOUS = table(anonymous_id="previousId previous_id")
_ORDER = table(order_id="order_id orderId", currency="currency")
_SEARCH = table(query="query")
_PRODUCT_FIELDS = {
    "product_category": "category",
    "brand": "brand",
    "price": "price",
    "quantity": "quantity",
    "currency": "currency",
}
_PRODUCT = table(product_id="product_id productId sku id", **_PRODUCT_FIELDS)
# Without its lines: an `id` is the order's there.
_ORDER_AS_LINE = table(product_id="product_id productId sku", **_PRODUCT_FIELDS)
_WHOLE_REFUND = table(price="total revenue value")

WRITTEN = written(
    *(_RECORD, _ORDER, _SEARCH, _PRODUCT, _WHOLE_REFUND),
    event_type="event type",
    event_name="event",
    consent="context.consent.categoryPreferences",
    user_id="distinct_id",
)

_READ_OF_PRODUCT = names(_PRODUCT) - {"sku"}
_READ_OF_CALL = names(_ORDER)
_READ_OF_SEARCH = _READ_OF_CALL | names(_SEARCH)
_READ_OF_LINES = _READ_OF_CALL | {"products"}
_READ_OF_LINE = _READ_OF_LINES | _READ_OF_PRODUCT
# Besides what is read: who the visitor is in person, and where.
_READ_OF_CONTEXT = frozenset({"sessionId", "userAgent", "user_agent", "consent", "ip", "traits"})


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is a call, some, or an event of PostHog's."""
    batch = record.get("batch")
    if type(batch) is list:
        return any(_is_call(message) or _is_posthog(message) for message in batch)
    return _is_call(record) or _is_posthog(record)


def items(record: dict[str, Any], decode: Callable[[bytes], Any]) -> list[Item]:
    """Translate a record.

    Args:
        record: the decoded record.
        decode: reads JSON, which PostHog's properties may be as text.
    """
    batch = record.get("batch")
    if type(batch) is not list:
        return _call(record, decode)
    shared: dict[str, Any] = {name: record[name] for name in ("context", "sentAt") if name in record}
    found = [item for message in batch for item in _call({**shared, **mapping(message)}, decode)]
    return found or [({}, "")]


def _is_call(record: Any) -> bool:
    if type(record) is not dict or SIGNS.isdisjoint(record):
        return False
    call = record.get("type")
    if call is None:
        return type(record.get("event")) is str
    return type(call) is str and (call.lower() in _CALLS or call.lower() == "track")


def _is_posthog(record: Any) -> bool:
    return (
        type(record) is dict
        and type(record.get("event")) is str
        and ("distinct_id" in record or at(record, "properties", "distinct_id") is not None)
    )


def _call(record: dict[str, Any], decode: Callable[[bytes], Any]) -> list[Item]:
    if _is_posthog(record):
        record = _as_call(record, decode)
    call = record.get("type")
    call = call.lower() if type(call) is str else "track"
    name = record.get("event") if call == "track" else call
    event_type = _CALLS.get(call) or (type_of(name, _TYPES) or "custom" if is_given(name) else None)
    properties = mapping(record.get("properties"))
    context = mapping(record.get("context"))
    shared = {"event_type": event_type, **picked(record, _RECORD), **picked(properties, _ORDER)}
    # A call's times are UTC's; a table of them in a warehouse does not say so.
    shared["timestamp"] = in_utc(shared.get("timestamp"))
    consent = consent_of(at(context, "consent", "categoryPreferences"))
    if consent is not None:
        shared["consent"] = consent
    products: list[tuple[dict[str, Any], dict[str, Any]]] = []
    read = _READ_OF_CALL
    if event_type in PER_PRODUCT:
        lines = objects(properties.get("products"))
        products = [(picked(line, _PRODUCT), rest(line, _READ_OF_PRODUCT)) for line in lines]
        read = _READ_OF_LINES if lines else _READ_OF_LINE
        if not lines:
            shared |= picked(properties, _ORDER_AS_LINE if event_type in MONEY_TYPES else _PRODUCT)
            if event_type == "refund" and "price" not in shared:
                shared |= picked(properties, _WHOLE_REFUND)
    elif event_type == "search":
        shared |= picked(properties, _SEARCH)
        read = _READ_OF_SEARCH
    elif event_type == "custom":
        shared["event_name"] = name
    elif call == "alias" and (previous := picked(record, _PREVIOUS)):
        shared |= previous
    left = rest(properties, read)
    if event_type in ("page_view", "identify") and is_given(page := record.get("name")):
        left.setdefault("name", page)
    if around := rest(context, _READ_OF_CONTEXT):
        left["context"] = around
    shared["properties"] = left
    return spread(shared, products)


_POSTHOG_CALLS = {
    "$pageview": "page",
    "$screen": "screen",
    "$identify": "identify",
    "$create_alias": "identify",
    "$groupidentify": "group",
}
_POSTHOG_READ = frozenset(
    {
        "distinct_id",
        "utm_campaign",
        "token",
        *("$anon_distinct_id", "$device_id", "$user_id", "$session_id", "$insert_id", "$ip"),
        *("$raw_user_agent", "$useragent", "$set", "$set_once"),
    }
)


def _is_anonymous(properties: dict[str, Any]) -> bool:
    """Return whether an event's `distinct_id` is one that PostHog's library made up.

    `$is_identified` is whether the library was told a user, and `$process_person_profile` whether the event is of a
    person with a profile, https://posthog.com/docs/data/anonymous-vs-identified-events.
    """
    is_identified = properties.get("$is_identified")
    if type(is_identified) is bool:
        return not is_identified
    return properties.get("$process_person_profile") is False


def _as_call(event: dict[str, Any], decode: Callable[[bytes], Any]) -> dict[str, Any]:
    """Return a PostHog event as the call that Segment would have."""
    properties = event.get("properties")
    if type(properties) is str:
        # As its exports to a warehouse have them.
        try:
            properties = decode(properties.encode())
        except Rejection:
            properties = None
    properties = mapping(properties)

    def first(*keys: str) -> Any:
        return next((properties[key] for key in keys if is_given(properties.get(key))), None)

    person = event.get("distinct_id")
    person = person if is_given(person) else first("distinct_id")
    name = event["event"]
    alias = first("alias") if name == "$create_alias" else None
    device = first("$anon_distinct_id", "$device_id") or alias
    is_anonymous = is_given(person) and (
        # What identifies a person has the id of the user, whatever else it says.
        person == device or (name != "$identify" and _is_anonymous(properties))
    )
    user = first("$user_id") or (alias if is_anonymous else person)
    return {
        "type": _POSTHOG_CALLS.get(name.lower(), "track"),
        "event": name,
        "messageId": next(
            (event[key] for key in ("uuid", "id") if is_given(event.get(key))), first("$insert_id")
        ),
        "timestamp": event.get("timestamp"),
        "sentAt": event.get("sentAt", event.get("sent_at")),
        "userId": user,
        # The login ties the former to the user; the device's other id is in no later event but beside the user's.
        "anonymousId": person if is_anonymous else device,
        "context": {
            "sessionId": first("$session_id"),
            "userAgent": first("$raw_user_agent", "$useragent"),
            "campaign": {"name": first("utm_campaign")},
        },
        "properties": rest(properties, _POSTHOG_READ),
    }
