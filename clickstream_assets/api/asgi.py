"""The parts that the API's ASGI applications share: the body of a request, and an answer in one piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
"""Headers that every answer has."""


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        status: HTTP's.
        headers: Names and values; those of its length are among them.
        body: All of it.
    """

    status: int
    headers: Iterable[tuple[str, str]]
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it, and wait until the client has taken so much of it that the rest is buffered."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


async def body_of(receive: Receive) -> bytes | None:
    """Return the body of a request once all of it has come; None if the client hung up before."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
