"""Templates, what each page has, and the headers that go with it."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from flask import Response, current_app, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clickstream_assets.api.pages.reader import NOTHING, Reader
from clickstream_assets.api.pages.source import Source

STATIC = "/static"
"""Where the pages' own files are."""
# Nothing runs, is shown or is asked for that is not from here.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # It is of this moment, and perhaps not for everybody.
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}
_FOLDER = Path(__file__).parent

PAGES = {
    "/": "Today",
    "/trends": "Trends",
    "/data": "Data",
    "/docs": "API",
}
"""The pages of the navigation, by their addresses."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_json"] = _as_json
    environment.globals.update(
        pages=PAGES, nothing=NOTHING, static=static, quoted=lambda text: quote(text, "")
    )
    return environment


@cache
def static(name: str) -> str:
    """Return the address of one of the pages' own files; it changes when the file does, so browsers keep it.

    Args:
        name: its name in `static/`; of a file of a package, `vendor/` and the package's name without the version.
    """
    path = _FOLDER / "static" / name
    if not path.exists():
        package, _, file = name.removeprefix("vendor/").partition("/")
        [path] = (_FOLDER / "static" / "vendor").glob(f"{package}-*/{file}")
    return f"{STATIC}/{path.relative_to(_FOLDER / 'static')}?{int(path.stat().st_mtime):x}"


def _as_json(value: Any) -> Markup:
    """Write a value into a block of data: no text in it ends the block."""
    text = msgspec.json.encode(value).decode()
    return Markup(re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text))


def with_parameters(**changes: Any) -> str:
    """Return the address of this page with other parameters: those of None are left out."""
    parameters = {**request.args.to_dict(), **changes}
    kept = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return request.path + (f"?{urlencode(kept)}" if kept else "")


def reader_of(source: Source) -> Reader:
    """Return the reader of the request, by the shop's clock and currency."""
    shop = source.get("/api/shop").content
    return Reader.of(request.accept_languages, shop.get("time_zone", "UTC"), shop.get("currency"))


def page(template: str, source: Source, reader: Reader, *, title: str, **values: Any) -> Response:
    """Render a page.

    Args:
        template: its name in `templates/`.
        source: what it was made from, which the page names.
        reader: whom it is for.
        title: the page's.
        values: what the template has besides.
    """
    text = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            path=request.path,
            reader=reader,
            answers=source.answers,
            problems=source.problems,
            with_parameters=with_parameters,
            is_part=request.args.get("part") is not None,
            **values,
        )
    )
    unavailable = any(answer.code and answer.code.startswith("postgres") for answer in source.answers)
    status = HTTPStatus.SERVICE_UNAVAILABLE if unavailable else HTTPStatus.OK
    return current_app.response_class(text, status, headers=_HEADERS, mimetype="text/html")
