"""The streams: from produce to a row, a searchable document or an alert; lag, memory, and what rate they sustain.

    python -m benchmarks.stream --rate 1000 --seconds 300 --rates 5000,7500,10000
    python -m benchmarks.stream --rate 1000 --seconds 120 --speed 60
    python -m benchmarks.stream --sensor --rounds 5

With `--speed 60` a minute of events comes in a second, so two minutes are two hours of event time. `--rates` sends at
each rate in turn, a minute or `--rate-seconds` long, until one is more than windows or live events keep up with: their
lag grows. `cpu_ms_per_event` is the processor time of the streams' processes while latencies are measured. With
`--sensor` nothing is always on: Dagster runs the streams by its sensor, and what is measured is the time from the last
event that makes an alert to the alert in PostgreSQL. A probe that never came counts as infinitely late, which JSON
shows as null.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from benchmarks.measure import cpu_seconds, memory, say, servers
from clickstream_assets.local.children import Child, running
from clickstream_assets.local.ports import free_port
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming import live_events
from clickstream_assets.streaming.progress import progress_of

PROJECT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
PROBE_SECONDS = 0.5
SAMPLE_SECONDS = 5.0
STEP_SAMPLE_SECONDS = 1.0
PATIENCE_SECONDS = 600
BEFORE = 1000
"""Events that are there at the start: what is measured is a stream that has been running for a while."""
PRODUCTS, USERS = 500, 5_000


class Traffic:
    """Events at a steady rate, with a probe twice a second: the one event of its product."""

    def __init__(self, settings: Settings, speed: float = 1) -> None:
        self._topic = settings.kafka_topic
        # As batched as a shop's collectors send: the broker's work for tiny requests is not what is measured.
        self._producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "linger.ms": 50})
        self._random = random.Random(1)
        self._speed = speed
        self._began = time.time()
        self.sent = 0
        self.probes: dict[str, float] = {}
        """Time at which each probe was produced, by its product."""

    def send(self, product_id: str | None = None, event_type: str | None = None) -> None:
        """Send one event, stamped with the current time, or a faster one."""
        moment = self._began + (time.time() - self._began) * self._speed
        # Not in Kafka's future: the hours that are to come lie in the past.
        moment -= 86_400 if self._speed > 1 else 0
        types = ["view", "add_to_cart", "purchase"]
        event: dict[str, Any] = {
            "event_id": f"b{self.sent}",
            "event_type": event_type or self._random.choices(types, (70, 20, 10))[0],
            "user_id": f"u{self._random.randrange(USERS)}",
            "product_id": product_id or f"p{int(self._random.paretovariate(0.8)) % PRODUCTS}",
            "product_category": "benchmark",
            "price": 9.99,
            "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(),
        }
        # As those of a shop have: both ids, and an order in a purchase.
        event["anonymous_id"] = f"a-{event['user_id']}"
        if event["event_type"] == "purchase":
            event["order_id"] = f"o{self.sent}"
        self._producer.produce(self._topic, json.dumps(event).encode(), event["user_id"].encode())
        self._producer.poll(0)
        self.sent += 1

    def run(self, rate: float, seconds: float, with_probes: bool = True) -> None:
        """Send for so long."""
        start = time.monotonic()
        next_probe = 0.0 if with_probes else math.inf
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

    def burst(self, number: int, product_id: str | None = None, event_type: str | None = None) -> None:
        """Send so many as fast as it goes."""
        for _ in range(number):
            self.send(product_id, event_type)
        self._producer.flush(60)


class Watch(threading.Thread):
    """Looks again and again for probes that were not there before."""

    def __init__(self, look: Callable[[], Iterator[str]]) -> None:
        super().__init__(daemon=True)
        self._look = look
        self.seen: dict[str, float] = {}
        self._is_over = threading.Event()

    def run(self) -> None:
        """Look until `stop` is called."""
        while not self._is_over.wait(0.1):
            for product in self._look():
                self.seen.setdefault(product, time.time())

    def stop(self) -> None:
        """Look no more: the servers are about to stop."""
        self._is_over.set()
        self.join()


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return nearest-rank quantiles of times, of which those that never came are infinite."""
    ordered = sorted(seconds)

    def quantile(share: float) -> float | None:
        value = ordered[math.ceil(share * len(ordered)) - 1]
        return round(value, 2) if math.isfinite(value) else None

    seen = sum(map(math.isfinite, ordered))
    return {
        "probes": len(ordered),
        "seen": seen,
        "median": quantile(0.5),
        "p95": quantile(0.95),
        "max": quantile(1),
    }


