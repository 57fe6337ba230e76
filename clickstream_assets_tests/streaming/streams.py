"""A stream of one's own on the real servers: a topic, a database, a lake and checkpoints; and what is in its tables."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from psycopg import sql
from psycopg.rows import dict_row

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS, TIMESTAMP, Table
from clickstream_assets.engine import DuckDBEngine, SparkSession
from clickstream_assets.ingest.classification import classify_records, land_records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import RESULT_WINDOW
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.alert_index import AlertIndex
from clickstream_assets.streaming.process import Outcome, run_available
from clickstream_assets.streaming.source import configured
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.topics import new_topic, send

Rows = list[dict[str, Any]]
_PASSED_ON = (
    *("kafka_bootstrap_servers", "kafka_topic", "kafka_timeout_seconds"),
    *("postgres_host", "postgres_port", "postgres_user", "postgres_db", "postgres_timeout_seconds"),
    *("elasticsearch_url", "elasticsearch_alias", "elasticsearch_alerts_index"),
    "elasticsearch_patience_seconds",
    *("lake_path", "checkpoint_path", "clickstream_home", "views_threshold"),
    *("stream_batch_records", "stream_trigger_seconds", "stream_lake_seconds", "stream_idle_seconds"),
)
UNSETTLED = ("batch_id",)
"""Columns that depend on how the events came in batches."""


def click(moment: datetime, number: int, **changes: Any) -> dict[str, Any]:
    """An event; by default a view of p1 by u1."""
    return {
        "event_id": f"e{number}",
        "event_type": "view",
        "user_id": "u1",
        "product_id": "p1",
        "timestamp": moment.isoformat(),
        **changes,
    }


def views(
    start: datetime, number: int, over: timedelta, product_id: str = "p1", prefix: str = ""
) -> list[dict[str, Any]]:
    """Views of a product by different users, spread evenly."""
    return [
        click(
            start + over * i / number,
            i,
            event_id=f"{prefix}{product_id}-{start:%H%M}-{i}",
            user_id=f"u{i}",
            product_id=product_id,
        )
        for i in range(number)
    ]


@dataclass
class Shop:
    """One stream, and the session that it is run in."""

    settings: Settings
    spark: SparkSession | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)

    def send(self, events: Iterable[dict[str, Any]], partition: int = 0) -> None:
        """Send events."""
        events = list(events)
        self.sent += events
        send(self.settings, {partition: [json.dumps(event).encode() for event in events]})

    def run(self, **changes: Any) -> Outcome:
        """Run the stream over what is there, with some settings changed from now on."""
        self.settings = with_settings(self.settings, **changes)
        assert self.spark
        return run_available(self.settings, lambda: configured(self.spark, self.settings))

    def stream(self, events: Iterable[dict[str, Any]], partition: int = 0) -> Outcome:
        """Send events, and run the stream over them."""
        self.send(events, partition)
        return self.run()

    def ingest(self) -> None:
        """Bring the topic's records into the lake's events."""
        land_records(self.lake, Topics(self.settings), self.settings)
        classify_records(self.lake, ValidationRules.of(self.settings))

    @property
    def lake(self) -> Lake:
        """The lake."""
        return Lake(self.settings.lake, DuckDBEngine(self.settings))

    def windows(self) -> Rows:
        """PostgreSQL's windows."""
        return self._rows(PRODUCT_WINDOWS)

    def alerts(self) -> Rows:
        """PostgreSQL's alerts."""
        return self._rows(FLASH_SALE_ALERTS)

    def notifications(self) -> list[tuple[str, str]]:
        """Product and kind of the console's notifications, in order."""
        with connect(self.settings) as connection:
            rows = connection.execute(
                "SELECT payload->>'product_id', kind FROM alert_notifications WHERE sink = 'console' ORDER BY id"
            )
            return [(str(product), str(kind)) for product, kind in rows]

    def copy(self, table: Table) -> Rows:
        """The lake's rows of a table."""
        return settled(DeltaTable(f"{self.settings.lake}/{table.name}").to_pyarrow_table().to_pylist(), table)

    def _rows(self, table: Table) -> Rows:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
        statement = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.name))
        with connect(self.settings) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return settled(cursor.execute(statement).fetchall(), table)

    def environment(self) -> dict[str, str]:
        """The environment of a process that runs this stream."""
        values = {name.upper(): str(getattr(self.settings, name)) for name in _PASSED_ON}
        values["POSTGRES_PASSWORD"] = self.settings.postgres_password.get_secret_value()
        return os.environ | values


def indexed_alerts(settings: Settings) -> Rows:
    """Elasticsearch's alerts, as rows of the table."""
    index = AlertIndex(settings)
    name = settings.elasticsearch_alerts_index
    try:
        index.client.indices.refresh(index=name, ignore_unavailable=True)
        hits = index.client.search(index=name, ignore_unavailable=True, size=RESULT_WINDOW)["hits"]["hits"]
    finally:
        index.close()
    assert all(hit["_id"] == hit["_source"]["alert_id"] for hit in hits)
    rows = [dict.fromkeys(FLASH_SALE_ALERTS.column_names) | hit["_source"] for hit in hits]
    times = [column.name for column in FLASH_SALE_ALERTS.columns if column.type == TIMESTAMP]
    for row in rows:
        row |= {name: datetime.fromisoformat(row[name]) for name in times if row[name]}
        # JSON has no exact numbers: 1.35 is the nearest that a float has.
        row["conversion_rate"] = Decimal(str(row["conversion_rate"]))
    return settled(rows, FLASH_SALE_ALERTS)


def settled(rows: Rows, table: Table) -> Rows:
    """The rows in the order of their key, without what may differ from run to run."""
    kept = [{name: value for name, value in row.items() if name not in UNSETTLED} for row in rows]
    return sorted(kept, key=lambda row: [str(row[name]) for name in table.key])


@contextmanager
def new_shop(
    settings: Settings, folder: Path, spark: SparkSession | None = None, partitions: int = 1, **changes: Any
) -> Iterator[Shop]:
    """A stream with a topic, a database and folders of its own."""
    with fresh_database(settings) as database:
        own = with_settings(
            new_topic(database, partitions),
            lake_path=str(folder / "lake"),
            checkpoint_path=str(folder / "checkpoints"),
            clickstream_home=folder,
            # The instance of the stack's own is configured with variables that are not set here.
            dagster_home=None,
            elasticsearch_alias=f"live_{database.postgres_db[-12:]}",
            elasticsearch_alerts_index=f"alerts_{database.postgres_db[-12:]}",
            **changes,
        )
        yield Shop(own, spark)
