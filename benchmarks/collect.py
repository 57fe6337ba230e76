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
from base64 import b64encode
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from benchmarks.load import api, load, processor_seconds
from benchmarks.measure import kafka, say
from clickstream_assets.keys import Key, Scope, digest_of
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.topic import Topics

KEY = "benchmark"
WARM_UP_SECONDS = 3.0


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
        known = Key("benchmark", frozenset({Scope.COLLECT}), digest_of(KEY))
        port, server = stack.enter_context(api(arguments.workers, {"API_KEYS": known.entry}))
        per_second = arguments.rate / arguments.batch

        def requests(seconds: float) -> list[bytes]:
            numbers = range(int(seconds * per_second))
            if arguments.without_kafka:
                return [LIVE for _ in numbers]
            return [request(number * arguments.batch, arguments.batch) for number in numbers]

        warm = load(port, requests(WARM_UP_SECONDS), per_second, arguments.connections)
        say(f"warm: {warm}")
        sent = requests(arguments.seconds)
        before = processor_seconds(server)
        found = load(port, sent, per_second, arguments.connections)
        used = processor_seconds(server) - before
        records = None if arguments.without_kafka else records_in_kafka()
        print(
            json.dumps(
                {
                    "rate": arguments.rate,
                    "batch": arguments.batch,
                    "workers": arguments.workers,
                    "requests": len(sent),
                    "events_per_second": round(found["ok"] * arguments.batch / found["took"]),
                    "not_acknowledged": found["not_ok"],
                    **{name: value for name, value in found.items() if name not in ("took", "ok", "not_ok")},
                    "cores": round(used / found["took"], 2),
                    "processor_us_per_event": round(1e6 * used / len(sent) / arguments.batch),
                    "records_in_kafka": records,
                    "load": round(os.getloadavg()[0], 1),
                }
            )
        )


if __name__ == "__main__":
    main()
