"""A TLS front before a real server, with a certificate of an authority of one's own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Front:
    """Where it listens, and the PEM file of the authority that signed its certificate."""

    port: int
    ca_file: Path


@contextmanager
def tls_front(server_port: int, folder: Path, name: str = LOOPBACK) -> Iterator[Front]:
    """Pass connections on to a port of loopback; the certificate is for a name, its authority's file in a folder."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    async def connect(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(LOOPBACK, server_port)
        await asyncio.gather(pipe(client, to_server), pipe(server, to_client), return_exceptions=True)

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(connect, LOOPBACK, 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Front(listening.sockets[0].getsockname()[1], file)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        # What was cancelled ends.
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
