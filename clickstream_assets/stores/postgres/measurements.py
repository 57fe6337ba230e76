"""Measurements that Dagster's side takes, kept in PostgreSQL for whoever shows them: a row per source of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from clickstream_assets.catalogue.metrics import METRICS, Metric
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained


class Sample(NamedTuple):
    """A metric's value for some values of its labels, in their order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


def write_measurements(settings: Settings, source: str, samples: Iterable[Sample]) -> None:
    """Replace all that a source was last measured at, with the time of now.

    Raises:
        PostgresError: the database cannot be reached.
    """
    rows = [[sample.metric.name, sample.labels, sample.value] for sample in samples]
    with explained(settings), connect(settings) as connection:
        connection.execute(
            "INSERT INTO measurements (source, samples) VALUES (%s, %s) ON CONFLICT (source) "
            "DO UPDATE SET samples = excluded.samples, measured_at = now()",
            (source, Jsonb(rows)),
        )


def read_measurements(connection: psycopg.Connection[Any]) -> tuple[dict[str, datetime], list[Sample]]:
    """Return when each source was measured, and all samples of metrics that this version knows."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT source, measured_at, samples FROM measurements ORDER BY source"
        ).fetchall()
    samples = [
        Sample(METRICS[name], tuple(labels), value)
        for *_, of_source in rows
        for name, labels, value in of_source
        if name in METRICS
    ]
    return {source: measured_at for source, measured_at, _ in rows}, samples