def latencies(traffic: Traffic, watch: Watch) -> dict[str, Any]:
    """Return seconds from produce to there, over all probes."""
    return spread([watch.seen.get(product, math.inf) - at for product, at in traffic.probes.items()])


class Lag:
    """The number of the topic's records that each query has not done."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def now(self) -> dict[str, int]:
        """Look."""
        ends = Topics(self._settings).offsets()
        progress = progress_of(self._settings)
        read = {
            "product_windows": progress.offsets if progress else {},
            "live_events": live_events.checkpoint_of(self._settings).committed_offsets(),
        }
        return {
            query: sum(offsets.high - done.get(partition, 0) for partition, offsets in ends.items())
            for query, done in read.items()
        }

    def is_none(self, *queries: str) -> bool:
        """Return whether these queries, or all, have come to the topic's end."""
        return not any(records for query, records in self.now().items() if not queries or query in queries)


def keeps_up(lags: Sequence[int], rate: float, trigger_seconds: float) -> bool:
    """Return whether a lag stays bounded: in its last third it is no more than in the middle one.

    It goes up and down with the batches, so a quarter more, and what comes in between two of them, is no growth.
    """
    third = len(lags) // 3
    middle, last = lags[third : 2 * third], lags[2 * third :]
    return statistics.mean(last) <= 1.25 * statistics.mean(middle) + rate * trigger_seconds


