"""The running query of `product_windows`: from its start to what each of its batches leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.engine import DataFrame, DuckDBEngine, SparkSession
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.checkpoint import REBUILD, Checkpoint, CheckpointError
from clickstream_assets.streaming.errors import guarded
from clickstream_assets.streaming.progress import Progress, is_idle, progress_of
from clickstream_assets.streaming.source import valid_events
from clickstream_assets.streaming.store import Changes, WindowStore
from clickstream_assets.streaming.windows import COLUMNS, QUERY, fingerprint, windowed

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

_log = logging.getLogger(__name__)


def checkpoint_of(settings: Settings, generation: int) -> Checkpoint:
    """Return the checkpoint of a generation of the query: 1 at first, one more with each rebuild."""
    return Checkpoint(settings, f"{QUERY}-{generation}", fingerprint(settings))


def lake_of(settings: Settings) -> Lake:
    """Return the lake for what goes through Arrow in this process, whatever engine tables are computed on."""
    return Lake(settings.lake, DuckDBEngine(settings))


class WindowQuery:
    """`product_windows`, run by the owner of the streams.

    Args:
        session: as `source.streaming_session` returns it.
        settings: everything else.
        connection: the owner's.
        on_batch: called with a batch's changes once they are in PostgreSQL; must not block.
    """

    def __init__(
        self,
        session: SparkSession,
        settings: Settings,
        connection: psycopg.Connection,
        on_batch: Callable[[Changes], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._store = WindowStore(connection, settings)
        self._on_batch = on_batch
        self._checkpoint: Checkpoint | None = None
        self.latency_seconds: float | None = None
        """Seconds from the newest event's time to PostgreSQL, in the last batch with events."""
        self.error: BaseException | None = None
        """Error of a batch, which Spark passes on as text alone."""
        self.open_alerts: int | None = None
        """Number of open alerts after the last batch."""

    def start(self, trigger: dict[str, Any]) -> StreamingQuery:
        """Start it where it ended; `trigger` goes to `DataStreamWriter.trigger`.

        Raises:
            CheckpointError: the checkpoint and the tables, or the checkpoint and the settings, do not fit together.
            DataLossError: a topic was made anew.
            PostgresError: the database cannot be reached.
        """
        progress = self._store.progress(lake_of(self._settings).snapshot(PRODUCT_WINDOWS).batch)
        self._checkpoint = checkpoint = checkpoint_of(self._settings, progress.generation)
        if progress.has_begun and not checkpoint.has_begun:
            raise CheckpointError(
                f"CHECKPOINT_PATH: the state of the stream is not in {checkpoint.path}, and the tables hold what it "
                f"counted up to batch {progress.batch_id}. Set CHECKPOINT_PATH to where it is, or run {REBUILD}"
            )
        checkpoint.open(Topics(self._settings).ids())
        if checkpoint.has_begun and not progress.has_begun and checkpoint.planned_batch_ids()[-1] > 0:
            raise CheckpointError(
                f"POSTGRES_DB={self._settings.postgres_db} has none of the windows that the stream of "
                f"{checkpoint.path} has counted. Set POSTGRES_DB to where they are, or run {REBUILD}"
            )
        self._store.refuse_older_tables(progress, checkpoint.committed_batch_id())

        def write(rows: DataFrame, batch_id: int) -> None:
            try:
                self._write(rows, batch_id, checkpoint)
            except BaseException as error:
                self.error = error
                raise

        events = valid_events(
            self._session, self._settings, COLUMNS, None if progress.has_begun else self._beginning(progress)
        )
        return (
            windowed(events, self._settings)
            .writeStream.queryName(QUERY)
            .outputMode("update")
            .foreachBatch(guarded(write))
            .option("checkpointLocation", checkpoint.path)
            .trigger(**trigger)
            .start()
        )

    def refuse_topics_made_anew(self, topic_ids: Mapping[str, UUID | None]) -> None:
        """Check, while it runs, that it reads the topics that it began with: Spark asks for their offsets alone.

        Args:
            topic_ids: Kafka's, by topic.

        Raises:
            DataLossError: one was deleted and made anew.
        """
        if self._checkpoint:
            self._checkpoint.refuse_topics_made_anew(topic_ids)

    def close_idle(self) -> None:
        """Close windows and alerts that are over by the clock, if nothing was read for STREAM_IDLE_SECONDS.

        Raises:
            TopicError: Kafka does not answer.
            PostgresError: the database cannot be reached.
        """
        if not is_idle(self._settings):
            return
        progress = progress_of(self._settings)
        available = Topics(self._settings).offsets()
        if progress is None or any(o.high > progress.offsets.get(p, o.low) for p, o in available.items()):
            return
        changes = self._store.close_idle()
        if changes is None:
            return
        self.open_alerts = changes.open_alerts
        _log.info(
            "no records come any more: what was over is closed, with %d notifications",
            changes.notifications,
        )
        self._on_batch(changes)

    def _beginning(self, progress: Progress) -> dict[TopicPartition, int] | None:
        if not progress.offsets:
            return None
        # Spark wants every partition; one that is newer than the rebuild begins where it does.
        available = Topics(self._settings).offsets()
        return {p: max(progress.offsets.get(p, o.low), o.low) for p, o in available.items()}

    def _write(self, rows: DataFrame, batch_id: int, checkpoint: Checkpoint) -> None:
        # Also of a batch that is in the tables already: collecting it is what brings the query's state along.
        table: pa.Table = rows.toArrow()
        changes = self._store.record(batch_id, checkpoint.planned_batch(batch_id), table)
        self.open_alerts = changes.open_alerts
        if table.num_rows:
            newest = pc.max(table["last_event_time"]).as_py()
            self.latency_seconds = (datetime.now(UTC) - newest).total_seconds()
        _log.debug(
            "batch %d: %d windows changed, %d notifications",
            batch_id,
            changes.windows,
            changes.notifications,
        )
        self._on_batch(changes)
