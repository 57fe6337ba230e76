"""The collector: `POST /api/events` and Segment's HTTP API, from a shop's trackers to Kafka.

An ASGI application in front of Flask's: a request that waits for Kafka costs no thread, and one that Flask does not see
costs half (docs/decisions/0008). An answer says that Kafka has the events, each with what ingest will say of it.
"""

from __future__ import annotations

import logging
import time
import zlib
from http import HTTPStatus
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs

import msgspec

from clickstream_assets.api.access import Access, secrets_of
from clickstream_assets.api.access_log import log_request
from clickstream_assets.api.asgi import HEADERS, Answer, Application, Receive, Send, body_of
from clickstream_assets.api.asgi import Scope as RequestScope
from clickstream_assets.api.collector_routes import ROUTES, route_of
from clickstream_assets.api.experiments import Experiments
from clickstream_assets.api.metrics import count_events, count_request
from clickstream_assets.api.moment import Moment
from clickstream_assets.api.outages import Outage
from clickstream_assets.api.problems import ApiError, answer_of
from clickstream_assets.api.rates import RateLimit
from clickstream_assets.catalogue.units import SECOND
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.ingest.request_bodies import (
    Arrival,
    Sent,
    TooLargeError,
    events_of,
    record_of,
    unpacked,
)
from clickstream_assets.keys import Key, Scope
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.delivery import Delivery, UndeliveredError

_METHODS = "POST, OPTIONS"
# Whatever else a tracker of tomorrow sends is asked for by name, and answered so.
_HEADERS = "Authorization, Content-Type, Content-Encoding, X-Retry-Count"
_PREFLIGHT_SECONDS = "7200"
# Rules that a record breaks as a whole: there is no event in it, whatever ingest does with it.
_NO_EVENT = {"not_json", "not_an_object", "not_utf8", "avro", "protobuf"}
_JSON = "application/json"

_log = logging.getLogger(__name__)