def main() -> None:
    """Start everything, send, and look."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=float, default=1000, help="Events a second while latencies are measured."
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--speed", type=float, default=1, help="Seconds of event time per second.")
    parser.add_argument("--rates", default="5000", help="Rates to try to sustain, in turn; empty: none.")
    parser.add_argument("--rate-seconds", type=float, default=60)
    parser.add_argument("--sensor", action="store_true", help="Measure to the alert, by Dagster's sensor.")
    parser.add_argument("--rounds", type=int, default=5, help="Alerts, with --sensor.")
    arguments = parser.parse_args()
    with servers() as home:
        print(json.dumps((_by_sensor if arguments.sensor else _always_on)(home, arguments)))


def _wait(is_so: Callable[[], bool], child: Child) -> float:
    """Wait until `is_so` returns true; return how many seconds that took."""
    start = time.monotonic()
    while not is_so():
        child.check()
        if time.monotonic() - start > PATIENCE_SECONDS:
            raise SystemExit(
                f"{child.name}: not in {PATIENCE_SECONDS} s. The end of its log:\n{child.tail()}"
            )
        time.sleep(0.1)
    return time.monotonic() - start


def _always_on(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings()
    live = LiveEvents(settings)
    lag = Lag(settings)

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
            source_includes=["product_id"],
            ignore_unavailable=True,
        )
        return (hit["_source"]["product_id"] for hit in found["hits"]["hits"])

    command = [str(PROGRAMS / "clickstream"), "stream"]
    with (
        connect(settings, autocommit=True) as connection,
        running("The streams", command, home / "stream.log", os.environ, PROJECT) as child,
    ):
        watched = psutil.Process(child.pid)
        traffic = Traffic(settings, arguments.speed)
        traffic.burst(BEFORE)
        say(f"the streams were up after {_wait(lag.is_none, child):.0f} s")
        in_postgres, in_elasticsearch = Watch(rows), Watch(documents)
        in_postgres.start()
        in_elasticsearch.start()

        def sampled(rate: float, seconds: float, every: float, with_probes: bool) -> list[dict[str, Any]]:
            sender = threading.Thread(target=traffic.run, args=(rate, seconds, with_probes), daemon=True)
            began = time.monotonic()
            sender.start()
            samples = []
            while sender.is_alive():
                sender.join(every)
                second = round(time.monotonic() - began)
                samples.append({"second": second, "lag": lag.now(), "mb": round(memory(watched) / 2**20)})
                say(json.dumps(samples[-1]))
            return samples

        cpu = sum(cpu_seconds(watched).values())
        samples = sampled(arguments.rate, arguments.seconds, SAMPLE_SECONDS, with_probes=True)
        measured = traffic.sent - BEFORE
        _wait(lag.is_none, child)
        cpu = sum(cpu_seconds(watched).values()) - cpu
        # What was read last has to be searchable, and to be looked for.
        time.sleep(3)
        steps = []
        for asked in map(float, filter(None, arguments.rates.split(","))):
            before = traffic.sent
            step = sampled(asked, arguments.rate_seconds, STEP_SAMPLE_SECONDS, with_probes=False)
            sent = (traffic.sent - before) / arguments.rate_seconds
            kept = {
                query: keeps_up([s["lag"][query] for s in step], asked, settings.stream_trigger_seconds)
                for query in step[0]["lag"]
            }
            # A rate that was not sent was not sustained either.
            is_sent = sent >= 0.98 * asked
            steps.append(
                {"asked": asked, "sent": round(sent), "keeps_up": kept, "lags": [s["lag"] for s in step]}
            )
            say(json.dumps(steps[-1]))
            _wait(lag.is_none, child)
            if not (is_sent and all(kept.values())):
                break
        in_postgres.stop()
        in_elasticsearch.stop()
    sustained = [s["sent"] for s in steps if s["sent"] >= 0.98 * s["asked"] and all(s["keeps_up"].values())]
    return {
        "rate": round(measured / arguments.seconds),
        "cpu_ms_per_event": round(cpu * 1000 / measured, 3),
        "seconds": arguments.seconds,
        "event_time": str(timedelta(seconds=arguments.seconds * arguments.speed)),
        "to_postgres": latencies(traffic, in_postgres),
        "to_elasticsearch": latencies(traffic, in_elasticsearch),
        "sustained_per_second": max(sustained, default=None),
        "steps": steps,
        "samples": samples,
    }


def _by_sensor(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings()
    lag = Lag(settings)
    pauses = random.Random(2)
    traffic = Traffic(settings)
    command = [str(PROGRAMS / "dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
    command += ["-p", str(free_port())]
    seconds = []
    with (
        connect(settings, autocommit=True) as connection,
        running("Dagster", command, home / "dagster.log", os.environ, PROJECT) as child,
    ):
        traffic.burst(BEFORE)
        say(
            f"the sensor's first run was done after {_wait(lambda: lag.is_none('product_windows'), child):.0f} s"
        )
        for number in range(arguments.rounds):
            # Anywhere between two looks of the sensor.
            time.sleep(pauses.uniform(0, settings.stream_sensor_seconds))
            product = f"sale-{number}"
            traffic.burst(settings.views_threshold + 1, product, "view")
            start = time.monotonic()
            seconds.append(math.inf)
            while time.monotonic() - start < PATIENCE_SECONDS:
                child.check()
                statement = "SELECT 1 FROM flash_sale_alerts WHERE product_id = %s"
                if connection.execute(statement, (product,)).fetchone():
                    seconds[-1] = time.monotonic() - start
                    break
                time.sleep(0.1)
            say(f"alert {number} after {seconds[-1]:.1f} s")
    return {"rounds": arguments.rounds, "to_alert_by_sensor": spread(seconds)}


if __name__ == "__main__":
    main()
