"""Clients that send slowly, read slowly or do nothing at all, on real sockets: the others are answered meanwhile."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.served import Served, served

REQUEST = b"GET /openapi.json HTTP/1.1\r\nHost: shop\r\n"
SLOW: dict[str, tuple[bytes, bytes]] = {
    "headers": (REQUEST + b"X-Slow: ", b"x"),
    "a body": (REQUEST + b"Content-Length: 60000\r\n\r\n", b"x"),
    "a body in chunks": (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b"x"),
    "nothing at all": (b"", b""),
    "no second request": (REQUEST + b"\r\n", b""),
    "requests without reading answers": ((REQUEST + b"\r\n") * 200, b""),
}
"""Bytes that a client sends at first, and then every second."""


class Crowd:
    """Connections of slow clients: so many all the time, as far as a client sees it that the server closes one."""

    def __init__(self, address: str, number: int, first: bytes, then: bytes) -> None:
        url = urlsplit(address)
        self._address = (url.hostname, url.port)
        self._first, self._then = first, then
        self._clients = [self._connect() for _ in range(number)]
        self.ports = {client.getsockname()[1] for client in self._clients}
        """Those of the first."""

    def _connect(self) -> socket.socket:
        client = socket.socket()
        # As little as the kernel allows: what the server sends has nowhere to go.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(self._address)
        client.sendall(self._first)
        return client

    def go_on(self) -> None:
        """Send every client's next piece, and have others in the place of those that were hung up on."""
        for number, client in enumerate(self._clients):
            try:
                client.sendall(self._then)
                if not _is_closed(client):
                    continue
            except OSError:
                pass
            client.close()
            self._clients[number] = self._connect()

    def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            client.close()


def _is_closed(client: socket.socket) -> bool:
    ended = select.poll()
    ended.register(client, select.POLLRDHUP)
    return bool(ended.poll(0))


@contextmanager
def crowd(api: Served, number: int, first: bytes, then: bytes) -> Iterator[Crowd]:
    """A crowd that goes on every second."""
    with closing(Crowd(api.address, number, first, then)) as clients:
        stop = threading.Event()

        def go_on() -> None:
            while not stop.wait(1):
                clients.go_on()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield clients
        finally:
            stop.set()
            thread.join()


def answered(api: Served, within: float) -> None:
    """See that a new client gets its answers."""
    live = requests.get(f"{api.address}/health/live", timeout=within)
    assert live.json() == {"status": "live"}
    assert requests.get(f"{api.address}/openapi.json", timeout=10 * within).json()["openapi"]


def ports_of_clients(api: Served) -> set[int]:
    """Return the ports of the clients whose connections the server's processes hold."""
    workers = psutil.Process(api.process.pid).children()
    return {held.raddr.port for worker in workers for held in worker.net_connections() if held.raddr}


@pytest.mark.slow
def test_slow_clients_keep_nobody_waiting_and_are_hung_up_on() -> None:
    with (
        served(Settings(_env_file=None), API_REQUEST_SECONDS="3", API_IDLE_SECONDS="4") as api,
        ExitStack() as crowds,
    ):
        answered(api, within=20)
        slow = [crowds.enter_context(crowd(api, 50, *sent)) for sent in SLOW.values()]
        held = {port for clients in slow for port in clients.ports}
        assert len(held) == 300
        while held & ports_of_clients(api):
            answered(api, within=20)


@pytest.mark.long
def test_a_minute_of_slow_clients_delays_no_liveness_by_a_second() -> None:
    with served(Settings(_env_file=None)) as api, ExitStack() as crowds:
        answered(api, within=20)
        for sent in SLOW.values():
            crowds.enter_context(crowd(api, 50, *sent))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answered(api, within=1)


LARGE = {
    "a head": (REQUEST + b"X-Large: " + b"x" * 32_800 + b"\r\n\r\n", 431),
    "a head without an end": (REQUEST + b"X-Large: " + b"x" * 32_800, 431),
    "a body that it announces": (REQUEST + b"Content-Length: 70000\r\n\r\n", 413),
    "a body in chunks": (
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 0x10000 + b"\r\n1\r\nx",
        413,
    ),
    "no HTTP": (b"\x16\x03\x01\x00\x00\r\n\r\n", 400),
    "another request behind it": (REQUEST + b"\r\n" + REQUEST + b"\r\n", 200),
}
"""Bytes that a client sends before it reads, and the status of the only answer to them."""


@pytest.mark.slow
def test_what_is_too_large_is_refused_and_what_comes_unasked_is_left_out() -> None:
    with served(Settings(_env_file=None)) as api:
        url = urlsplit(api.address)
        for name, (sent, status) in LARGE.items():
            with closing(socket.create_connection((url.hostname, url.port), timeout=60)) as client:
                client.sendall(sent)
                received = client.makefile("rb").read()
            assert received.startswith(f"HTTP/1.1 {status} ".encode()), name
            assert received.count(b"HTTP/1.1 ") == 1, name
            assert b"connection: close" in received.lower(), name


@pytest.mark.slow
def test_a_flood_of_connections_drives_out_the_slowest() -> None:
    settings = Settings(_env_file=None)
    patient = {"API_WORKERS": "1", "API_REQUEST_SECONDS": "600", "API_IDLE_SECONDS": "600"}
    with served(settings, API_CONNECTIONS="20", **patient) as api:
        answered(api, within=20)
        with crowd(api, 200, *SLOW["headers"]) as clients:
            while len(clients.ports & ports_of_clients(api)) > 20:
                answered(api, within=20)
            answered(api, within=20)


@pytest.mark.long
def test_hundreds_of_clients_may_keep_their_connections() -> None:
    with served(Settings(_env_file=None)) as api:
        url = urlsplit(api.address)
        assert url.hostname
        clients = [HTTPConnection(url.hostname, url.port, timeout=20) for _ in range(300)]
        for _ in range(2):
            for client in clients:
                client.request("GET", "/health/live")
                assert client.getresponse().read() == b'{"status":"live"}\n'
        # None had to connect again.
        assert len(ports_of_clients(api)) == 300
        for client in clients:
            client.close()
