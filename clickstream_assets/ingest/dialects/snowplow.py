"""Snowplow's enriched events: as JSON, of the analytics SDKs or of a warehouse, and as the TSV of the enriched stream.

What a shop's events hold is in entities: https://docs.snowplow.io/docs/events/ootb-data/ecommerce-events. They are in
a column each, by the name and the version of their schema, or as self-describing JSON in `contexts`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from clickstream_assets.ingest.dialects.paths import (
    PER_PRODUCT,
    Item,
    in_query,
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
from clickstream_assets.ingest.record_paths import encoder

_ACTIONS = {
    "product view": "view",
    "list click": "click",
    "add to cart": "add_to_cart",
    "remove from cart": "remove_from_cart",
    "transaction": "purchase",
    "list view": "impression",
    "refund": "refund",
}
_TYPES = {
    "page view": "page_view",
    "screen view": "page_view",
    "site search": "search",
    # Of the older way, a line of an order.
    "transaction item": "purchase",
}
_TIMES = ("derived_tstamp", "true_tstamp", "collector_tstamp", "dvce_created_tstamp")
_SIGNS = frozenset(_TIMES)
_TIME = table(timestamp=" ".join(_TIMES))
_RECORD = table(
    event_id="event_id",
    user_id="user_id",
    anonymous_id="domain_userid",
    session_id="domain_sessionid",
    campaign="mkt_campaign",
    user_agent="useragent",
)
# The collector's cookie, which one visitor may have several of, as browsers take it for another site's.
_COLLECTORS = table(anonymous_id="network_userid")
_SESSION = table(anonymous_id="userId user_id", session_id="sessionId session_id")
_PRODUCT = table(
    product_id="id",
    product_category="category",
    brand="brand",
    price="price",
    quantity="quantity",
    currency="currency",
)
_READ_OF_PRODUCT = names(_PRODUCT)
_TRANSACTION = table(order_id="transaction_id transactionId", currency="currency")
_WHOLE_REFUND = table(price="refund_amount refundAmount")
_OLD_LINE = table(
    order_id="ti_orderid",
    product_id="ti_sku ti_name",
    product_category="ti_category",
    price="ti_price",
    quantity="ti_quantity",
    currency="ti_currency tr_currency",
)
WRITTEN = written(
    *(_RECORD, _TIME, _SESSION, _COLLECTORS, _PRODUCT, _TRANSACTION, _WHOLE_REFUND, _OLD_LINE),
    event_type="event_name event",
    event_name="se_action event_name",
    query="terms",
)
_SHOP = "com_snowplowanalytics_snowplow_ecommerce_"
_ACTION, _PRODUCTS, _ORDERS, _REFUNDS, _STEPS = (
    _SHOP + name
    for name in ("snowplow_ecommerce_action", "product", "transaction", "refund", "checkout_step")
)
_SESSIONS, _SEARCHES = (
    f"com_snowplowanalytics_snowplow_{name}" for name in ("client_session", "site_search")
)
_READ = frozenset({_ACTION, _SESSIONS, _SEARCHES})
_READ_PER_PRODUCT = _READ | {_PRODUCTS}
_QUERY_KEYS = ("q", "query", "search", "search_query", "s", "keyword", "keywords")

# Places of columns, from 0, of the TSV; it has 131, and what comes after these can be cut off.
PLACES = {
    **{"collector_tstamp": 3, "dvce_created_tstamp": 4, "event": 5, "event_id": 6, "user_id": 12},
    **{
        "domain_userid": 15,
        "network_userid": 17,
        "page_urlquery": 36,
        "mkt_campaign": 51,
        "contexts": 52,
        "se_action": 54,
    },
    **{
        "unstruct_event": 58,
        "ti_orderid": 67,
        "ti_sku": 68,
        "ti_name": 69,
        "ti_category": 70,
        "ti_price": 71,
    },
    **{"ti_quantity": 72, "useragent": 77, "tr_currency": 108, "ti_currency": 112, "derived_contexts": 122},
    **{"domain_sessionid": 123, "derived_tstamp": 124, "event_name": 126, "true_tstamp": 130},
}
_FEWEST_COLUMNS = 125
_JSON_COLUMNS = ("contexts", "unstruct_event", "derived_contexts")


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is an enriched event."""
    return not _SIGNS.isdisjoint(record)


def is_tsv(value: bytes) -> bool:
    """Return whether a record's bytes are an enriched event's TSV."""
    return value[:1] not in b"{[" and value.count(b"\t") >= _FEWEST_COLUMNS - 1


def from_tsv(value: bytes) -> dict[str, Any]:
    """Return the columns that are read, of those that are not empty.

    Raises:
        UnicodeDecodeError: the bytes are no text.
    """
    columns = value.decode().rstrip("\r\n").split("\t")
    last = len(columns) - 1
    return {name: columns[place] for name, place in PLACES.items() if place <= last and columns[place]}


def to_tsv(value: bytes, record: dict[str, Any]) -> bytes:
    """Return a line with the columns of a record that `from_tsv` read of it and that has changed.

    Raises:
        Rejection: a column is none of the line's.
    """
    ending = value[len(value.rstrip(b"\r\n")) :]
    columns = value.decode().rstrip("\r\n").split("\t")
    if unknown := next((name for name in record if name not in PLACES), None):
        raise Rejection(unknown, "no_such_column")
    columns += [""] * (max(PLACES[name] for name in record) + 1 - len(columns)) if record else []
    for name, place in PLACES.items():
        if place < len(columns):
            column = record.get(name)
            columns[place] = "" if column is None else _column(column)
    return "\t".join(columns).encode() + ending


