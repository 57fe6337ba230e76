"""A JSON line per request: its route and how it went, without any id of a person."""

import logging
from time import perf_counter

import msgspec
from flask import Flask, Response, g, request

from clickstream_assets.api.pages.source import WITHIN_A_PAGE

log = logging.getLogger("clickstream_assets.api.access")


def register_access_log(app: Flask) -> None:
    """Log every request to the logger `clickstream_assets.api.access`."""

    @app.before_request
    def start_clock() -> None:
        # What a page asks shares its `g`, and the page's clock goes on.
        if WITHIN_A_PAGE not in request.environ:
            g.started = perf_counter()

    @app.after_request
    def write_line(response: Response) -> Response:
        if WITHIN_A_PAGE in request.environ:
            return response
        # The rule, not the path: a path names a person.
        route = request.url_rule.rule if request.url_rule else None
        seconds = perf_counter() - g.started
        log_request(request.method, route, response.status_code, response.content_length, seconds)
        return response


def log_request(method: str, route: str | None, status: int, size: int | None, seconds: float) -> None:
    """Write the line of a request; `size` is the answer's in bytes."""
    line = {
        "method": method,
        "route": route,
        "status": status,
        "bytes": size,
        "milliseconds": round(seconds * 1000, 1),
    }
    log.info("%s", msgspec.json.encode(line).decode())
