"""Access to the API: keys and logins, how often a client may ask, and the headers that each answer has.

With API_KEYS, each request needs the scope that its view says (`scopes.py`), and `read` where there is no view. The
collector, which is before Flask, asks for `collect`. Without, all may read, and nothing is collected.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Container, Sequence
from datetime import timedelta
from hashlib import blake2b
from hmac import compare_digest
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from pathlib import Path
from secrets import token_bytes
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode, urlsplit

from apiflask import APIFlask
from flask import Flask, Response, current_app, redirect, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wrappers import Response as AnyResponse

from clickstream_assets.api.asgi import HEADERS
from clickstream_assets.api.problems import ApiError, documented
from clickstream_assets.api.rates import RateLimit
from clickstream_assets.api.scopes import needed_by
from clickstream_assets.keys import Key, Scope, digest_of
from clickstream_assets.settings import Settings

EXTENSION = "access"
CALLER = "clickstream.caller"
"""Key of a request's environment: who makes it. Where a page asks the API, it is whoever asked for the page."""
LOGIN = "/login"

_METRICS = "metrics.metrics"
_COOKIE = "clickstream_session"
_KEY = "key"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# A person who mistypes has ten attempts at once, and then one in six seconds.
_WRONG_KEYS = 10
_WRONG_KEYS_SECONDS = 60.0
# 512 kB for addresses, so that hardly ever two share a place.
_ADDRESSES = 1 << 16
_REALM = 'Bearer realm="clickstream"'
_HOW = {
    Scope.READ: "Send a key that may read: Authorization: Bearer KEY.",
    Scope.PERSONAL: "Send a key that may read what is about one person: Authorization: Bearer KEY.",
    Scope.COLLECT: "Send a key that may collect: as user name of basic authentication, as Authorization: Bearer KEY, "
    "as write_key in the address, or as writeKey in the body.",
}
_LACKING = {
    Scope.READ: "This key may not read",
    Scope.PERSONAL: "This key may not read what is about one person",
    Scope.COLLECT: "This key may not send events",
}


class Caller(NamedTuple):
    """The sender of a request.

    Attributes:
        key: With which key.
        has_logged_in: True if it comes from a browser that has logged in with it.
    """

    key: Key
    has_logged_in: bool


