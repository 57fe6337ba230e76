"""Simulated days as JSON lines and as tables."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from clickstream_assets.analytics.sessions import sessions
from clickstream_assets.catalogue import EVENTS, SESSIONS, Table
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.ingest.event_frames import load_events
from clickstream_assets.simulator.stream import Faults, RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.records import RULES

GAP = timedelta(minutes=30)
FIRST, LAST = date(2024, 5, 1), date(2024, 5, 3)
BAD_DAY = Faults(late=0.1, duplicate=0.1, conflicting=0.05, malformed=0.05)


def simulated_lines(
    seed: int, events: int = 3000, bots: float = 0.0, faults: Faults | None = None
) -> list[bytes]:
    """Lines of three days of few users, so that each comes often and stays over midnight."""
    traffic = Traffic(
        users=60,
        products=25,
        seed=seed,
        start=datetime(2024, 5, 1, tzinfo=UTC),
        events=events,
        seconds=3 * 86_400.0,
        bots=bots,
    )
    return [record.value for record in RecordStream(traffic, faults or Faults())]


def other_arrivals(seed: int) -> list[list[bytes]]:
    """Simulated lines with bots as they may also arrive: with late and broken ones; shuffled, a tenth of them twice."""
    lines, source = simulated_lines(seed, bots=0.1), random.Random(seed)
    order = lines + source.sample(lines, len(lines) // 10)
    source.shuffle(order)
    return [simulated_lines(seed, bots=0.1, faults=BAD_DAY), order]


def load(engine: Engine, lines: Iterable[bytes]) -> tuple[DataFrame, DataFrame]:
    """EVENTS and SESSIONS rows of the lines, and of nothing else."""
    return _load(engine, b"\n".join(lines))


@cache
def _load(engine: Engine, text: bytes) -> tuple[DataFrame, DataFrame]:
    # Kept for the other tests of the same lines: on Spark it takes seconds.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.jsonl")
        path.write_bytes(text + b"\n")
        events = engine.persist(load_events(engine, path, RULES).events)
        # Computed while the file is there.
        kept = engine.from_arrow(conform(engine.to_arrow(events), EVENTS))
    return kept, visits_of(engine, kept, FIRST, LAST)


def visits_of(engine: Engine, events: DataFrame, first: date, last: date, views: int = 60) -> DataFrame:
    """SESSIONS rows that the tables of some days need: of the two days before them and of the day after, too."""
    visits = sessions(events, first - timedelta(days=2), last + timedelta(days=1), GAP, views)
    return engine.from_arrow(conform(engine.to_arrow(visits), SESSIONS))


def table_of(engine: Engine, df: DataFrame, table: Table) -> list[dict[str, Any]]:
    """The rows, with the table's types, in the order of its key."""
    rows = conform(engine.to_arrow(df), table)
    return rows.sort_by([(name, "ascending") for name in table.key]).to_pylist()


def in_order(rows: Iterable[dict[str, Any]], table: Table) -> list[dict[str, Any]]:
    """Rows with the table's columns in their order, in the order of its key."""
    ordered = sorted(rows, key=lambda row: [row[name] for name in table.key])
    return [{name: row[name] for name in table.column_names} for row in ordered]
