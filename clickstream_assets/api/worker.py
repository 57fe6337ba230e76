"""A worker process of the API: gunicorn's, with waitress for its sockets and threads.

Waitress takes a request to a thread once all of it is there, and sends an answer to a slow reader while the thread goes
on to the next request, so a client that is slow, on purpose or not, costs a socket. It has no limit to the time that a
request or an answer may take in all, and keeps new clients waiting once its connections are used up: both are here.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

from gunicorn.workers.base import Worker as GunicornWorker  # type: ignore[import-untyped]
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from clickstream_assets.api.collector_routes import route_of
from clickstream_assets.settings import Settings

THREADS = 16
"""Requests that a worker process answers at once. One thread more answers `/health/live` and nothing else, and others
answer those that bring events: each waits for Kafka.
"""
HEAD_BYTES = 32_768
"""Most bytes of a request's line and headers: long lists of excluded products are part of the address."""
_BODY_BYTES = 65_536
_LIVE = "/health/live"
_TURN_SECONDS = 1.0

# It warns of each request that finds no thread free, which is what its queue is for.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class Worker(GunicornWorker):
    """Serves until it is told to stop; then requests under way are finished."""

    _server: _Server | None = None

    def run(self) -> None:
        """See the base class."""
        [listener] = self.sockets
        server = self._server = _Server(self.wsgi, listener.sock, self.app.settings)
        while self.alive and self.ppid == os.getppid():
            self._turn(server)
        server.stop_listening()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while server.is_busy and time.monotonic() < deadline:
            self._turn(server)

    def handle_exit(self, *signal: Any) -> None:
        """See the base class."""
        super().handle_exit(*signal)
        if self._server:
            self._server.pull_trigger()

    def _turn(self, server: _Server) -> None:
        self.notify()
        wasyncore.loop(_TURN_SECONDS, use_poll=True, map=server.map, count=1)


class _Limits(Adjustments):
    """The limits of a request, and those of one that brings events."""

    of_events: Adjustments


class _Request(HTTPRequestParser):
    """A request as it comes in; what a client sends behind it without waiting for the answer is left out.

    A client that sends many and reads none of the answers would have a thread wait for it.
    """

    adj: Adjustments

    def parse_header(self, header_plus: bytes) -> None:
        """See the base class."""
        super().parse_header(header_plus)
        if isinstance(self.adj, _Limits) and route_of(self.path):
            self.adj = self.adj.of_events

    def received(self, data: bytes) -> int:
        """See the base class."""
        taken: int = super().received(data)
        if self.completed and not self.empty and taken < len(data):
            self.headers["CONNECTION"] = "close"
            return len(data)
        return taken


class _Channel(HTTPChannel):
    """A connection, and since when it waits for its client."""

    parser_class = _Request

    waits_for: object = None
    """The rest of a request, or the taking of an answer: an object of its own each. None while it waits for neither."""
    _waits_since = 0.0

    @property
    def is_answering(self) -> bool:
        """True if a thread has a request of it, or is about to."""
        return bool(self.requests)

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way: not even a part of a request has come in."""
        return not (self.requests or self.request or self.total_outbufs_len)

    @property
    def since(self) -> float:
        """Time since when it waits for its client, or else is idle."""
        return self.last_activity if self.waits_for is None else self._waits_since

    def note(self, now: float) -> None:
        """Note what it waits for now."""
        waits_for = self.request or (self.outbufs[-1] if self.total_outbufs_len else None)
        if waits_for is not self.waits_for:
            self.waits_for, self._waits_since = waits_for, now


class _Server(TcpWSGIServer):
    """Sockets and threads of a worker process.

    Args:
        application: the WSGI application.
        listener: the socket to listen on, which worker processes share.
        settings: the limits.
    """

    channel_class = _Channel

    def __init__(self, application: Any, listener: socket.socket, settings: Settings) -> None:
        self._settings = settings
        self.map: dict[int, Any] = {}
        self._live, self._events, self._others = (ThreadedTaskDispatcher() for _ in range(3))
        self._live.set_thread_count(1)
        self._events.set_thread_count(settings.collector_threads if settings.collector_keys else 1)
        self._others.set_thread_count(THREADS)
        options = {
            "ident": None,
            "max_request_header_size": HEAD_BYTES,
            "channel_timeout": settings.api_idle_seconds,
            "cleanup_interval": 1,
            # For when all have a thread or wait for one; the listener and what wakes the server count too.
            "connection_limit": settings.api_connections + 3,
        }
        limits = _Limits(max_request_body_size=_BODY_BYTES, **options)
        # Twice as many as are taken, so that most of those who send too many are told so by the collector.
        limits.of_events = Adjustments(max_request_body_size=2 * settings.collector_max_bytes, **options)
        super().__init__(
            application,
            map=self.map,
            _sock=listener,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
            dispatcher=self._others,
            adj=limits,
        )

    def add_task(self, channel: _Channel) -> None:
        """Have a thread answer a request: one of those for requests of its kind, or of those for all others."""
        # A request that could not be parsed has no path.
        path = getattr(channel.requests[0], "path", "")
        if path == _LIVE:
            self._live.add_task(channel)
        elif route_of(path):
            self._events.add_task(channel)
        else:
            self._others.add_task(channel)

    def handle_accept(self) -> None:
        """Take a connection; if that is one too many, close the one that has waited for its client for longest."""
        super().handle_accept()
        if len(self.active_channels) > self._settings.api_connections:
            waiting = [channel for channel in self._channels if not channel.is_answering]
            if waiting:
                min(waiting, key=lambda channel: channel.since).handle_close()

    def maintenance(self, now: float) -> None:
        """Close connections that are idle or slow for too long; called every second.

        The base class knows of idle ones alone: a byte now and then is enough for it.
        """
        super().maintenance(now)
        for channel in self._channels:
            channel.note(now)
            limit = self._settings.api_request_seconds if channel.request else self._settings.api_idle_seconds
            if channel.waits_for is not None and now - channel.since > limit:
                channel.will_close = True

    def stop_listening(self) -> None:
        """Take no more connections and requests; those under way go on."""
        # Not its own `close`, which also ends what threads wake it by.
        wasyncore.dispatcher.close(self)
        for channel in self._channels:
            if channel.is_idle:
                channel.handle_close()

    @property
    def is_busy(self) -> bool:
        """True if a request is under way, or an answer not sent."""
        return any(channel.is_answering or channel.total_outbufs_len for channel in self._channels)

    @property
    def _channels(self) -> list[_Channel]:
        return list(self.active_channels.values())
