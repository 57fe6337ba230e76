"""`clickstream metrics`: every metric with its labels and meaning, as Markdown; `docs/metrics.md` is its output."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from clickstream_assets.catalogue.metrics import SECTIONS, Metric

_INTRODUCTION = """\
# Metrics

What `GET /metrics` of the API shows, for Prometheus. Units are seconds and records; times are seconds since 1970. A
value that was measured before it is asked for has an age: the time in the column "as of" is when.

- **The streams** report to PostgreSQL every five seconds, from a thread that waits for nothing that they wait for. So
  `clickstream_stream_failing` is 1 within half a minute after Kafka, PostgreSQL or Elasticsearch is gone or hangs.
  Without `clickstream stream` they are runs of Dagster's, which report when they end.
- **The batch side** is measured by Dagster's sensor `measurements` every 15 seconds. A daemon or a code server that
  hangs or is gone shows in `clickstream_measured_timestamp_seconds`, which then stands still.

Alert rules and a dashboard on them are in `deploy/`; [deployment.md](deployment.md#prometheus-and-grafana) says how
they are used.

This page is the output of `clickstream metrics`, made from `clickstream_assets/catalogue/metrics.py`."""


def metrics_command() -> None:
    """Print every metric with its labels and meaning, as Markdown."""
    typer.echo(metrics_page(), nl=False)


def metrics_page() -> str:
    """Return the reference of all metrics."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for title, metrics in SECTIONS.items():
        yield f"\n## {title}\n"
        yield "| metric | type | labels | meaning | as of |"
        yield "| --- | --- | --- | --- | --- |"
        yield from map(_row, metrics)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    age = f"`{metric.age}`" if metric.age else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.description} | {age} |"
