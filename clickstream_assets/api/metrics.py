"""`GET /metrics`: how ingest, tables, streams, alerts and the API are doing, for Prometheus.

What the streams report and Dagster's side measures is read from PostgreSQL at each scrape, so it is there whichever
process runs them. Requests are counted over all worker processes. What there is, `catalogue/metrics.py` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from apiflask import APIBlueprint
from flask import Flask, Response, current_app, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.pages.source import WITHIN_A_PAGE
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import LIVE_EVENTS, PRODUCT_WINDOWS
from clickstream_assets.catalogue import metrics as catalogue
from clickstream_assets.catalogue.metrics import Kind
from clickstream_assets.keys import Scope
from clickstream_assets.stores.kafka.partition import from_json
from clickstream_assets.stores.postgres.connection import PostgresError
from clickstream_assets.stores.postgres.measurements import Sample, read_measurements

blueprint = APIBlueprint("metrics", __name__, tag="Metrics")

FOLDER = "METRICS_FOLDER"
"""Configuration of the application: the folder that its worker processes share their counts in."""

_METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
_STREAMS = (PRODUCT_WINDOWS.name, LIVE_EVENTS.name)
_OF_A_STREAM = {
    "failing": catalogue.STREAM_FAILING,
    "updated": catalogue.STREAM_UPDATED,
    "lag_at": catalogue.STREAM_LAG_MEASURED,
    "latency_seconds": catalogue.STREAM_LATENCY,
    "batch_at": catalogue.STREAM_BATCH,
    "watermark": catalogue.STREAM_WATERMARK,
    "rows": catalogue.STREAM_RECORDS,
    "dropped_late": catalogue.STREAM_LATE,
}

# A second series for each of ours, that says when it began: nobody asks for it.
disable_created_metrics()

# Registered where it is asked for: with several processes it is not this object that has all the counts.
_REQUESTS = Histogram(
    catalogue.REQUESTS.name,
    catalogue.REQUESTS.description,
    catalogue.REQUESTS.labels,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=None,
)
_COLLECTED = Counter(
    catalogue.COLLECTED.name, catalogue.COLLECTED.description, catalogue.COLLECTED.labels, registry=None
)
_EXPOSURES = Counter(
    catalogue.EXPOSURES.name, catalogue.EXPOSURES.description, catalogue.EXPOSURES.labels, registry=None
)
_RECENT_READ = Gauge(
    catalogue.RECENT_READ.name,
    catalogue.RECENT_READ.description,
    registry=None,
    multiprocess_mode="livemin",
)


def note_recent_read(at: float) -> None:
    """Note when this process had read all that Kafka had, seconds since 1970."""
    _RECENT_READ.set(at)


def register_request_metrics(app: Flask) -> None:
    """Count and time every request, by the clock that the access log starts."""
    # Shown from the start on.
    for verdict in ("accepted", "rejected"):
        _collected_of(verdict)
    for outcome in ("sent", "lost"):
        _EXPOSURES.labels(outcome)

    @app.after_request
    def observe(response: Response) -> Response:
        if WITHIN_A_PAGE in request.environ:
            return response
        route = request.url_rule.rule if request.url_rule else "none"
        count_request(request.method, route, response.status_code, perf_counter() - g.started)
        return response


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count and time a request."""
    # Nothing that a client makes up becomes a label: each is a time series for good.
    _requests_of(method if method in _METHODS else "other", route, str(status)).observe(seconds)


def count_events(accepted: int, rejected: int) -> None:
    """Count events that Kafka has, by their verdict."""
    for verdict, number in (("accepted", accepted), ("rejected", rejected)):
        # Most requests have one of the two, and what worker processes share is dear to add to.
        if number:
            _collected_of(verdict).inc(number)


def count_exposures(sent: int, lost: int) -> None:
    """Count exposures that Kafka has, and those that were not sent or may not have come."""
    for outcome, number in (("sent", sent), ("lost", lost)):
        if number:
            _EXPOSURES.labels(outcome).inc(number)


# The library looks them up under a lock, and checks the labels: a third of the time of a short request's counting.
_requests_of = cache(_REQUESTS.labels)
_collected_of = cache(_COLLECTED.labels)


@blueprint.get("/metrics")
@needs(Scope.READ)
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

    Without PostgreSQL, `clickstream_postgres_up` is 0, `clickstream_stream_failing` is 1, and what else it has is
    left out.
    """
    registry = CollectorRegistry()
    registry.register(_PostgresCollector())
    folder: Path | None = current_app.config.get(FOLDER)
    if folder:
        MultiProcessCollector(registry, path=str(folder))
    else:
        registry.register(_REQUESTS)
        registry.register(_COLLECTED)
        registry.register(_EXPOSURES)
        registry.register(_RECENT_READ)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _PostgresCollector(Collector):
    """Metrics that PostgreSQL has."""

    def describe(self) -> Iterable[Family]:
        # Registering would else collect once, for the names alone.
        return []

    def collect(self) -> Iterator[Family]:
        try:
            with database().snapshot() as connection:
                status = queries.stream_status(connection)
                published = queries.newest_published_event(connection)
                rejected = queries.rejected_lately(connection)
                left_out = queries.left_out_lately(connection)
                measured, samples, _ = read_measurements(connection)
        except PostgresError:
            # The streams cannot go on without it either, and their own reports cannot be read.
            failing = [Sample(catalogue.STREAM_FAILING, (stream,), 1) for stream in _STREAMS]
            return _families([Sample(catalogue.POSTGRES_UP, (), 0), *failing])
        of_status = [sample for stream in status.streams for sample in _of_stream(stream)]
        of_batch = [Sample(catalogue.MEASURED, (name,), at.timestamp()) for name, at in measured.items()]
        of_batch += [
            Sample(catalogue.REJECTED, (row["rule"], row["rejected_by"]), row["records"]) for row in rejected
        ]
        of_batch += [
            Sample(catalogue.LEFT_OUT, (row["field"], row["rule"]), row["records"]) for row in left_out
        ]
        if published is not None:
            of_batch.append(Sample(catalogue.PUBLISHED_EVENT, (), published))
        of_alerts = [Sample(catalogue.ALERTS_OPEN, (), status.open_alerts)]
        of_alerts += [
            Sample(catalogue.NOTIFICATIONS, (row["sink"], state), row[state])
            for row in status.notifications
            for state in ("pending", "failed")
        ]
        up = Sample(catalogue.POSTGRES_UP, (), 1)
        return _families([up, *of_status, *of_alerts, *of_batch, *samples])


def _of_stream(stream: Mapping[str, Any]) -> Iterator[Sample]:
    query = stream["query"]
    for partition, records in from_json(stream["lag"]).items():
        yield Sample(catalogue.STREAM_LAG, (query, partition.topic, str(partition.partition)), records)
    for column, metric in _OF_A_STREAM.items():
        if stream[column] is not None:
            yield Sample(metric, (query,), stream[column])


def _families(samples: Iterable[Sample]) -> Iterator[Family]:
    """Return the samples by their metrics, as the client library has them."""
    families: dict[str, Family] = {}
    for metric, labels, value in samples:
        # The library adds the end of a counter's name itself, and only to its samples.
        name = metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name
        family = families.setdefault(metric.name, Family(name, metric.description, str(metric.kind)))
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return iter(families.values())