class Collector:
    """The ASGI application that collects events, and passes all other requests on.

    Args:
        application: answers the others.
        settings: the limits and the topic.
        folder: where worker processes share what they have taken; none for one process.
        moment: what is to be read from Kafka while the server runs.
        experiments: what is to be written to Kafka before it ends.
        access: who may send events.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings,
        folder: Path | None,
        moment: Moment,
        experiments: Experiments,
        access: Access,
    ) -> None:
        self._application = application
        self._moment = moment
        self._experiments = experiments
        self._settings = settings
        self._rules = ValidationRules.of(settings).of_topic(settings.first_topic)
        self._access = access
        self._delivery = Delivery(settings)
        self._outage = Outage()
        self._rates = (
            RateLimit(settings.collector_rate_limit, len(access.keys), folder, name="events")
            if settings.collector_rate_limit and access.keys
            else None
        )

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        """Answer a request; or connect to Kafka when the server starts, and disconnect when it stops."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        route = route_of(scope["path"])
        if route is None:
            await self._application(scope, receive, send)
            return
        started = perf_counter()
        body = await body_of(receive)
        if body is None:
            return
        request = _Request(route, scope, body)
        status, headers, answer = await self._answered(request)
        headers |= HEADERS | {"Cache-Control": "no-store"} | self._allowed(request)
        headers["Content-Length"] = str(len(answer))
        await Answer(status, headers.items(), answer).send(send)
        seconds = perf_counter() - started
        if status != HTTPStatus.OK:
            # A line of each event that came in well would cost a tenth of what the event does, and tell nothing that
            # the metrics do not.
            log_request(request.method, route, status, len(answer), seconds)
        count_request(request.method, route, status, seconds)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._moment.open()
        if self._access.collects:
            self._delivery.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._moment.close()
        self._experiments.close()
        self._delivery.close()
        self._access.close()
        if self._rates:
            self._rates.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answered(self, request: _Request) -> tuple[HTTPStatus, dict[str, str], bytes]:
        try:
            if request.method == "POST":
                return HTTPStatus.OK, {"Content-Type": _JSON}, await self._collect(request)
            if request.method == "OPTIONS":
                return HTTPStatus.NO_CONTENT, {"Allow": _METHODS}, b""
            raise ApiError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method_not_allowed",
                f"{request.method} is not allowed here.",
                headers={"Allow": _METHODS},
            )
        except (ApiError, UndeliveredError) as error:
            problem, status, headers = answer_of(error)
            return HTTPStatus(status), headers, msgspec.json.encode(problem)
        except Exception:
            # As Flask does for the other routes.
            _log.exception("%s %s", request.method, request.route)
            failed = ApiError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "internal_server_error",
                "The service failed; its log says why.",
            )
            problem, status, headers = answer_of(failed)
            return HTTPStatus(status), headers, msgspec.json.encode(problem)

    async def _collect(self, request: _Request) -> bytes:
        """Have Kafka take a request's events, and return the answer.

        Raises:
            ApiError: the request is none that can be taken.
            UndeliveredError: Kafka does not take them.
        """
        if not self._access.collects:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "collector_off",
                "Events are not collected here: API_KEYS has no key that may collect.",
            )
        events, key = self._read(request)
        self._admit(key, len(events))
        arrival = Arrival(
            time.time_ns() // 1000,
            self._rules,
            ROUTES[request.route],
            # What a browser sends from a page says where it comes from. A server or a telephone sends its shoppers'
            # events, and its own program is not theirs.
            request.header(b"user-agent") if b"origin" in request.headers else None,
            self._settings.collector_clock_tolerance_seconds * SECOND,
        )
        records = [record_of(event, arrival) for event in events]
        judged = [parse_record(record, arrival.at, self._rules) for record in records]
        if records and all(_is_no_event(found) for found in judged):
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "no_events",
                "The body is no JSON object, no array of them, and no lines of them.",
            )
        with self._outage.remembered():
            await self._delivery.deliver(
                [(_key_of(found), record) for found, record in zip(judged, records, strict=True)]
            )
        verdicts = [
            _verdict(one, record, item)
            for record, found in enumerate(judged, start=1)
            for item, one in enumerate(found, start=1)
        ]
        rejected = sum(verdict["verdict"] == "rejected" for verdict in verdicts)
        count_events(len(verdicts) - rejected, rejected)
        return msgspec.json.encode(
            {
                "success": True,
                "accepted": len(verdicts) - rejected,
                "rejected": rejected,
                "verdicts": verdicts,
            }
        )

    def _read(self, request: _Request) -> tuple[list[Sent], Key]:
        """Return what a request says of each event, and its key."""
        limit = self._settings.collector_max_bytes
        if len(request.body) > limit:
            raise _too_large(f"The body has {len(request.body)} bytes, and may have {limit}.")
        encoding = request.header(b"content-encoding").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity", ""):
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                f"Content-Encoding: {encoding} is not read here, gzip is.",
                headers={"Accept-Encoding": "gzip"},
            )
        sent = _secrets_outside(request)
        if sent is not None:
            # Before anything is unpacked.
            key = self._admitted(request, sent)
        try:
            body = unpacked(request.body, limit)
        except TooLargeError:
            raise _too_large(
                f"Unpacked, the body has more than the {limit} bytes that it may have."
            ) from None
        except zlib.error as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "not_gzip", f"The body is no gzip: {error}.") from None
        events, key_in_body = events_of(body)
        if sent is None:
            key = self._admitted(request, [key_in_body or ""])
        if not body.strip():
            raise ApiError(HTTPStatus.BAD_REQUEST, "no_events", "The body is empty.")
        return events, key

    def _admitted(self, request: _Request, sent: list[str]) -> Key:
        return self._access.admit(sent, Scope.COLLECT, request.address)

    def _admit(self, key: Key, events: int) -> None:
        most = self._settings.collector_max_events
        if events > most:
            raise _too_large(f"The request has {events} events, and may have {most}.")
        if self._rates and (seconds := self._rates.wait_of(self._access.place_of(key), events)):
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_events",
                f"More than {self._settings.collector_rate_limit:g} events a second came with this key.",
                headers={"Retry-After": str(ceil(seconds))},
            )

    def _allowed(self, request: _Request) -> dict[str, str]:
        """Return the headers that let a page of another origin send events and read the answer."""
        origins = self._settings.collector_origins
        if not origins:
            return {}
        origin = request.header(b"origin")
        is_any = "*" in origins
        if not (is_any or origin.lower() in origins):
            return {"Vary": "Origin"}
        headers = {"Access-Control-Allow-Origin": "*" if is_any else origin, "Vary": "Origin"}
        if not is_any:
            # `navigator.sendBeacon` always sends with credentials, of which none is read here.
            headers["Access-Control-Allow-Credentials"] = "true"
        if b"access-control-request-method" in request.headers:
            return headers | {
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": request.header(b"access-control-request-headers") or _HEADERS,
                "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
            }
        return headers | {"Access-Control-Expose-Headers": "Retry-After"}


class _Request:
    """A request whose body has come.

    Attributes:
        route: That of its address.
        headers: By their names in small letters.
    """

    def __init__(self, route: str, scope: RequestScope, body: bytes) -> None:
        self.route = route
        self.scope = scope
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = body

    @property
    def address(self) -> str:
        """That of its client."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str:
        """Return a header, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")


def _too_large(detail: str) -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def _secrets_outside(request: _Request) -> list[str] | None:
    """Return what may be the key that a request is sent with outside of its body; None if nothing may."""
    sent = secrets_of(request.header(b"authorization"))
    query = request.scope["query_string"].decode("latin-1")
    if sent is not None or not query:
        return sent
    return parse_qs(query).get("write_key", [])[:1] or None


def _is_no_event(found: list[Any]) -> bool:
    return all(isinstance(one, Rejection) and one.field is None and one.rule in _NO_EVENT for one in found)


def _key_of(found: list[Any]) -> bytes | None:
    """Return the key of a record in Kafka: a visitor's events stay in order."""
    for one in found:
        if not isinstance(one, Rejection):
            visitor: str = one.user_id or one.anonymous_id or one.session_id
            return visitor.encode()
    return None


def _verdict(one: Any, record: int, item: int) -> dict[str, Any]:
    """Return what is said of an event, in the words that ingest has for it."""
    place = {"record": record, "item": item}
    if isinstance(one, Rejection):
        return place | {"verdict": "rejected", "field": one.field, "rule": one.rule}
    accepted = place | {"verdict": "accepted", "event_id": one.event_id}
    if one.field_problems:
        accepted["left_out"] = [{"field": field, "rule": rule} for field, rule, _ in one.field_problems]
    return accepted
