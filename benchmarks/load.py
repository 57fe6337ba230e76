"""The API as a process of its own, and requests that are sent to it at a steady rate."""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from clickstream_assets.local.children import Child

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@contextmanager
def api(workers: int, settings: Mapping[str, str] | None = None) -> Iterator[tuple[int, psutil.Process]]:
    """Serve the API on a free port; gives it and the process that the workers are children of.

    Args:
        workers: how many worker processes.
        settings: environment variables that are added to those of this process.
    """
    command = [str(Path(sys.executable).with_name("clickstream")), "api", "--port", "0"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "API_WORKERS": str(workers), **(settings or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stderr
        for line in process.stderr:
            if found := re.search(rb"Listening at: http://127.0.0.1:(\d+)", line):
                yield int(found[1]), psutil.Process(process.pid)
                return
        raise SystemExit("the API did not start")
    finally:
        Child("API", process, Path(os.devnull)).stop()


class Client:
    """A connection that has one request under way at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def answer(self) -> int | None:
        """Read what has come; the status of the answer, once all of it has."""
        self._received += self.socket.recv(262_144)
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        found = _LENGTH.search(self._received, 0, end)
        if not found or len(self._received) < end + 4 + int(found[1]):
            return None
        status = int(self._received[9:12])
        self._received = b""
        return status


def load(port: int, requests: Sequence[bytes], rate: float, connections: int) -> dict[str, Any]:
    """Send requests when they are due, and time each from then on: what waits behind a slow one is slow too.

    Args:
        port: where the API listens.
        requests: HTTP/1.1, made beforehand: it is the server that is measured.
        rate: requests a second.
        connections: how many there are, with one request under way on each at a time.

    Returns:
        `not_ok`, the number of answers that are not 200; `p50_ms`, `p90_ms`, `p99_ms` and `max_ms` of the others;
        `took`, in seconds; `waits_for_a_connection`, how often all were busy when a request was due.
    """
    clients = [Client(port) for _ in range(connections)]
    idle, late = deque(clients), 0
    times: list[float] = []
    refused = sent = 0
    total = len(requests)
    with selectors.DefaultSelector() as ready:
        for client in clients:
            ready.register(client.socket, selectors.EVENT_READ, client)
        start = time.monotonic()
        while len(times) + refused < total:
            now = time.monotonic()
            while sent < total and start + sent / rate <= now:
                if not idle:
                    late += 1
                    break
                client = idle.popleft()
                client.due = start + sent / rate
                client.socket.sendall(requests[sent])
                sent += 1
            wait = start + sent / rate - time.monotonic() if idle and sent < total else 1.0
            for key, _ in ready.select(max(0.0, wait)):
                client = key.data
                status = client.answer()
                if status is None:
                    continue
                idle.append(client)
                if status == 200:
                    times.append(1000 * (time.monotonic() - client.due))
                else:
                    refused += 1
        took = time.monotonic() - start
    for client in clients:
        client.socket.close()
    times.sort()
    return {
        "ok": len(times),
        "not_ok": refused,
        **{f"p{part}_ms": round(times[len(times) * part // 100], 1) for part in (50, 90, 99) if times},
        "max_ms": round(times[-1], 1) if times else None,
        "took": took,
        "waits_for_a_connection": late,
    }


def processor_seconds(server: psutil.Process) -> float:
    """Return what the worker processes have used."""
    times = [worker.cpu_times() for worker in server.children()]
    return sum(one.user + one.system for one in times)
