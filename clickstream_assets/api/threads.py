"""Flask's application on an event loop: a thread answers each request, once all of it is there.

What the client does not take of the answer waits on the loop, not in the thread.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from clickstream_assets.api.asgi import Answer, Receive, Scope, Send, body_of

THREADS = 16
"""Requests that a worker process answers at once. One thread more answers `/health/live` and nothing else."""
_LIVE = "/health/live"


class Threads:
    """The ASGI application that has a WSGI application answer in threads."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._live = ThreadPoolExecutor(1)
        self._others = ThreadPoolExecutor(THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = await body_of(receive)
        if body is None:
            return
        threads = self._live if scope["path"] == _LIVE else self._others
        answer = await asyncio.get_running_loop().run_in_executor(
            threads, self._answer, _environ(scope, body)
        )
        await answer.send(send)

    def _answer(self, environ: dict[str, Any]) -> Answer:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
            started[:] = [(status, headers)]

        parts: Iterable[bytes] = self._application(environ, start_response)
        try:
            body = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        [(status, headers)] = started
        return Answer(int(status[:3]), headers, body)


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return a request as WSGI has it (PEP 3333)."""
    host, port = scope["server"]
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REMOTE_ADDR": scope["client"][0] if scope.get("client") else "",
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if name not in _OF_THE_CONNECTION and b"_" not in name:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


# Their body is read already, in whole.
_OF_THE_CONNECTION = (b"content-length", b"transfer-encoding")
