"""The streams, always on: from produce to PostgreSQL's row and to the searchable document, lag, and memory over time.

    python -m benchmarks.stream --rate 1000 --seconds 120
    python -m benchmarks.stream --rate 1000 --seconds 120 --speed 60

With `--speed 60` a minute of events comes in a second, so two minutes are two hours of event time. At the end a backlog
is sent at once, and the time until it is worked off gives the rate that the streams sustain.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from benchmarks.measure import memory, say, servers

PROBE_SECONDS = 0.5
SAMPLE_SECONDS = 5.0
PATIENCE_SECONDS = 600
PRODUCTS, USERS = 500, 5_000


class Traffic:
    """Events at a steady rate, with a probe twice a second: the one event of its product."""

    def __init__(self, topic: str, servers_: str, speed: float) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": servers_, "linger.ms": 5})
        self._random = random.Random(1)
        self._speed = speed
        self._began = time.time()
        self.sent = 0
        self.probes: dict[str, float] = {}
        """When each probe was produced, by its product."""

    def send(self, product_id: str | None = None) -> None:
        """Send one event, stamped with the current time, or a faster one."""
        moment = self._began + (time.time() - self._began) * self._speed
        # Not in Kafka's future: the hours that are to come lie in the past.
        moment -= 86_400 if self._speed > 1 else 0
        event = {
            "event_id": f"b{self.sent}",
            "event_type": self._random.choices(["view", "add_to_cart", "purchase"], (70, 20, 10))[0],
            "user_id": f"u{self._random.randrange(USERS)}",
            "product_id": product_id or f"p{int(self._random.paretovariate(0.8)) % PRODUCTS}",
            "product_category": "benchmark",
            "price": 9.99,
            "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(),
        }
        self._producer.produce(self._topic, json.dumps(event).encode(), event["user_id"].encode())
        self._producer.poll(0)
        self.sent += 1

    def run(self, rate: float, seconds: float) -> None:
        """Send for so long."""
        start = time.monotonic()
        next_probe = 0.0
        sent = 0
        while (elapsed := time.monotonic() - start) < seconds:
            while sent < elapsed * rate:
                self.send()
                sent += 1
            if elapsed >= next_probe:
                product = f"probe-{len(self.probes)}"
                self.probes[product] = time.time()
                self.send(product)
                next_probe += PROBE_SECONDS
            time.sleep(0.002)
        self._producer.flush(60)

    def burst(self, number: int) -> None:
        """Send so many as fast as it goes."""
        for _ in range(number):
            self.send()
        self._producer.flush(60)


class Watch(threading.Thread):
    """Looks again and again for probes that were not there before."""

    def __init__(self, look: Callable[[], Iterator[str]]) -> None:
        super().__init__(daemon=True)
        self._look = look
        self.seen: dict[str, float] = {}

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            for product in self._look():
                self.seen.setdefault(product, time.time())
            time.sleep(0.1)


def latencies(traffic: Traffic, watch: Watch) -> dict[str, Any]:
    """Return seconds from produce to there, over all probes."""
    seconds = sorted(watch.seen[p] - at for p, at in traffic.probes.items() if p in watch.seen)
    if len(seconds) < 2:
        return {"probes": len(traffic.probes), "seen": len(seconds)}
    return {
        "probes": len(traffic.probes),
        "seen": len(seconds),
        "median": round(statistics.median(seconds), 2),
        "p95": round(statistics.quantiles(seconds, n=20)[-1], 2),
        "max": round(seconds[-1], 2),
    }


def main() -> None:
    """Start everything, send, and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--speed", type=float, default=1, help="Seconds of event time per second.")
    parser.add_argument("--backlog", type=int, default=100_000)
    arguments = parser.parse_args()
    with servers() as home:
        print(json.dumps(_measure(home, arguments)))


def _measure(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from clickstream_assets.elasticsearch import LiveEvents
    from clickstream_assets.kafka import Topic
    from clickstream_assets.postgres.connection import connect
    from clickstream_assets.settings import load_settings
    from clickstream_assets.streaming.store import progress_of

    settings = load_settings()
    ends = Topic(settings).offsets
    live = LiveEvents(settings)

    def rows() -> Iterator[str]:
        found = connection.execute(
            "SELECT DISTINCT product_id FROM product_windows WHERE product_id LIKE 'probe%'"
        )
        return (row[0] for row in found.fetchall())

    def documents() -> Iterator[str]:
        found = live.client.search(
            index=settings.elasticsearch_alias,
            query={"prefix": {"product_id": "probe"}},
            size=1000,
            sort=[{"event_time": "desc"}],
            source=["product_id"],
            ignore_unavailable=True,
        )
        return (hit["_source"]["product_id"] for hit in found["hits"]["hits"])

    def lag() -> int:
        progress = progress_of(settings)
        read = progress.offsets if progress else {}
        return sum(offsets.high - read.get(partition, 0) for partition, offsets in ends().items())

    def wait(is_so: Callable[[], bool]) -> float:
        start = time.monotonic()
        while not is_so():
            if time.monotonic() - start > PATIENCE_SECONDS or process.poll() is not None:
                raise SystemExit((home / "stream.log").read_text()[-3000:])
            time.sleep(0.1)
        return time.monotonic() - start

    with (home / "stream.log").open("wb") as log, connect(settings, autocommit=True) as connection:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("clickstream")), "stream"],
            stdout=log,
            stderr=log,
            env=os.environ,
        )
        try:
            traffic = Traffic(settings.kafka_topic, settings.kafka_bootstrap_servers, arguments.speed)
            # What is measured is a stream that has been running for a while.
            traffic.burst(1000)
            started = wait(lambda: lag() == 0)
            wait(lambda: live.client.count(index=settings.elasticsearch_alias)["count"] >= 1000)
            say(f"the streams were up after {started:.0f} s")
            in_postgres, in_elasticsearch = Watch(rows), Watch(documents)
            in_postgres.start()
            in_elasticsearch.start()
            samples: list[dict[str, Any]] = []
            sender = threading.Thread(target=traffic.run, args=(arguments.rate, arguments.seconds))
            began = time.monotonic()
            sender.start()
            watched = psutil.Process(process.pid)
            while sender.is_alive():
                sender.join(SAMPLE_SECONDS)
                samples.append(
                    {
                        "second": round(time.monotonic() - began),
                        "lag": lag(),
                        "mb": round(memory(watched) / 2**20),
                    }
                )
                say(json.dumps(samples[-1]))
            took = time.monotonic() - began
            wait(lambda: lag() == 0)
            time.sleep(2 * PROBE_SECONDS)
            sent = traffic.sent
            before = time.monotonic()
            traffic.burst(arguments.backlog)
            wait(lambda: lag() == 0)
            worked_off = time.monotonic() - before
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return {
        "rate": round((sent - 1000) / took),
        "seconds": arguments.seconds,
        "event_time": str(timedelta(seconds=arguments.seconds * arguments.speed)),
        "to_postgres": latencies(traffic, in_postgres),
        "to_elasticsearch": latencies(traffic, in_elasticsearch),
        "sustained_per_second": round(arguments.backlog / worked_off),
        "samples": samples,
    }


if __name__ == "__main__":
    main()
