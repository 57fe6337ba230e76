"""One JSON line per request: its route and how it went, without any id of a person."""

import logging
from time import perf_counter

import msgspec
from flask import Flask, Response, g, request

log = logging.getLogger("clickstream_assets.api.access")


def register_access_log(app: Flask) -> None:
    """Log every request to the logger `clickstream_assets.api.access`."""

    @app.before_request
    def start_clock() -> None:
        g.started = perf_counter()

    @app.after_request
    def write_line(response: Response) -> Response:
        line = {
            "method": request.method,
            # The rule, not the path: a path names a person.
            "route": request.url_rule.rule if request.url_rule else None,
            "status": response.status_code,
            "bytes": response.content_length,
            "milliseconds": round((perf_counter() - g.started) * 1000, 1),
        }
        log.info("%s", msgspec.json.encode(line).decode())
        return response