def _column(value: Any) -> str:
    """Return a column's text; a tab or the end of a line in it would be that of the line."""
    text = value if isinstance(value, str) else encoder.encode(value).decode()
    return " ".join(re.split(r"[\t\r\n]", text))


def items(record: dict[str, Any], decode: Callable[[bytes], Any]) -> list[Item]:
    """Translate a record.

    Args:
        record: its columns.
        decode: reads JSON, which a column may hold as text.
    """
    entities = _entities(record, decode)
    shared = picked(record, _RECORD)
    if "anonymous_id" not in shared or "session_id" not in shared:
        # Of an app, which has no cookies.
        shared = {**picked(_first(entities, _SESSIONS), _SESSION), **shared}
        if "anonymous_id" not in shared and "user_id" not in shared:
            shared |= picked(record, _COLLECTORS)
    shared["timestamp"] = in_utc(picked(record, _TIME).get("timestamp"))
    event_type, name = _type_and_name(record, entities)
    shared["event_type"] = event_type
    consent = _consent(entities)
    if consent is not None:
        shared["consent"] = consent
    lines = entities.get(_PRODUCTS, [])
    left: dict[str, Any] = rest(entities, _READ_PER_PRODUCT if event_type in PER_PRODUCT else _READ)
    if event_type == "custom":
        shared["event_name"] = name
    elif event_type == "search":
        terms = _first(entities, _SEARCHES).get("terms")
        if type(terms) is list:
            terms = " ".join(str(term) for term in terms if is_given(term))
        shared["query"] = terms or in_query(record.get("page_urlquery"), *_QUERY_KEYS)
    elif event_type in PER_PRODUCT:
        order = picked(_first(entities, _ORDERS), _TRANSACTION)
        if event_type == "refund":
            refund = _first(entities, _REFUNDS)
            order |= picked(refund, _TRANSACTION)
            if not lines:
                order |= picked(refund, _WHOLE_REFUND)
        shared |= order
        if not lines:
            shared |= picked(record, _OLD_LINE)
    shared["properties"] = left
    return spread(shared, ((picked(line, _PRODUCT), rest(line, _READ_OF_PRODUCT)) for line in lines))


def _type_and_name(
    record: dict[str, Any], entities: dict[str, list[dict[str, Any]]]
) -> tuple[str | None, Any]:
    action = _first(entities, _ACTION).get("type")
    if is_given(action):
        if type_of(action, {"checkout step": "begin_checkout"}):
            first_step = str(_first(entities, _STEPS).get("step")) == "1"
            return ("begin_checkout" if first_step else "custom"), action
        return type_of(action, _ACTIONS) or "custom", action
    name, kind = record.get("event_name"), record.get("event")
    if is_given(kind) and type_of(kind, {"struct": "custom"}):
        label = record.get("se_action")
        return "custom", label if is_given(label) else kind
    name = name if is_given(name) else kind
    if not is_given(name):
        return None, None
    # Also a page_ping: the one thing that it says, that the visit goes on, any event does.
    return type_of(kind, _TYPES) or type_of(name, _TYPES) or "custom", name


def _entities(record: dict[str, Any], decode: Callable[[bytes], Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the data of the entities, and of the event's own schema, by the name of their schema."""
    found: dict[str, list[dict[str, Any]]] = {}
    for column, value in record.items():
        if value is None:
            continue
        name = _entity_of_column(column)
        if name is None:
            continue
        if type(value) is str:
            value = decode(value.encode()) if value.lstrip()[:1] in ("{", "[") else None
        if name:
            found.setdefault(name, []).extend(objects(value))
            continue
        # Self-describing: a list of schema and data, in data of a schema of its own.
        for one in objects(mapping(value).get("data") if type(value) is dict else value):
            schema = one.get("schema")
            if type(schema) is str and (entity := _entity_of_schema(schema)):
                found.setdefault(entity, []).extend(objects(one.get("data")))
    return found


_COLUMN = re.compile(r"(?:contexts|unstruct_event)_(\w+?)(?:_\d+){1,3}", re.IGNORECASE)
_SCHEMA = re.compile(r"iglu:([^/]+)/([^/]+)/")


@lru_cache(maxsize=4096)
def _entity_of_column(column: str) -> str | None:
    """Return the name of the schema that a column is of; "" for self-describing JSON, None for another column."""
    if column in _JSON_COLUMNS:
        return ""
    named = _COLUMN.fullmatch(column)
    return named[1].lower() if named else None


@lru_cache(maxsize=4096)
def _entity_of_schema(schema: str) -> str | None:
    """Return the name that a schema has as a column."""
    named = _SCHEMA.match(schema)
    if named is None:
        return None
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", f"{named[1]}_{named[2]}")
    return re.sub(r"[.-]", "_", words).lower()


def _first(entities: dict[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    found = entities.get(name)
    return found[0] if found else {}


_CONSENTS = {
    **dict.fromkeys(("allow all", "implicit consent"), True),
    **dict.fromkeys(("deny all", "withdrawn", "expired"), False),
}
_PROFILING_SCOPES = frozenset({"analytics", "statistics", "performance"})


def _consent(entities: dict[str, list[dict[str, Any]]]) -> bool | None:
    """Return what a visitor chose, where the event or an entity says so."""
    for name, found in entities.items():
        if not name.endswith("consent_preferences") or not found:
            continue
        chosen = found[0].get("eventType", found[0].get("event_type"))
        if type(chosen) is not str:
            continue
        words = " ".join(chosen.lower().replace("_", " ").split())
        if words == "allow selected":
            scopes = found[0].get("consentScopes", found[0].get("consent_scopes"))
            return any(
                str(scope).lower() in _PROFILING_SCOPES for scope in (scopes if type(scopes) is list else ())
            )
        return _CONSENTS.get(words)
    return None
