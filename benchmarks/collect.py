"""The collector: events sent over HTTP at a steady rate, until Kafka has them; time to the answer, and processor time.

    python -m benchmarks.collect --rate 3000 --seconds 20
    python -m benchmarks.collect --rate 20000 --batch 100 --seconds 20
    python -m benchmarks.collect --rate 3000 --without-kafka

A request's time counts from when it was due, so what waits behind a slow one is slow too. `cores` is the processor time
of the worker processes by the time that it took: where other work takes the cores, it is what can be compared. With
`--without-kafka` a request of that rate asks `/health/live` instead, which is what Flask alone costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import kafka, say
from clickstream_assets.local.children import Child
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.topic import Topics

KEY = "benchmark"
WARM_UP_SECONDS = 3.0
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@contextmanager
def api(workers: int) -> Iterator[tuple[int, psutil.Process]]:
    """Serve the API on a free port; gives it and the process that the workers are children of."""
    command = [str(Path(sys.executable).with_name("clickstream")), "api", "--port", "0"]
    settings = {"COLLECTOR_WRITE_KEYS": KEY, "API_WORKERS": str(workers)}
    process = subprocess.Popen(
        command,
        env=os.environ | settings,
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


def event(number: int) -> dict[str, Any]:
    """Make an event as a shop's page sends it."""
    return {
        "event_id": f"e-{number:012d}",
        "event_type": "view",
        "timestamp": datetime.now(UTC).isoformat(),
        "anonymous_id": f"a-{number % 5000}",
        "session_id": f"s-{number % 7000}",
        "product_id": f"P-{number % 500}",
        "product_category": "electronics.smartphone",
        "price": 12.5,
        "currency": "EUR",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "properties": {"page": "/p", "referrer": "https://example.org/"},
    }


def request(first: int, batch: int) -> bytes:
    """Make a request with so many events."""
    events = [event(first + place) for place in range(batch)]
    body = json.dumps(events if batch > 1 else events[0]).encode()
    return (
        "POST /api/events HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
        f"Authorization: Basic {b64encode(KEY.encode() + b':').decode()}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


LIVE = b"GET /health/live HTTP/1.1\r\nHost: shop\r\n\r\n"


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


def load(
    port: int, rate: float, batch: int, seconds: float, connections: int, is_live: bool
) -> dict[str, Any]:
    """Send requests when they are due; counts of answers, and their times in milliseconds."""
    clients = [Client(port) for _ in range(connections)]
    idle, late = deque(clients), 0
    times: list[float] = []
    refused = sent = 0
    gap = batch / rate
    # Made beforehand: it is the server that is measured.
    total = int(seconds / gap)
    requests = [LIVE] * total if is_live else [request(number * batch, batch) for number in range(total)]
    with selectors.DefaultSelector() as ready:
        for client in clients:
            ready.register(client.socket, selectors.EVENT_READ, client)
        start = time.monotonic()
        while len(times) + refused < total:
            now = time.monotonic()
            while sent < total and start + sent * gap <= now:
                if not idle:
                    late += 1
                    break
                client = idle.popleft()
                client.due = start + sent * gap
                client.socket.sendall(requests[sent])
                sent += 1
            wait = start + sent * gap - time.monotonic() if idle and sent < total else 1.0
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
        "requests": total,
        "events_per_second": round(len(times) * batch / took),
        "not_acknowledged": refused,
        "p50_ms": round(times[len(times) // 2], 1),
        "p99_ms": round(times[int(len(times) * 0.99)], 1),
        "max_ms": round(times[-1], 1),
        "took": took,
        "waits_for_a_connection": late,
    }


def processor_seconds(server: psutil.Process) -> float:
    """Return what the worker processes have used."""
    times = [worker.cpu_times() for worker in server.children()]
    return sum(one.user + one.system for one in times)


def records_in_kafka() -> int:
    """Return how many records the topic has."""
    return sum(held.high for held in Topics(load_settings()).offsets().values())


def main() -> None:
    """Start Kafka and the API, and send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=3000, help="Events a second.")
    parser.add_argument("--batch", type=int, default=1, help="Events in a request.")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--without-kafka", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        stack.enter_context(kafka())
        port, server = stack.enter_context(api(arguments.workers))
        options = (arguments.rate, arguments.batch)
        warm = load(port, *options, WARM_UP_SECONDS, arguments.connections, arguments.without_kafka)
        say(f"warm: {warm}")
        before = processor_seconds(server)
        found = load(port, *options, arguments.seconds, arguments.connections, arguments.without_kafka)
        used = processor_seconds(server) - before
        records = None if arguments.without_kafka else records_in_kafka()
        print(
            json.dumps(
                {
                    "rate": arguments.rate,
                    "batch": arguments.batch,
                    "workers": arguments.workers,
                    **{name: value for name, value in found.items() if name != "took"},
                    "cores": round(used / found["took"], 2),
                    "processor_us_per_event": round(1e6 * used / found["requests"] / arguments.batch),
                    "records_in_kafka": records,
                    "load": round(os.getloadavg()[0], 1),
                }
            )
        )


if __name__ == "__main__":
    main()
