"""A worker process of the API: gunicorn's, with uvicorn for its sockets.

One thread reads requests and sends answers, so a client that is slow, on purpose or not, costs a socket. uvicorn has no
limit to the size of a request, nor to the time that a request or an answer may take in all, and keeps new clients
waiting once its connections are used up: all that is here.
"""

from __future__ import annotations

import gc
import logging
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker as GunicornWorker  # type: ignore[import-untyped]
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from clickstream_assets.api.asgi import HEADERS
from clickstream_assets.api.collector_routes import route_of

if TYPE_CHECKING:
    import asyncio

    from clickstream_assets.settings import Settings

HEAD_BYTES = 32_768
"""Most bytes of a request's line and headers: long lists of excluded products are part of the address."""
_BODY_BYTES = 65_536
# Of uvicorn's loop, which looks ten times a second whether it is to end.
_TICKS_PER_SECOND = 10

# It warns of each request that it cannot parse.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class Worker(GunicornWorker):
    """Serves until it is told to stop; then requests under way are finished."""

    def run(self) -> None:
        """See the base class."""
        # What is loaded stays; and thousands of events that wait for Kafka are in no cycle. To look for one at every
        # 700th object takes a sixth of a batch's processor time.
        gc.freeze()
        gc.set_threshold(50_000)
        _Server(self).run([listener.sock for listener in self.sockets])


class _Server(Server):
    """Connections of a worker process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._settings: Settings = worker.app.settings
        super().__init__(
            Config(
                worker.wsgi,
                loop="uvloop",
                # Called, as a class would be.
                http=self._connection,  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=bool(self._settings.trusted_proxies),
                forwarded_allow_ips=self._settings.trusted_proxies,
                server_header=False,
                timeout_keep_alive=self._settings.api_idle_seconds,
                timeout_graceful_shutdown=worker.cfg.graceful_timeout,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """See the base class; called ten times a second."""
        worker = self._worker
        if counter % _TICKS_PER_SECOND == 0:
            worker.notify()
            for connection in self._connections:
                if connection.is_too_slow:
                    connection.transport.abort()
        return await super().on_tick(counter) or not worker.alive or worker.ppid != os.getppid()

    def make_room(self) -> None:
        """Close the connection that has waited for its client for longest, if there is one too many."""
        if len(self._connections) > self._settings.api_connections:
            waiting = [connection for connection in self._connections if connection.waits]
            if waiting:
                min(waiting, key=lambda connection: connection.since).transport.abort()

    @property
    def _connections(self) -> list[_Connection]:
        return list(self.server_state.connections)  # type: ignore[arg-type]

    def _connection(self, **options: Any) -> _Connection:
        return _Connection(self, self._settings, **options)


class _Connection(HttpToolsProtocol):
    """A connection, and since when it waits for its client: for a request, its rest, or the taking of an answer."""

    def __init__(self, owner: _Server, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._owner = owner
        self._settings = settings
        self._is_receiving = False
        self._head_bytes = self._body_bytes = self._most_bytes = 0
        self._refusal: HTTPStatus | None = None
        self.since = self.loop.time()
        """Time since when it waits, of the loop's clock."""

    @property
    def is_answering(self) -> bool:
        """True if the application has a whole request of it."""
        return self.cycle is not None and not self._is_receiving and not self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """True if its client is to do something."""
        return not self.is_answering or self.flow.write_paused

    @property
    def is_too_slow(self) -> bool:
        """True if it has waited for as long as it may."""
        limit = self._settings.api_request_seconds if self._is_receiving else self._settings.api_idle_seconds
        return self.waits and self.loop.time() - self.since > limit

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See the base class."""
        super().connection_made(transport)
        self._owner.make_room()

    def data_received(self, data: bytes) -> None:
        """See the base class."""
        super().data_received(data)
        if self._is_receiving and not self._most_bytes:
            # The parser keeps a header until it has all of it.
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._answer_at_once(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """See the base class."""
        if self.is_answering:
            # A client that sends many and reads none of the answers would have all of them wait here.
            raise _UnreadError
        super().on_message_begin()
        self._is_receiving, self.since = True, self.loop.time()
        self._head_bytes = self._body_bytes = self._most_bytes = 0

    def on_headers_complete(self) -> None:
        """See the base class."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_headers_complete()
        # Of events twice as many as are taken, so that most of those who send too many are told so by the collector.
        self._most_bytes = (
            2 * self._settings.collector_max_bytes if route_of(self.scope["path"]) else _BODY_BYTES
        )
        if any(name == b"content-length" and int(value) > self._most_bytes for name, value in self.headers):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def on_body(self, body: bytes) -> None:
        """See the base class."""
        self._body_bytes += len(body)
        if self._body_bytes > self._most_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See the base class."""
        super().on_message_complete()
        self._is_receiving = False

    def on_response_complete(self) -> None:
        """See the base class."""
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See the base class."""
        self.since = self.loop.time()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """See the base class; called when the parser stops."""
        if self.is_answering:
            # At what came behind a request, whose answer is the last one.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        elif self._refusal:
            self._answer_at_once(self._refusal)
        else:
            super().send_400_response(msg)

    def _refuse(self, status: HTTPStatus) -> None:
        self._refusal = status
        raise _UnreadError

    def _answer_at_once(self, status: HTTPStatus) -> None:
        text = status.phrase.encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.transport.write(
            f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text
        )
        self.transport.close()


class _UnreadError(Exception):
    """Stops the parser: what comes now is not read."""
