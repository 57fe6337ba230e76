"""Errors as JSON: every one is a problem document (RFC 9457) with a `code` that a program can branch on."""

import logging
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import request

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.stores.elasticsearch import ElasticsearchError
from clickstream_assets.stores.kafka.delivery import KafkaProblem, UndeliveredError
from clickstream_assets.stores.postgres.connection import PostgresError

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 5

_log = logging.getLogger(__name__)

# OpenAPI's own form rather than a marshmallow schema: no code of ours loads or dumps it.
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The HTTP status in words"},
        "status": {"type": "integer", "description": "The HTTP status"},
        "code": {"type": "string", "description": "What went wrong, for programs"},
        "detail": {"type": "string", "description": "What went wrong, for people"},
        "errors": {
            "type": "array",
            "description": "What is wrong with each parameter",
            "items": {
                "type": "object",
                "required": ["parameter", "value", "message"],
                "properties": {
                    "parameter": {"type": "string"},
                    "value": {"type": ["string", "null"], "description": "As it was sent"},
                    "message": {"type": "string", "description": "What is allowed"},
                },
            },
        },
        "scope": {"type": "string", "description": "The scope that the key lacks"},
        "dependencies": {
            "type": "object",
            "description": "What the service needs, and what is wrong with it",
            "additionalProperties": {"type": "string"},
        },
    },
}

_DESCRIPTIONS = {
    401: "The request has none of the keys",
    403: "The key may not do that, or a page of another origin asks",
    404: "What the address names is not known",
    406: "The client takes none of the forms that the answer comes in",
    422: "A parameter cannot be used",
    429: "Too many requests, or wrong keys, came from this client; Retry-After says when to come again",
    503: "What the answer is made of cannot be read now; the detail says why",
}


REQUEST_TOO_LONG: dict[int, dict[str, Any]] = {
    # The server's own answer, given before the application sees the request.
    431: {
        "description": "The request's line and headers are longer than 32,768 bytes",
        "content": {"text/plain": {}},
    }
}


class ApiError(ClickstreamError):
    """A request that is answered with a problem document: its HTTP status, code, detail and further members.

    Attributes:
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] = {},
        **members: object,
    ) -> None:
        super().__init__(detail, retryable=status is HTTPStatus.SERVICE_UNAVAILABLE)
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members
        self.headers = headers


def documented(*statuses: int) -> dict[int, dict[str, Any]]:
    """Return the OpenAPI responses of an operation that may answer with these problems."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def register_problems(app: APIFlask) -> None:
    """Make every error of the application a problem document."""
    # Each operation documents its own problems, with their content type.
    app.config.update(AUTO_404_RESPONSE=False, AUTO_VALIDATION_ERROR_RESPONSE=False)
    app.error_processor(_http_error)
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(PostgresError, partial(_server_error, "postgres"))
    app.register_error_handler(ElasticsearchError, partial(_server_error, "elasticsearch"))


def describe(spec: dict[str, Any]) -> None:
    """Describe problem documents in the OpenAPI document."""
    spec.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA


Answer = tuple[dict[str, object], int, dict[str, str]]


def _answer(
    status: HTTPStatus,
    code: str,
    detail: str,
    members: Mapping[str, object] = {},
    headers: Mapping[str, str] = {},
) -> Answer:
    body = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    sent = {**headers, "Content-Type": PROBLEM_JSON}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        sent["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return {**body, **members}, status, sent


def _api_error(error: ApiError) -> Answer:
    return _answer(error.status, error.code, error.detail, error.members, error.headers)


def answer_of(error: ApiError | UndeliveredError) -> Answer:
    """Return the problem document of an error, its status and its headers."""
    if isinstance(error, ApiError):
        return _api_error(error)
    if error.problem is KafkaProblem.TOO_LARGE:
        return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"{error.problem}.")
    _log.error("%s", error)
    # Whatever it is, the client has what was not taken, and is to send it again.
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, f"kafka_{error.problem.name.lower()}", f"{error.problem}.")


def _server_error(server: str, error: PostgresError | ElasticsearchError) -> Answer:
    _log.error("%s", error)
    status = (
        HTTPStatus.INTERNAL_SERVER_ERROR if error.problem.name == "FAILED" else HTTPStatus.SERVICE_UNAVAILABLE
    )
    # The error itself names hosts and users, which are for the log alone.
    return _answer(status, f"{server}_{error.problem.name.lower()}", f"{error.problem}.")


def _http_error(error: HTTPError) -> Answer:
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(error.detail, dict):
        errors = [
            {"parameter": name, "value": _sent(location, name), "message": message}
            for location, fields in error.detail.items()
            for name, messages in fields.items()
            for message in _flat(messages)
        ]
        detail = "; ".join(f"{e['parameter']}={e['value']!r}: {e['message']}" for e in errors)
        return _answer(status, "invalid_parameter", detail, {"errors": errors})
    detail = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {request.path}.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not allowed here.",
        HTTPStatus.INTERNAL_SERVER_ERROR: "The service failed; its log says why.",
    }.get(status, f"{status.phrase}.")
    return _answer(status, status.name.lower(), detail, headers=dict(error.headers))


def _sent(location: str, name: str) -> str | None:
    if location == "query":
        return ",".join(request.args.getlist(name))
    return (request.view_args or {}).get(name)


def _flat(messages: Any) -> list[str]:
    """Return the messages of a field; those of a list's items come as a mapping from index to messages."""
    return [m for part in messages.values() for m in part] if isinstance(messages, dict) else list(messages)
