"""Measurements that Dagster's side takes, kept in PostgreSQL for whoever shows them: a row per source of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.catalogue.metrics import METRICS, Metric
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained

DAGSTER, KAFKA = "dagster", "kafka"
"""The sources."""
AGREEMENT = (PRODUCT_WINDOWS.name, "stream_agrees_with_batch")
"""Asset and name of the check that compares stream and batch."""


class Sample(NamedTuple):
    """A metric's value for some values of its labels, in their order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class Problem(msgspec.Struct, frozen=True):
    """A thing that is wrong, as the record of incidents has it.

    Attributes:
        kind: What is wrong, such as `run_failed`.
        subject: What it is wrong with: a job, an asset, asset/check, a sensor or a query.
        severity: `error` or `warning`.
        summary: Both, in a short sentence.
        since: Since when, seconds since 1970.
        page: Its page in Dagster, from the server's name on.
    """

    kind: str
    subject: str
    severity: str
    summary: str
    since: float
    page: str


class Agreement(msgspec.Struct, frozen=True):
    """What the check that compares stream and batch last found.

    Attributes:
        passed: Whether they agree, but for what is so by design.
        said: Its sentence.
        compared: Windows that were compared; null where none could be.
        differences: How many of them differ, by the reason.
    """

    passed: bool
    said: str | None
    compared: int | None
    differences: dict[str, int]


class State(msgspec.Struct, frozen=True):
    """What Dagster's side says of itself besides figures.

    Attributes:
        updated: When each asset was last made, seconds since 1970, by its name; none of those that never were.
        groups: The group of each of them.
        failed_runs: Id of the last run of a job that failed, by the job.
        problems: All that is wrong now, of whatever people are notified of.
        agreement: How stream and batch agree; none before they were compared.
    """

    updated: dict[str, float] = {}
    groups: dict[str, str] = {}
    failed_runs: dict[str, str] = {}
    problems: list[Problem] = []
    agreement: Agreement | None = None


class Measured(NamedTuple):
    """All that was measured last.

    Attributes:
        ages: When each source was measured.
        samples: Those of metrics that this version knows.
        state: What Dagster's side says besides.
    """

    ages: dict[str, datetime]
    samples: list[Sample]
    state: State


def write_measurements(
    settings: Settings, source: str, samples: Iterable[Sample], state: State | None = None
) -> None:
    """Replace all that a source was last measured at, with the time of now.

    Raises:
        PostgresError: the database cannot be reached.
    """
    rows = [[sample.metric.name, sample.labels, sample.value] for sample in samples]
    with explained(settings), connect(settings) as connection:
        connection.execute(
            "INSERT INTO measurements (source, samples, state) VALUES (%s, %s, %s) ON CONFLICT (source) "
            "DO UPDATE SET samples = excluded.samples, state = excluded.state, measured_at = now()",
            (source, Jsonb(rows), Jsonb(msgspec.to_builtins(state or State()))),
        )


def read_measurements(connection: psycopg.Connection[Any]) -> Measured:
    """Return what every source was last measured at."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT source, measured_at, samples, state FROM measurements ORDER BY source"
        ).fetchall()
    samples = [
        Sample(METRICS[name], tuple(labels), value)
        for *_, of_source, _ in rows
        for name, labels, value in of_source
        if name in METRICS
    ]
    states = {source: state for source, *_, state in rows}
    return Measured(
        {source: measured_at for source, measured_at, *_ in rows},
        samples,
        msgspec.convert(states.get(DAGSTER, {}), State),
    )
