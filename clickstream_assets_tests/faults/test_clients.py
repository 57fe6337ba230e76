"""Clients that send slowly, read slowly or do nothing at all, on real sockets: the others are answered meanwhile."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.served import Served, served, workers_of
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import READER, Tracker, collecting, collector
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import new_topic

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

        def go_on(stop: threading.Event) -> None:
            while not stop.wait(1):
                clients.go_on()

        with in_background(go_on):
            yield clients


def answered(api: Served, within: float) -> None:
    """See that a new client gets its answers."""
    live = requests.get(f"{api.address}/health/live", timeout=within)
    assert live.json() == {"status": "live"}
    document = requests.get(f"{api.address}/openapi.json", auth=(READER, ""), timeout=10 * within)
    assert document.json()["openapi"]


def settle(fault: Fault, topic: Settings, tracker: Tracker, lake: Path) -> None:
    """Count what a well-behaved tracker has sent meanwhile."""
    settings = with_settings(topic, lake_path=str(lake))
    Ingestion.of(settings, DuckDBEngine(settings)).run()
    fault.stayed_healthy()
    fault.settle(
        take_account(settings, tracker.sent, (Part.TOPIC, Part.LAKE), repeated=bool(tracker.refused[503]))
    )


def ports_of_clients(api: Served) -> set[int]:
    """Return the ports of the clients whose connections the server's processes hold."""
    workers = psutil.Process(api.process.pid).children()
    return {held.raddr.port for worker in workers for held in worker.net_connections() if held.raddr}


@pytest.mark.fault("slow_headers")
def test_slow_clients_keep_nobody_waiting_and_are_hung_up_on(
    kafka: Settings, tmp_path: Path, fault: Fault
) -> None:
    topic = new_topic(kafka, partitions=3)
    limits = {"API_REQUEST_SECONDS": "3", "API_IDLE_SECONDS": "4"}
    with (
        served(Settings(_env_file=None), **collector(topic), **limits) as api,
        collecting(api.address) as tracker,
        ExitStack() as crowds,
    ):
        began = time.monotonic()
        answered(api, within=20)
        slow = [crowds.enter_context(crowd(api, 50, *sent)) for sent in SLOW.values()]
        held = {port for clients in slow for port in clients.ports}
        assert len(held) == 300
        slowest = 0.0
        while held & ports_of_clients(api):
            asked = time.monotonic()
            answered(api, within=20)
            slowest = max(slowest, time.monotonic() - asked)
        fault.saw(
            f"{len(held)} slow clients were hung up on within {time.monotonic() - began:.0f} s; the slowest answer to "
            f"two requests of others meanwhile took {slowest:.1f} s"
        )
    settle(fault, topic, tracker, tmp_path / "lake")


@pytest.mark.long
def test_a_minute_of_slow_clients_delays_no_liveness_by_a_second() -> None:
    with served(Settings(_env_file=None)) as api, ExitStack() as crowds:
        answered(api, within=20)
        for sent in SLOW.values():
            crowds.enter_context(crowd(api, 50, *sent))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answered(api, within=1)


EVENTS = b"POST /api/events HTTP/1.1\r\nHost: shop\r\n"
MEGABYTE = bytes(1_000_000)
LARGE = {
    "a line": (b"GET /" + b"x" * 32_800 + b" HTTP/1.1\r\nHost: shop\r\n\r\n", 431),
    "a head": (REQUEST + b"X-Large: " + b"x" * 32_800 + b"\r\n\r\n", 431),
    "a head without an end": (REQUEST + b"X-Large: " + b"x" * 32_800, 431),
    "a body that it announces": (REQUEST + b"Content-Length: 70000\r\n\r\n", 413),
    "a body in chunks": (
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 0x10000 + b"\r\n1\r\nx",
        413,
    ),
    "the collector's line": (b"POST /api/events?" + b"x" * 32_800 + b" HTTP/1.1\r\nHost: shop\r\n\r\n", 431),
    "the collector's head": (EVENTS + b"X-Large: " + b"x" * 32_800 + b"\r\n\r\n", 431),
    "a body that the collector is told of": (EVENTS + b"Content-Length: 100000000\r\n\r\n", 413),
    "no HTTP": (b"\x16\x03\x01\x00\x00\r\n\r\n", 400),
    "another request behind it": (REQUEST + b"\r\n" + REQUEST + b"\r\n", 401),
}
"""Bytes that a client sends before it reads, and the status of the only answer to them."""
ENDLESS = {
    "line": b"GET /",
    "head": REQUEST + b"X-Large: ",
    "body": REQUEST + b"Transfer-Encoding: chunked\r\n\r\n",
    "the collector's body": EVENTS + b"Transfer-Encoding: chunked\r\n\r\n",
}
"""Beginnings of what a client goes on with for 100 MB, whatever it is told."""


def pour(client: socket.socket, begin: bytes) -> None:
    """Send 100 MB."""
    client.sendall(begin)
    piece = b"%x\r\n%s\r\n" % (len(MEGABYTE), MEGABYTE) if b"chunked" in begin else MEGABYTE
    for _ in range(100):
        client.sendall(piece)


@pytest.mark.fault("huge_requests")
def test_what_is_too_large_is_refused_and_what_comes_unasked_is_left_out(
    kafka: Settings, tmp_path: Path, fault: Fault
) -> None:
    topic = new_topic(kafka, partitions=3)
    with (
        served(Settings(_env_file=None), **collector(topic)) as api,
        collecting(api.address) as tracker,
    ):
        url = urlsplit(api.address)
        for name, (sent, status) in LARGE.items():
            with closing(socket.create_connection((url.hostname, url.port), timeout=60)) as client:
                client.sendall(sent)
                received = client.makefile("rb").read()
            assert received.startswith(f"HTTP/1.1 {status} ".encode()), name
            assert received.count(b"HTTP/1.1 ") == 1, name
            assert b"connection: close" in received.lower(), name
            if status in (413, 431):
                fault.saw(received.decode(), r"HTTP/1.1 .*")
        workers = workers_of(api.process.pid, 2)
        before = [worker.memory_info().rss for worker in workers]
        for begin in ENDLESS.values():
            # Hung up on, before the end.
            with (
                closing(socket.create_connection((url.hostname, url.port), timeout=60)) as client,
                pytest.raises(OSError, match=r"reset|Broken pipe"),
            ):
                pour(client, begin)
            answered(api, within=20)
        grown = max(worker.memory_info().rss - old for worker, old in zip(workers, before, strict=True))
        assert grown < 60_000_000
        fault.saw(f"of four requests of 100 MB all were hung up on; a worker had {grown / 1e6:.0f} MB more")
    settle(fault, topic, tracker, tmp_path / "lake")


@pytest.mark.slow
@pytest.mark.fault("connection_flood")
def test_a_flood_of_connections_drives_out_the_slowest(fault: Fault) -> None:
    settings = Settings(_env_file=None)
    patient = {"API_WORKERS": "1", "API_REQUEST_SECONDS": "600", "API_IDLE_SECONDS": "600"}
    with served(settings, API_CONNECTIONS="20", **patient) as api:
        answered(api, within=20)
        with crowd(api, 200, *SLOW["headers"]) as clients:
            while len(clients.ports & ports_of_clients(api)) > 20:
                answered(api, within=20)
            answered(api, within=20)
            left = len(clients.ports & ports_of_clients(api))
        fault.saw(f"all but {left} of 200 connections were hung up on, and others were answered")
    fault.stayed_healthy()
    fault.keeps_no_records("the API alone, which reads")


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
