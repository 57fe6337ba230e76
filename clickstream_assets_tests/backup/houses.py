"""Houses for backups: a lake, checkpoints and two databases of their own, and a stream without Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.engine.spark_private import COMMITS, OFFSETS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.streaming.checkpoint import Checkpoint
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.query import checkpoint_of, lake_of
from clickstream_assets.streaming.store import WindowStore
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.ingestion import Ingestion, simulate

NOON = at("2024-05-01 12:00")


@contextmanager
def house(server: Settings, folder: Path, topic: str, lake: str | None = None) -> Iterator[Settings]:
    """Settings of a house whose stores are new and empty, with Dagster's database on the same server."""
    with fresh_database(server) as served, fresh_database(server, migrated=False) as history:
        home = folder / "dagster"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(dagster_yaml(history))
        yield with_settings(
            served,
            clickstream_home=folder,
            lake_path=lake or str(folder / "lake"),
            checkpoint_path=str(folder / "checkpoints"),
            dagster_home=home,
            kafka_topic=topic,
        )


def dagster_yaml(database: Settings) -> str:
    """Configuration of an instance of Dagster's whose storage is a database."""
    named = {
        "hostname": database.postgres_host,
        "port": database.postgres_port,
        "username": database.postgres_user,
        "password": database.postgres_password.get_secret_value(),
        "db_name": database.postgres_db,
    }
    storage = {
        "module": "clickstream_assets.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_db": named},
    }
    # JSON is YAML.
    return json.dumps({"storage": {"custom": storage}, "telemetry": {"enabled": False}})


def ingestion(settings: Settings) -> Ingestion:
    """The ingest of a house."""
    return Ingestion.of(settings, DuckDBEngine(settings))


@contextmanager
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance of a house."""
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as opened:
        yield opened


@dataclass
class Streaming:
    """The stream of windows as Spark drives it: plan a batch in the checkpoint, record it, note that it is done."""

    settings: Settings
    store: WindowStore
    checkpoint: Checkpoint
    batch: int = 0
    offset: int = 0
    seen: list[int] = field(default_factory=list)

    def run_batch(self) -> None:
        """Run the next batch; one that is planned already is run as it was planned."""
        self.offset += 10
        plan = Path(self.checkpoint.path) / OFFSETS / str(self.batch)
        if not plan.exists():
            offsets = json.dumps({self.settings.kafka_topic: {"0": self.offset}})
            _write(plan, f'v1\n{{"batchWatermarkMs":0}}\n{offsets}')
        _write(Path(self.checkpoint.path) / "state" / "0" / "0" / f"{self.batch + 1}.zip", "state")
        self.store.record(self.batch, self.checkpoint.planned_batch(self.batch), window(self.batch))
        self.seen.append(self.batch)
        _write(Path(self.checkpoint.path) / COMMITS / str(self.batch), "v1\n{}")
        self.batch += 1


def furnish(settings: Settings) -> None:
    """Have events, and a batch of the stream, in a house."""
    simulate(settings, events=120, share=0.05)
    ingestion(settings).run()
    with streaming(settings) as stream:
        stream.run_batch()
    update_copies(settings, lake_of(settings))


def window(number: int) -> pa.Table:
    """A row of product_windows."""
    start = NOON + timedelta(minutes=5 * number)
    values = {
        "window_date": start.date(),
        "window_start": start,
        "window_end": start + timedelta(minutes=10),
        "product_id": "p1",
    }
    names = [name for name in PRODUCT_WINDOWS.column_names if name not in ("is_final", "batch_id")]
    schema = pa.schema([PRODUCT_WINDOWS.arrow.field(name) for name in names])
    row = {field.name: values.get(field.name, _least(field, start)) for field in schema}
    return pa.Table.from_pylist([row], schema)


def _least(column: pa.Field, start: datetime) -> Any:
    """A value of a column that no test looks at."""
    if column.nullable:
        return None
    return start if pa.types.is_timestamp(column.type) else 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(text)
    partial.replace(path)


@contextmanager
def streaming(settings: Settings) -> Iterator[Streaming]:
    """Own a house's streams, and go on where its checkpoint and its tables are, as `WindowQuery.start` does.

    Raises:
        CheckpointError: they do not fit together.
    """
    with ownership(settings, "stream") as connection:
        store = WindowStore(connection, settings)
        progress = store.progress(lake_of(settings).snapshot(PRODUCT_WINDOWS).batch)
        checkpoint = checkpoint_of(settings, progress.generation)
        assert checkpoint.has_begun == progress.has_begun
        checkpoint.open(Topics(settings).ids())
        done = checkpoint.committed_batch_id()
        store.refuse_older_tables(progress, done)
        offset = progress.offsets.get(TopicPartition(settings.kafka_topic, 0), 0)
        yield Streaming(settings, store, checkpoint, done + 1, offset)
