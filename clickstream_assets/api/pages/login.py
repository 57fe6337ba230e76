"""The login to pages, by a key that may read, and the end of it."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Response, redirect, request, session
from werkzeug.wrappers import Response as AnyResponse

from clickstream_assets.api.access import (
    LOGIN,
    access,
    is_loopback,
    refuse_foreign,
)
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import page
from clickstream_assets.api.pages.source import Source
from clickstream_assets.api.problems import ApiError

LOGOUT = "/logout"
_START = "/"
_WRONG = {
    "no_key": "Type a key.",
    "unknown_key": "This key is not known.",
    "scope_missing": "This key may send events and not read.",
    "too_many_wrong_keys": "Too many wrong keys came from here. Try again in a minute.",
}


def show_login() -> AnyResponse:
    """Show the form; whoever has logged in, or need not, goes on to where they want to."""
    after = _own(request.args.get("next", ""))
    if not access().is_on or access().logged_in():
        return redirect(after, HTTPStatus.SEE_OTHER)
    # Who follows a link from a mail or another site comes without the cookie, and so does all that this leads to at
    # once. A page of ours that goes on by itself brings it.
    is_from_elsewhere = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    return _form(after, again=is_from_elsewhere)


def log_in() -> AnyResponse:
    """Take the form's key."""
    refuse_foreign()
    after = _own(request.form.get("next", ""))
    if not access().is_on:
        return redirect(after, HTTPStatus.SEE_OTHER)
    if request.headers.get("Origin", "").startswith("http:") and not is_loopback(request.host):
        problem = f"Open this page by https://{request.host}: over http a browser does not keep a login."
        return _form(after, problem, HTTPStatus.FORBIDDEN)
    try:
        access().log_in(request.form.get("key", "").strip())
    except ApiError as error:
        response = _form(after, _WRONG[error.code], error.status)
        response.headers.update(error.headers)
        return response
    return redirect(after, HTTPStatus.SEE_OTHER)


def log_out() -> AnyResponse:
    """Forget the login."""
    refuse_foreign()
    session.clear()
    return redirect(LOGIN if access().is_on else _START, HTTPStatus.SEE_OTHER)


def _form(
    after: str, problem: str | None = None, status: HTTPStatus = HTTPStatus.OK, *, again: bool = False
) -> Response:
    reader = Reader.of(request.accept_languages, "UTC", None)
    response = page(
        "login.html.j2", Source(), reader, title="Log in", next=after, problem=problem, again=again
    )
    response.status_code = status
    return response


def _own(address: str) -> str:
    """Return an address if it is a path of ours, else that of the first page."""
    # Browsers read \ as /, and leave out what is before 0x20: either may make a path another server's address.
    is_odd = "\\" in address or any(character <= " " for character in address)
    if is_odd or not address.startswith("/") or address.startswith("//"):
        return _START
    return _START if urlsplit(address).path in (LOGIN, LOGOUT) else address
