"""The ingest of a topic into a lake, run as the pipeline runs it; as a process of its own it can die in a write.

`python -m clickstream_assets_tests.ingestion` ingests what the environment names. With `TABLE before BATCH` or
`TABLE after BATCH` it kills itself right before or right after that batch's append to that table.
"""

import os
import signal
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    RECORD_KEY,
    REJECTED_EVENTS,
    Table,
)
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine
from clickstream_assets.ingest.classification import Landing, classify_records, land_records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.simulator.made import Made
from clickstream_assets.simulator.run import SimulationOptions, run_simulation
from clickstream_assets.simulator.stream import Faults
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.pseudonyms import pseudonyms_of

TABLES = (RAW_EVENTS, EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS)
Contents = dict[str, list[dict[str, Any]]]


@dataclass
class Ingestion:
    """A topic, the lake that it goes into, and the settings that name both."""

    settings: Settings
    lake: Lake

    @classmethod
    def of(cls, settings: Settings, engine: Engine) -> Self:
        """Return the ingest that the settings name, on an engine."""
        return cls(settings, Lake(settings.lake, engine))

    def land(self) -> Landing:
        """Append the topic's new records to `raw_events`, as that asset does."""
        return land_records(self.lake, Topics(self.settings), self.settings)

    def classify(self) -> Counter[str]:
        """Write the new records of `raw_events` to their tables, as the asset `events` does."""
        names = partial(pseudonyms_of, self.settings)
        return classify_records(self.lake, ValidationRules.of(self.settings), names)

    def run(self) -> tuple[Landing, Counter[str]]:
        """Land and classify all records."""
        return self.land(), self.classify()

    def counts(self) -> dict[str, int]:
        """Count the rows of each table."""
        return {table.name: self.lake.snapshot(table).rows for table in TABLES}

    def versions(self) -> dict[str, int]:
        """Return the versions of the tables; a table that was written to has a new one."""
        return {table.name: self.lake.snapshot(table).version for table in TABLES}

    def contents(self) -> Contents:
        """Return each table's rows in the order of their records, without the number of their batch."""
        contents = self._rows()
        for rows in contents.values():
            for row in rows:
                del row["batch"]
        return contents

    def misclassified(self) -> dict[tuple[Any, ...], list[str]]:
        """Return the tables of each record that is not in `raw_events` once and in one other with the same batch."""
        tables = defaultdict(list)
        for name, rows in self._rows().items():
            for row in rows:
                tables[*(row[column] for column in RECORD_KEY), row["batch"]].append(name)
        return {
            record: names
            for record, names in tables.items()
            if len(names) != 2 or names[0] != RAW_EVENTS.name
        }

    def _rows(self) -> Contents:
        order = [(name, "ascending") for name in RECORD_KEY]
        read = {table: self.lake.engine.to_arrow(self.lake.read(table)) for table in TABLES}
        return {table.name: conform(data, table).sort_by(order).to_pylist() for table, data in read.items()}


def simulate(settings: Settings, events: int, share: float, seed: int = 7) -> Made:
    """Send simulated events to the topic; `share` of them each late, repeated, contradicted and broken."""
    faults = Faults(late=share, duplicate=share, conflicting=share, malformed=share)
    options = SimulationOptions(
        events=events,
        seed=seed,
        start=datetime(2024, 5, 1, tzinfo=UTC),
        users=40,
        products=20,
        faults=faults,
        files=False,
    )
    return run_simulation(settings, options)


def made_counts(made: Made) -> dict[str, int]:
    """Return the number of rows that each table must have of simulated events."""
    return {
        RAW_EVENTS.name: made.sent,
        EVENTS.name: made.events,
        DUPLICATE_EVENTS.name: made.duplicates,
        CONFLICTING_EVENTS.name: made.conflicts,
        REJECTED_EVENTS.name: made.rejected,
    }


def ingestion_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process that ingests what the settings name."""
    return os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
        "LAKE_PATH": settings.lake,
        "CLICKSTREAM_HOME": str(Path(settings.lake).parent),
        "INGEST_BATCH_RECORDS": str(settings.ingest_batch),
    }


def _die_at(table: str, moment: str, batch: int) -> None:
    append = Lake.append_batch

    def append_and_die(lake: Lake, to: Table, df: DataFrame, number: int, **options: Any) -> None:
        is_the_one = (to.name, number) == (table, batch)
        if is_the_one and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        append(lake, to, df, number, **options)
        if is_the_one:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Lake, append.__name__, append_and_die)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _die_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    from_environment = load_settings()
    Ingestion.of(from_environment, DuckDBEngine(from_environment)).run()