class Access:
    """The keys that may do something, and how often each client has asked, or asked with a wrong key.

    Args:
        settings: the keys and the limits.
        folder: where worker processes share what clients have asked; none for one process.
        secret: what logins are signed with, and addresses are spread by; the same in all processes.
    """

    def __init__(self, settings: Settings, folder: Path | None, secret: bytes) -> None:
        self.secret = secret
        self.keys = settings.known_keys
        self._open = {_METRICS} if settings.api_metrics_open else set()
        self._logins = {_login_of(key): key for key in self.keys}
        self._places = {key.digest: place for place, key in enumerate(self.keys)}
        self._rate = settings.api_rate_limit
        self._requests = (
            RateLimit(self._rate, len(self.keys) + _ADDRESSES, folder, name="requests")
            if self._rate is not None
            else None
        )
        self._failures = (
            RateLimit(
                _WRONG_KEYS / _WRONG_KEYS_SECONDS,
                _ADDRESSES,
                folder,
                name="wrong-keys",
                burst_seconds=_WRONG_KEYS_SECONDS,
            )
            if self.keys
            else None
        )

    @property
    def is_on(self) -> bool:
        """True if reading asks for a key."""
        return bool(self.keys)

    @property
    def collects(self) -> bool:
        """True if there is a key to send events with."""
        return any(key.may(Scope.COLLECT) for key in self.keys)

    def needed(self, app: Flask, endpoint: str | None, asked: Container[str] = ()) -> Scope | None:
        """Return the scope that a request needs; None if it needs no key.

        Args:
            app: the application.
            endpoint: where the request goes; None if there is nothing.
            asked: the names of its parameters.
        """
        if endpoint in self._open:
            return None
        return needed_by(app.view_functions[endpoint] if endpoint else None).by(asked)

    def place_of(self, key: Key) -> int:
        """Return the key's place among the keys."""
        return self._places[key.digest]

    def admit(self, secrets: Sequence[str], scope: Scope, address: str) -> Key:
        """Return the key that a client sends, which may be any of several texts.

        Raises:
            ApiError: it is none, may not do that, or too many wrong ones came from the address.
        """
        key = self._find(secrets)
        is_guess = key is None and any(secrets)
        # A key that a shop's pages show is no secret: nobody gains by guessing it, and pages that still have an old one
        # keep nobody else from sending events.
        if self._failures and (is_guess or (key and not key.is_public)):
            place = self._spread(address)
            if wait := self._failures.wait_of(place, 0):
                raise ApiError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "too_many_wrong_keys",
                    "Too many wrong keys came from this address. If it is a proxy's, set API_TRUSTED_PROXIES to it.",
                    headers={"Retry-After": str(ceil(wait))},
                )
            if is_guess:
                self._failures.wait_of(place, 1)
        if key is None:
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "unknown_key" if is_guess else "no_key",
                _HOW[scope],
                # Not Basic: a browser would ask for a password, on a shop's pages the shopper.
                headers={"WWW-Authenticate": _REALM + (', error="invalid_token"' if is_guess else "")},
            )
        self.check(key, scope)
        return key

    @staticmethod
    def check(key: Key, scope: Scope) -> None:
        """Refuse what a key may not do.

        Raises:
            ApiError: it lacks the scope.
        """
        if not key.may(scope):
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "scope_missing",
                f"{_LACKING[scope]}: it lacks the scope {scope}. API_KEYS says what a key may do.",
                headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
                scope=scope,
            )

    def count(self, key: Key | None, address: str) -> None:
        """Count a client's request.

        Raises:
            ApiError: the client has made more than it may.
        """
        if self._requests is None:
            return
        place = self.place_of(key) if key else len(self.keys) + self._spread(address)
        if wait := self._requests.wait_of(place, 1):
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_requests",
                f"More than {self._rate:g} requests a second came from this client.",
                headers={"Retry-After": str(ceil(wait))},
            )

    def logged_in(self) -> Key | None:
        """Return the key that the request's browser has logged in with, as long as it may read."""
        key = self._logins.get(session.get(_KEY, ""))
        return key if key and key.may(Scope.READ) else None

    def log_in(self, secret: str) -> None:
        """Have the request's browser logged in.

        Raises:
            ApiError: the key is none, may not read, or too many wrong ones came from the address.
        """
        key = self.admit([secret], Scope.READ, client_address())
        session.clear()
        session[_KEY] = _login_of(key)
        session.permanent = True

    def close(self) -> None:
        """Let go of the files."""
        for rates in (self._requests, self._failures):
            if rates:
                rates.close()

    def _find(self, secrets: Sequence[str]) -> Key | None:
        digests = [digest_of(secret) for secret in secrets if secret]
        # All with all of them, so that the time that it takes says nothing.
        found = [key for key in self.keys for digest in digests if compare_digest(digest, key.digest)]
        return found[0] if found else None

    def _spread(self, address: str) -> int:
        """Return the place of an address; with the secret, so that nobody can choose that of another."""
        text = _client_of(address).encode()
        return int.from_bytes(blake2b(text, key=self.secret[:64], digest_size=8).digest()) % _ADDRESSES


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions, signed by itsdangerous; a login over a network needs TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002
        """Return whether browsers may send the cookie over TLS alone."""
        return request.is_secure or not is_loopback(request.host)


def register_access(app: APIFlask, settings: Settings, folder: Path | None, secret: bytes | None) -> None:
    """Have each request of the application need what it needs, and each answer have its headers.

    Args:
        app: the application.
        settings: the keys and the limits.
        folder: where worker processes share what clients have asked; none for one process.
        secret: what logins are signed with where SESSION_SECRET is not set; by default a new one.
    """
    given = settings.session_secret
    secret = given.get_secret_value().encode() if given else secret or token_bytes(32)
    allowed = Access(settings, folder, secret)
    app.extensions[EXTENSION] = allowed
    app.secret_key = secret
    app.session_interface = Sessions()
    app.config.update(
        SESSION_COOKIE_NAME=_COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=settings.login_hours),
        # It ends so long after the login, whatever was asked for meanwhile.
        SESSION_REFRESH_EACH_REQUEST=False,
    )

    @app.before_request
    def let_in() -> AnyResponse | None:
        scope = allowed.needed(app, request.endpoint, request.args)
        if scope is None:
            return None
        if CALLER in request.environ and (request.environ[CALLER] or not allowed.is_on):
            # A page asks, whose own request was let in and counted.
            if asks := request.environ[CALLER]:
                allowed.check(asks.key, scope)
            return None
        try:
            caller = _caller(allowed, scope) if allowed.is_on else None
        except ApiError as error:
            if error.code == "no_key" and _shows_pages():
                asked = request.full_path.rstrip("?")
                return redirect(f"{LOGIN}?{urlencode({'next': asked})}", HTTPStatus.SEE_OTHER)
            raise
        request.environ[CALLER] = caller
        allowed.count(caller.key if caller else None, client_address())
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if allowed.is_on and allowed.needed(app, request.endpoint) is not None:
            response.headers["Cache-Control"] = "no-store"
        return response


