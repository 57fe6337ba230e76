"""`GET /api/recommend`: answers a second, and their times, with all that serves them and the load on one machine.

    python -m benchmarks.requests --rate 1000
    python -m benchmarks.requests --rate 1200 --published-only

PostgreSQL serves 100,000 shoppers' lists of 20 of 20,000 products; a model of 100,000 sessions says what comes next;
Kafka has 20 events of each of 2,000 shoppers, of the last minute. Requests for these shoppers come when they are due,
so their times have the wait behind slow ones in them. With `--published-only` the API reads no last events, and the
requests are for all shoppers, in turn. All is drawn at random, with one seed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.load import api, load, processor_seconds
from benchmarks.measure import say, servers
from clickstream_assets.catalogue import (
    MET_PRODUCTS,
    NEXT_PRODUCT_PARTS,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    SERVED_MODELS,
)
from clickstream_assets.defs.models.next_product import parts_of
from clickstream_assets.recommender.next_product import Assortment, NextProduct, Sessions
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.producer import KafkaSink
from clickstream_assets.stores.postgres.publishing import publication

SHOPPERS, PRODUCTS, CATEGORIES, SESSIONS = 100_000, 20_000, 200, 100_000
LISTED, OF_SESSION = 20, 5
VISITORS, EVENTS_OF_VISITOR = 2_000, 20
WARM_UP_SECONDS = 5.0
_PATIENCE_SECONDS = 60


def product(number: int) -> str:
    """Name a product."""
    return f"P-{number:05d}"


def publish(random: np.random.Generator) -> None:
    """Publish lists of all shoppers, what they met, what is popular, and the model of the next product."""
    # Steps that have no divisor with the number of products: no product twice in a list.
    steps = 20 * random.integers(PRODUCTS // 20, size=(SHOPPERS, 1)) + 3
    picked = (random.integers(PRODUCTS, size=(SHOPPERS, 1)) + steps * np.arange(2 * LISTED)) % PRODUCTS
    rows = (
        {
            "user_id": f"u-{number}",
            "rank": rank,
            "product_id": product(picks[rank - 1]),
            "confidence_score": 1 / rank,
            "algorithm": "blend",
            "reason": "Because you viewed P-00001",
            "model_version": "1-benchmark",
        }
        for number, picks in enumerate(picked.tolist())
        for rank in range(1, LISTED + 1)
    )
    met = (
        {"user_id": f"u-{number}", "product_ids": sorted({product(place) for place in picks[LISTED:]})}
        for number, picks in enumerate(picked.tolist())
    )
    popular = [
        {
            "rank": rank,
            "product_id": product(rank - 1),
            "score": PRODUCTS / rank,
            "users": PRODUCTS // rank,
            "recent_users": PRODUCTS // rank,
            "purchases": PRODUCTS // rank,
            "trend": 1.0,
            "trending_rank": rank,
            "repeat_rate": 0.1,
        }
        for rank in range(1, PRODUCTS + 1)
    ]
    served = [
        {"answers": "recommendations", "model_version": "1-benchmark"},
        {"answers": "next_product", "model_version": "1-next"},
    ]
    with publication(load_settings()) as transaction:
        for table, its_rows in (
            (PRODUCT_RECOMMENDATIONS, rows),
            (MET_PRODUCTS, met),
            (POPULAR_PRODUCTS, popular),
            (NEXT_PRODUCT_PARTS, parts_of("1-next", model(random).to_bytes())),
            (SERVED_MODELS, served),
        ):
            transaction.publish(table, _batches(its_rows, table.arrow))


def _batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterable[pa.RecordBatch]:
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == 100_000:
            yield pa.RecordBatch.from_pylist(some, schema=schema)
            some = []
    yield pa.RecordBatch.from_pylist(some, schema=schema)


def model(random: np.random.Generator) -> NextProduct:
    """Make a model of the next product from sessions that are drawn, each within two categories."""
    category = np.arange(PRODUCTS) % CATEGORIES
    chosen = random.integers(CATEGORIES, size=(SESSIONS, 2))
    of_session = chosen[np.arange(SESSIONS)[:, None], random.integers(2, size=(SESSIONS, OF_SESSION))]
    # The n-th product of a category is met 1 / sqrt(n) as often as the first.
    place = (PRODUCTS // CATEGORIES * random.random((SESSIONS, OF_SESSION)) ** 2).astype(np.int64)
    products = [np.unique(met) for met in place * CATEGORIES + of_session]
    starts = np.concatenate(([0], np.cumsum([len(met) for met in products])))
    assortment = Assortment(
        tuple(map(product, range(PRODUCTS))),
        tuple(f"category.{number}" for number in range(CATEGORIES)),
        category,
        random.integers(1, 500, size=PRODUCTS).astype(float),
        (),
        np.full(PRODUCTS, -1),
    )
    return NextProduct(assortment, Sessions(np.concatenate(products), starts))


def visit(random: np.random.Generator) -> None:
    """Send what the visitors did in the last minute."""
    now = time.time()
    with KafkaSink(load_settings()) as topic:
        for number in range(VISITORS * EVENTS_OF_VISITOR):
            met = int(random.integers(PRODUCTS))
            event = {
                "event_id": f"e-{number}",
                "event_type": "view",
                "timestamp": datetime.fromtimestamp(now - 60 * random.random(), UTC).isoformat(),
                "user_id": f"u-{number % VISITORS}",
                "product_id": product(met),
                "product_category": f"category.{met % CATEGORIES}",
                "price": 20.0,
            }
            topic.send(str(event["user_id"]).encode(), json.dumps(event).encode())


def wait_for_moment(port: int) -> None:
    """Wait until the API counts the last events and has its model."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        connection.request("GET", "/api/recommend/u-0")
        answer = json.loads(connection.getresponse().read())["in_the_moment"]
        if answer["model_version"] and answer["events"] == EVENTS_OF_VISITOR:
            return
        time.sleep(0.2)
    raise SystemExit(f"the last events do not count: {answer}")


def main() -> None:
    """Start the servers and the API, and ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1000, help="Requests a second.")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--published-only", action="store_true")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    with servers():
        publish(random)
        visit(random)
        say("published")
        settings = {"RECENT_EVENTS": "0"} if arguments.published_only else {}
        with api(arguments.workers, settings) as (port, server):
            if not arguments.published_only:
                wait_for_moment(port)
            asked = SHOPPERS if arguments.published_only else VISITORS

            def requests(seconds: float) -> list[bytes]:
                numbers = random.integers(asked, size=int(seconds * arguments.rate)).tolist()
                return [
                    f"GET /api/recommend/u-{number} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()
                    for number in numbers
                ]

            say(f"warm: {load(port, requests(WARM_UP_SECONDS), arguments.rate, arguments.connections)}")
            sent = requests(arguments.seconds)
            before = processor_seconds(server)
            found = load(port, sent, arguments.rate, arguments.connections)
            used = processor_seconds(server) - before
    print(
        json.dumps(
            {
                "rate": arguments.rate,
                "workers": arguments.workers,
                "in_the_moment": not arguments.published_only,
                "requests_per_second": round(found["ok"] / found["took"]),
                **{name: value for name, value in found.items() if name != "took"},
                "processor_ms_per_request": round(1000 * used / len(sent), 2),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
