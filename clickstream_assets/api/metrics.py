"""`GET /metrics`: how the streams, the alerts and the API are doing, for Prometheus.

What the streams report is read from PostgreSQL at each scrape, so it is there whichever process runs them. Requests
are counted over all worker processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from apiflask import APIBlueprint
from flask import Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.stores.postgres.connection import PostgresError

blueprint = APIBlueprint("metrics", __name__, tag="Metrics")

FOLDER = "METRICS_FOLDER"
"""Configuration of the application: the folder that its worker processes share their counts in."""

_METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

# Registered where it is asked for: with several processes it is not this object that has all the counts.
_REQUESTS = Histogram(
    "clickstream_api_request_seconds",
    "Time that requests to the API took",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=None,
)


def register_request_metrics(app: Flask) -> None:
    """Count and time every request, by the clock that the access log starts."""

    @app.after_request
    def observe(response: Response) -> Response:
        # Nothing that a client makes up becomes a label: each is a time series for good.
        method = request.method if request.method in _METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"
        seconds = perf_counter() - g.started
        _REQUESTS.labels(method, route, str(response.status_code)).observe(seconds)
        return response


@blueprint.get("/metrics")
@blueprint.doc(
    responses={
        200: {
            "description": "Prometheus' text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }
)
def metrics() -> Response:
    """Report measurements for Prometheus.

    Without PostgreSQL, `clickstream_postgres_up` is 0 and what the streams report is left out.
    """
    registry = CollectorRegistry()
    registry.register(_StreamCollector())
    folder: Path | None = current_app.config.get(FOLDER)
    if folder:
        MultiProcessCollector(registry, path=str(folder))
    else:
        registry.register(_REQUESTS)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _StreamCollector(Collector):
    """Metrics of the streams, as PostgreSQL has them."""

    def describe(self) -> Iterable[Metric]:
        # Registering would else collect once, for the names alone.
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("clickstream_postgres_up", "Whether PostgreSQL answered this scrape")
        try:
            with database().snapshot() as connection:
                status = queries.stream_status(connection)
        except PostgresError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _stream_metrics(status.streams)
        alerts = GaugeMetricFamily("clickstream_alerts_open", "Flash-sale alerts that are open")
        alerts.add_metric([], status.open_alerts)
        yield alerts
        notifications = GaugeMetricFamily(
            "clickstream_notifications",
            "Messages about alerts that are pending, and that have failed for good",
            labels=["sink", "state"],
        )
        for row in status.notifications:
            for state in ("pending", "failed"):
                notifications.add_metric([row["sink"], state], row[state])
        yield notifications


def _stream_metrics(streams: list[dict[str, Any]]) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "clickstream_stream_lag_records",
        "Records in Kafka that are not read yet",
        labels=["query", "partition"],
    )
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
        "latency_seconds": GaugeMetricFamily(
            "clickstream_stream_latency_seconds",
            "From the newest event of the last batch to its window in PostgreSQL",
            labels=["query"],
        ),
        "failing": GaugeMetricFamily(
            "clickstream_stream_failing",
            "Whether the query was stopped by an error, and is started again and again",
            labels=["query"],
        ),
        "updated": GaugeMetricFamily(
            "clickstream_stream_updated_timestamp_seconds", "When the query last reported", labels=["query"]
        ),
        "watermark": GaugeMetricFamily(
            "clickstream_stream_watermark_timestamp_seconds",
            "Events before this time are late",
            labels=["query"],
        ),
        "rows": CounterMetricFamily("clickstream_stream_records", "Records read", labels=["query"]),
        "dropped_late": CounterMetricFamily(
            "clickstream_stream_late_events", "Events dropped for being late", labels=["query"]
        ),
    }
    for stream in streams:
        for partition, records in sorted(stream["lag"].items()):
            lag.add_metric([stream["query"], partition], records)
        for name, family in families.items():
            if stream[name] is not None:
                family.add_metric([stream["query"]], stream[name])
    yield lag
    yield from families.values()