def access() -> Access:
    """Return the application's keys and limits."""
    return cast(Access, current_app.extensions[EXTENSION])


def secrets_of(authorization: str) -> list[str] | None:
    """Return what may be the key in a header `Authorization`; None if it is of a kind that has none."""
    scheme, _, credentials = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return [credentials.strip()]
        case "basic":
            try:
                # The key is the user name, as Segment's trackers send it, or the password.
                user, _, password = b64decode(credentials, validate=True).decode().partition(":")
            except ValueError:
                return [""]
            return [user, password]
    return None


def is_loopback(host: str) -> bool:
    """Return whether a host, with a port or without, is this machine itself."""
    name = ""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_from_here() -> bool:
    """Return whether a page of ours makes the request, or its reader, and no page of another origin."""
    # Where a proxy has changed `Host`, browsers say it better than that and `Origin`.
    if site := request.headers.get("Sec-Fetch-Site"):
        return site in ("same-origin", "none")
    _, _, host = request.headers.get("Origin", "").partition("://")
    return bool(host) and host.lower() == request.host.lower()


def refuse_foreign() -> None:
    """Refuse a request that changes something and that a page of another origin may have made.

    Raises:
        ApiError: it may be one.
    """
    if not is_from_here():
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            "foreign_origin",
            "A page of another origin made this request. A proxy in between has to pass on Host and Origin.",
        )


def client_address() -> str:
    """Return the address of the request's client."""
    return request.remote_addr or ""


def describe(app: APIFlask, spec: dict[str, Any]) -> None:
    """Describe in the OpenAPI document how a key is sent, and which scope each operation needs."""
    allowed: Access = app.extensions[EXTENSION]
    spec.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key of API_KEYS"},
        "basic": {
            "type": "http",
            "scheme": "basic",
            "description": "A key of API_KEYS as user name, as trackers send it, or as password",
        },
        "login": {"type": "apiKey", "in": "cookie", "name": _COOKIE, "description": f"A login at {LOGIN}"},
    }
    limited = [429] if allowed.is_on or allowed._rate is not None else []
    problems = ([401, 403] if allowed.is_on else []) + limited
    endpoints = {
        (_written(rule.rule), method.lower()): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    for route, operations in spec["paths"].items():
        for method, operation in operations.items():
            endpoint = endpoints[route, method]
            scope = allowed.needed(app, endpoint)
            if scope is None:
                continue
            for name, other in needed_by(app.view_functions[endpoint]).parameters.items():
                [parameter] = [each for each in operation["parameters"] if each["name"] == name]
                parameter["description"] += f". A key needs the scope {other} for it"
            if allowed.is_on:
                operation["security"] = [{name: [scope]} for name in ("bearer", "basic", "login")]
            operation["responses"].update(
                {str(status): body for status, body in documented(*problems).items()}
            )


def _written(rule: str) -> str:
    """Return a route as the OpenAPI document writes it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _login_of(key: Key) -> str:
    """Return what a login has of its key: it ends when the key goes."""
    return blake2b(key.digest, digest_size=16).hexdigest()


def _client_of(address: str) -> str:
    """Return what is one client: of IPv6 a network, in which anybody has addresses without number."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))


def _caller(allowed: Access, scope: Scope) -> Caller:
    sent = secrets_of(request.headers.get("Authorization", ""))
    if sent is None and (key := allowed.logged_in()):
        if request.method not in _SAFE:
            refuse_foreign()
        allowed.check(key, scope)
        return Caller(key, has_logged_in=True)
    return Caller(allowed.admit(sent or (), scope, client_address()), has_logged_in=False)


def _shows_pages() -> bool:
    """Return whether a browser goes to an address, rather than a program or a script asks for it."""
    return (
        request.method in ("GET", "HEAD")
        and "part" not in request.args
        and any(kind == "text/html" for kind, _ in request.accept_mimetypes)
    )
