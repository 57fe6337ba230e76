"""A pipeline of its own on the real servers, run as the daemon runs it, and what is in its tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from typing import Any

import dagster as dg
from confluent_kafka import Producer
from deltalake import DeltaTable
from psycopg import sql
from psycopg.rows import dict_row

from clickstream_assets.catalogue import Table
from clickstream_assets.defs.dirty_days import RefreshState, dirty_days_sensor
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.defs.history import tick

Rows = list[dict[str, Any]]


def send(settings: Settings, values: Iterable[bytes]) -> None:
    """Records that Kafka has acknowledged."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for value in values:
        producer.produce(settings.kafka_topic, value=value)
    assert producer.flush(30) == 0


class Pipeline:
    """Events in, runs, tables out; of the assets that `only` selects, where it is given."""

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        definitions: dg.Definitions,
        only: dg.AssetSelection | None = None,
    ) -> None:
        self.settings = settings
        self.instance = instance
        self._definitions = definitions
        self._refresh = definitions.resolve_job_def("refresh")
        self._train = definitions.resolve_job_def("train")
        # Days without events, of which the tests' years have thousands, are looked at where a test is about them.
        self._cursor: str | None = RefreshState(filled=date.max).model_dump_json()
        self._assets, self._trained = (
            set(job.asset_layer.executable_asset_keys) for job in (self._refresh, self._train)
        )
        if only:
            # What a test does not look at need not be made.
            chosen = only.resolve(definitions.resolve_asset_graph())
            self._assets &= chosen
            self._trained &= chosen

    def ingest(self, *events: dict[str, Any]) -> None:
        """Events come in, down to the table `events`."""
        send(self.settings, (json.dumps(event).encode() for event in events))
        self._definitions.resolve_job_def("ingest").execute_in_process(instance=self.instance)

    def refresh(
        self, first: str, last: str, assets: Iterable[dg.AssetKey] | None = None, **tags: str
    ) -> dg.ExecuteInProcessResult:
        """One `refresh` run over a range of days; of some assets only, where they are given."""
        return self._refresh.execute_in_process(
            instance=self.instance,
            asset_selection=list(self._assets if assets is None else assets),
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
                **tags,
            },
        )

    def train(self) -> dg.ExecuteInProcessResult:
        """One `train` run."""
        return self._train.execute_in_process(instance=self.instance, asset_selection=list(self._trained))

    def materialize(self, asset: str) -> dg.ExecuteInProcessResult:
        """One asset alone, as a person does it in the UI; what fails is in the result."""
        return self._definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance, asset_selection=[dg.AssetKey(asset)], raise_on_error=False
        )

    def catch_up(self) -> list[tuple[str, str]]:
        """Run what `dirty_days` asks for until it asks for nothing; return the ranges of days."""
        ranges: list[tuple[str, str]] = []
        while True:
            result = tick(dirty_days_sensor, self.instance, self._definitions, self._cursor)
            self._cursor = result.cursor
            if not result.run_requests:
                assert result.skip_message == "every day is up to date"
                return ranges
            (request,) = result.run_requests
            asked = self._assets.intersection(request.asset_selection or self._assets)
            self._refresh.execute_in_process(
                instance=self.instance, asset_selection=list(asked), tags=request.tags
            )
            ranges.append(
                (
                    request.tags["dagster/asset_partition_range_start"],
                    request.tags["dagster/asset_partition_range_end"],
                )
            )

    def reported(self, asset: str, name: str) -> Any:
        """A metadata value of an asset's last materialization."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event
        assert event.asset_materialization
        return event.asset_materialization.metadata[name].value

    def reported_by_day(self, asset: str, name: str) -> dict[str, Any]:
        """A metadata value of an asset's last run, of each day that has it."""
        key = dg.AssetKey(asset)
        last = self.instance.get_latest_materialization_event(key)
        assert last
        records = self.instance.fetch_materializations(key, limit=10_000).records
        found = {
            str(record.partition_key): record.asset_materialization.metadata.get(name)
            for record in records
            if record.run_id == last.run_id and record.asset_materialization
        }
        return {day: value.value for day, value in sorted(found.items()) if value}

    def lake(self, table: Table) -> Rows:
        """A table of the lake, in the order of its key."""
        rows = DeltaTable(f"{self.settings.lake}/{table.name}").to_pyarrow_table().to_pylist()
        return in_order(rows, table)

    def served(self, table: Table) -> Rows:
        """Return a table as PostgreSQL has it, in the order of its key."""
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in table.column_names)
        query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.served_name))
        with connect(self.settings) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return in_order(cursor.execute(query).fetchall(), table)


def in_order(rows: Rows, table: Table) -> Rows:
    """The rows by the table's key."""
    return sorted(rows, key=lambda row: [str(row[name]) for name in table.key])
