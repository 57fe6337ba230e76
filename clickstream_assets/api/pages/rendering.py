"""Templates, what each page has, and the headers that go with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from flask import Response, current_app, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from clickstream_assets.api.access import CALLER, Caller
from clickstream_assets.api.pages.parts import Chart, Figure, Filter, Listing
from clickstream_assets.api.pages.reader import NOTHING, Reader
from clickstream_assets.api.pages.source import Source

STATIC = "/static"
"""Where the pages' own files are."""
PICTURE_HOSTS = "PICTURE_HOSTS"
"""Configuration of the application: beginnings of the addresses of pictures that are shown."""
# Nothing runs, is shown or is asked for that is not from here.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src {}; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    # It is of this moment, and perhaps not for everybody.
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}
NO_FIGURES = (
    "There are no figures yet. Send events, and run the jobs ingest and refresh in Dagster; "
    "`make demo` does all of it."
)
"""What a page says before the first day."""
_FOLDER = Path(__file__).parent

PAGES = {
    "/": "Today",
    "/trends": "Trends",
    "/funnel": "Funnel",
    "/products": "Products",
    "/customers": "Customers",
    "/recommendations": "Recommendations",
    "/reports": "Reports",
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
    environment.filters.update(as_json=_as_json, with_code=_with_code)
    environment.globals.update(
        pages=PAGES, nothing=NOTHING, no_figures=NO_FIGURES, static=static, quoted=partial(quote, safe="")
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
    return Markup(re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text))  # noqa: S704 - escaped in this line


def _with_code(text: str) -> Markup:
    """Write a text with what is between backticks as code."""
    # As plain text: what is put into Markup is escaped again.
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped in this line


def with_parameters(**changes: Any) -> str:
    """Return the address of this page with other parameters: those of None are left out."""
    parameters = {**request.args.to_dict(), **changes}
    kept = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return request.path + (f"?{urlencode(kept)}" if kept else "")


def is_part() -> bool:
    """Return whether only the part of the page that is live is asked for."""
    return "part" in request.args


def reader_of(source: Source) -> Reader:
    """Return the reader of the request, by the shop's clock and currency."""
    shop = source.shop
    return Reader.of(request.accept_languages, shop.get("time_zone", "UTC"), shop.get("currency"))


def sheet(
    source: Source,
    reader: Reader,
    *,
    title: str,
    filters: Sequence[Filter] = (),
    note: str = "",
    empty: str = "",
    picture: str | None = None,
    facts: Mapping[str, str] = {},
    links: Mapping[str, str] = {},
    figures: Sequence[Figure] = (),
    charts: Sequence[Chart] = (),
    tables: Sequence[Listing | Sequence[Listing]] = (),
) -> Response:
    """Render a page of figures, charts and tables, one below the other.

    Args:
        source, reader, title: as for `page`.
        filters: what can be chosen.
        note: what is to be known of all of it.
        empty: what is said where there is nothing to show, and what to do about it.
        picture: the address of a picture; shown where it is of PICTURE_HOSTS.
        facts: what is known of the page's subject.
        links: where else to look, by what is there.
        figures, charts: its parts.
        tables: its tables; those of one sequence stand beside each other where there is room.
    """
    return page(
        "sheet.html.j2",
        source,
        reader,
        title=title,
        filters=filters,
        note=note,
        empty=empty,
        picture=shown_picture(picture),
        facts=facts,
        links=links,
        figures=figures,
        charts=charts,
        tables=tables,
    )


def shown_picture(address: str | None) -> str | None:
    """Return the address of a picture if it is one that pages show."""
    is_shown = address and address.startswith(("data:image/", *current_app.config[PICTURE_HOSTS]))
    return address if is_shown else None


def _login() -> str | None:
    """Return the name of the key that the reader has logged in with."""
    caller: Caller | None = request.environ.get(CALLER)
    return caller.key.name if caller and caller.has_logged_in else None


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
            answers=source.given,
            problems=source.problems,
            with_parameters=with_parameters,
            is_part=is_part(),
            login=_login(),
            **values,
        )
    )
    # Without the first, which says what all figures have in common, there is nothing.
    is_away = any(answer.is_outage for answer in source.answers[:1])
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_away else HTTPStatus.OK
    hosts = " ".join(["'self'", "data:", *current_app.config[PICTURE_HOSTS]])
    headers = _HEADERS | {"Content-Security-Policy": _POLICY.format(hosts)}
    return current_app.response_class(text, status, headers=headers, mimetype="text/html")
