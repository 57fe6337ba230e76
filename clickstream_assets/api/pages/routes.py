"""The addresses of pages, and of the files that they load."""

from __future__ import annotations

from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, send_from_directory

from clickstream_assets.api.pages.data import show_data
from clickstream_assets.api.pages.rendering import STATIC, page, reader_of
from clickstream_assets.api.pages.source import Source
from clickstream_assets.api.pages.today import show_today
from clickstream_assets.api.pages.trends import show_trends

# They are for people: the OpenAPI document has what they show.
blueprint = APIBlueprint("pages", __name__, enable_openapi=False)

_FILES = Path(__file__).parent / "static"
_KEPT_SECONDS = 365 * 86_400

blueprint.add_url_rule("/", view_func=show_today)
blueprint.add_url_rule("/trends", view_func=show_trends)
blueprint.add_url_rule("/data", view_func=show_data)


@blueprint.get("/docs")
def show_docs() -> Response:
    """Show the OpenAPI document, to be tried."""
    source = Source()
    return page("docs.html.j2", source, reader_of(source), title="API")


@blueprint.get(f"{STATIC}/<path:name>")
def file(name: str) -> Response:
    """Send one of the pages' own files; its address changes with what is in it."""
    response = send_from_directory(_FILES, name, max_age=_KEPT_SECONDS)
    response.cache_control.immutable = True
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
