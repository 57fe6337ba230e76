"""The collector's part of the OpenAPI document, which Flask does not know the routes of."""

from __future__ import annotations

from typing import Any

from clickstream_assets.api.collector_routes import ROUTES
from clickstream_assets.api.problems import PROBLEM_JSON

_TAG = {"name": "Collector"}
_PROBLEMS = {
    400: "The body has no event: it is no JSON, or no gzip",
    401: "The request has none of the keys",
    403: "The key may not collect, or no key of API_KEYS may",
    413: "The body has more bytes than COLLECTOR_MAX_BYTES, or more events than COLLECTOR_MAX_EVENTS; or a record is "
    "larger than Kafka takes",
    415: "The body is packed in another way than gzip's",
    429: "More events came with this key than COLLECTOR_RATE_LIMIT allows, or too many wrong keys from this address; "
    "Retry-After says when to come again",
    503: "Kafka has not acknowledged the events; they have to be sent again",
}
_VERDICT = {
    "type": "object",
    "required": ["record", "item", "verdict"],
    "properties": {
        "record": {"type": "integer", "description": "Place of the record in the request, from 1"},
        "item": {"type": "integer", "description": "Place of the event in a record of several, from 1"},
        "verdict": {
            "type": "string",
            "enum": ["accepted", "rejected"],
            "description": "What ingest says of the event by itself; whether it repeats another shows there",
        },
        "event_id": {"type": "string", "description": "Id of an event that is accepted"},
        "left_out": {
            "type": "array",
            "description": "Fields that cannot be read, and are left out",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {"field": {"type": "string"}, "rule": {"type": "string"}},
            },
        },
        "field": {"type": ["string", "null"], "description": "Field for which the event is rejected"},
        "rule": {"type": "string", "description": "Rule that it breaks"},
    },
}
_COLLECTED = {
    "type": "object",
    "description": "All events of the request are in Kafka, those that are rejected too.",
    "required": ["success", "accepted", "rejected", "verdicts"],
    "properties": {
        "success": {"type": "boolean", "const": True},
        "accepted": {"type": "integer"},
        "rejected": {"type": "integer"},
        "verdicts": {"type": "array", "items": {"$ref": "#/components/schemas/Verdict"}},
    },
}
_BODY = "A JSON object, an array of them, or a line for each, also as gzip; whatever the Content-Type"
_EVENTS = {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}
# Some time after the first day of any shop; the page of the API puts the reader's own in its place.
_TIME = {"timestamp": "2026-01-05T10:00:00Z"}
_OWN_EVENT = {"event_type": "view", **_TIME, "user_id": "user_1", "product_id": "product_1"}
_CALLS: dict[str, dict[str, Any]] = {
    "track": {"event": "Product Viewed", "userId": "user_1", "properties": {"product_id": "product_1"}},
    "page": {"name": "Home", "userId": "user_1", "properties": {"url": "https://shop.example/"}},
    "screen": {"name": "Home", "userId": "user_1"},
    "identify": {"userId": "user_1", "anonymousId": "visitor_1", "traits": {"plan": "club"}},
    "alias": {"userId": "user_1", "previousId": "visitor_1"},
    "group": {"userId": "user_1", "groupId": "club"},
}
_POSTHOG_EVENT = {
    "event": "product viewed",
    "distinct_id": "user_1",
    **_TIME,
    "properties": {"product_id": "product_1"},
}
_WRITE_KEY = {
    "name": "write_key",
    "in": "query",
    "required": False,
    "description": "The key, for a sender that has no other place for it",
    "schema": {"type": "string"},
}


def describe(spec: dict[str, Any]) -> None:
    """Describe the collector's routes in the OpenAPI document."""
    spec.setdefault("components", {}).setdefault("schemas", {}).update(Verdict=_VERDICT, Collected=_COLLECTED)
    spec["paths"].update({route: {"post": _operation(route)} for route in ROUTES})
    spec["tags"].append(_TAG)


def _operation(route: str) -> dict[str, Any]:
    problem = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    collected = {"application/json": {"schema": {"$ref": "#/components/schemas/Collected"}}}
    return {
        "operationId": "post_" + route.strip("/").replace("/", "_"),
        "tags": [_TAG["name"]],
        "summary": _summary(route),
        # The key may be in the body as well.
        "security": [{"bearer": []}, {"basic": []}, {}],
        "parameters": [_WRITE_KEY],
        "requestBody": {
            "description": _BODY,
            "required": True,
            "content": {"application/json": {"schema": _EVENTS, "example": _example(route)}},
        },
        "responses": {
            "200": {"description": "Kafka has the events", "content": collected},
            **{str(status): {"description": text, "content": problem} for status, text in _PROBLEMS.items()},
        },
    }


def _example(route: str) -> dict[str, Any]:
    """Return a body with an event that is accepted."""
    if route == "/api/events":
        return _OWN_EVENT
    if route == "/batch":
        return {"batch": [_POSTHOG_EVENT]}
    if call := ROUTES[route]:
        return _CALLS[call] | _TIME
    return {"batch": [{"type": "track"} | _CALLS["track"] | _TIME]}


def _summary(route: str) -> str:
    if route == "/api/events":
        return "Collect events, in the own dialect or any other that is known."
    if route == "/batch":
        return "Collect PostHog's batches of events."
    if call := ROUTES[route]:
        return f"Collect Segment's calls, of the type {call} where they name none."
    return "Collect Segment's batches of calls."
