"""Progress of the stream, in the row of `stream_progress`."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, from_json, to_json
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.statements import upsert
from clickstream_assets.streaming.alerts import AlertRules
from clickstream_assets.streaming.windows import QUERY


@dataclass(frozen=True)
class Progress:
    """Progress of the stream; the fields are columns of `stream_progress`.

    Batches are numbered from `base_batch_id` on. Other changes of the tables (a rebuild, other rules, windows closed
    by the clock) take a number too, and raise it: a number is never used twice.
    """

    generation: int
    """Number of times that it was begun anew, each with a checkpoint of its own."""
    base_batch_id: int
    batch_id: int
    """The last batch that is in the tables."""
    watermark: datetime | None
    floor: datetime | None
    """Windows that end by then were rebuilt from the lake, and the stream does not change them."""
    offsets: dict[TopicPartition, int]
    """Per partition, up to where the tables hold it; before the first batch, where to begin."""
    alert_rules: AlertRules
    """Rules by which the alerts were found."""
    idle_until: datetime | None = None
    """Windows that end by then were closed because no more records came; None since some have."""

    @property
    def has_begun(self) -> bool:
        """True once a batch of this generation is in the tables."""
        return self.batch_id > self.base_batch_id

    @property
    def closed_until(self) -> datetime | None:
        """Windows that end by then are not changed by any event to come."""
        return max(filter(None, (self.watermark, self.floor)), default=None)

    def with_next_number(self) -> Self:
        """Take the next number for a change that is no batch; the batches to come are numbered after it."""
        return replace(self, base_batch_id=self.base_batch_id + 1, batch_id=self.batch_id + 1)


def read_progress(connection: psycopg.Connection, *, for_update: bool = False) -> Progress | None:
    """Read the stream's progress; None before its first start."""
    statement = f"SELECT * FROM stream_progress WHERE query = %s{' FOR UPDATE' if for_update else ''}"  # noqa: S608 - of texts that are written here
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(statement, [QUERY]).fetchone()
    if row is None:
        return None
    # What reads JSON for us knows no keys of two parts.
    return replace(msgspec.convert(row | {"offsets": {}}, Progress), offsets=from_json(row["offsets"]))


def progress_of(settings: Settings) -> Progress | None:
    """Read the stream's progress on a connection of its own.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        return read_progress(connection)


def write_progress(connection: psycopg.Connection, progress: Progress) -> None:
    """Write the stream's progress."""
    fields = msgspec.to_builtins(replace(progress, offsets={}), builtin_types=(datetime,))
    fields["offsets"] = to_json(progress.offsets)
    values = {"query": QUERY} | {n: Jsonb(v) if isinstance(v, dict) else v for n, v in fields.items()}
    times = sql.SQL(
        ", updated_at = now(), read_at = CASE WHEN kept.offsets = excluded.offsets THEN kept.read_at ELSE now() END"
    )
    connection.execute(upsert("stream_progress", "query", values) + times, list(values.values()))


def idle_until(connection: psycopg.Connection, settings: Settings) -> datetime | None:
    """Return up to when windows are to be closed because no record was read for STREAM_IDLE_SECONDS.

    None while records are read, and where no such window is open.
    """
    if not settings.stream_idle_seconds:
        return None
    idle = timedelta(seconds=settings.stream_idle_seconds)
    row = connection.execute(
        "SELECT until FROM stream_progress, LATERAL (SELECT now() - %s - %s) AS late (until) "
        "WHERE query = %s AND read_at < now() - %s "
        "AND EXISTS (SELECT FROM product_windows WHERE NOT is_final AND window_end <= until)",
        (idle, settings.watermark_delay, QUERY, idle),
    ).fetchone()
    return row[0] if row else None


def is_idle(settings: Settings) -> bool:
    """Return whether there are windows that `WindowStore.close_idle` would close.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        return idle_until(connection, settings) is not None
