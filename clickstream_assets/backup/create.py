"""Makes a backup, while everything goes on.

The stores are copied as of moments that fit together, whatever is written between them:

1. The lake's copies of windows and alerts, before PostgreSQL. A copy says up to which batch it has PostgreSQL's rows,
   and takes later ones; one that were ahead would not take them.
2. PostgreSQL and the stream's checkpoint, while the row of the stream's progress is locked. A batch is in PostgreSQL
   and in that row by one transaction, which waits for the lock; Spark notes the batch in the checkpoint after that, and
   plans one further at most. So in the copy the checkpoint says of no batch that it is done which PostgreSQL does not
   have, and of PostgreSQL's last batch it has the plan at least: the stream runs it again, and finds it. Copied one
   after the other without the lock, either could be ahead, and the stream would refuse to go on.
3. Dagster's database, right after PostgreSQL. What it says of the lake was true by then, so the lake has it.
4. The lake's other tables, at one moment after that. What PostgreSQL serves is in it. What came into it since is found
   by Dagster's sensors, reported and published; what came into Kafka since is taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import psycopg
from psycopg import sql

from clickstream_assets.backup.checkpoint import copy_checkpoint
from clickstream_assets.backup.dagster import REVISION, database_of, instance_of
from clickstream_assets.backup.databases import copy_out, moment, revision_of, tables_of
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.lake import Cut, copy_table, cut
from clickstream_assets.backup.manifest import (
    FILES,
    FORMAT,
    Backup,
    Database,
    Lake,
    LakeTable,
    Stored,
    Stream,
    new_name,
    newest,
    seal,
)
from clickstream_assets.backup.marker import read_marker
from clickstream_assets.backup.place import Counting, Found, Place, Written, uncounted
from clickstream_assets.backup.prune import begin
from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS, RAW_EVENTS
from clickstream_assets.files import Progress, silent
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.partition import TopicPartition, to_json
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.metadata import METADATA, VERSION_TABLE
from clickstream_assets.stores.postgres.migrate import newest_revision
from clickstream_assets.streaming import live_events
from clickstream_assets.streaming.checkpoint import REBUILD
from clickstream_assets.streaming.progress import Progress as StreamProgress
from clickstream_assets.streaming.progress import read_progress
from clickstream_assets.streaming.query import checkpoint_of, lake_of

_STREAMED = (PRODUCT_WINDOWS.name, FLASH_SALE_ALERTS.name)
# The stream's transactions are short; what holds the row for longer hangs.
_LOCK_TIMEOUT = "60s"


def back_up(
    settings: Settings, target: str, progress: Progress = silent, counting: Counting = uncounted
) -> Backup:
    """Make a backup.

    Args:
        settings: Name the stores.
        target: A folder, as an absolute path, or s3://…; a new one, or one that has backups.
        progress: Gets a line on each store.
        counting: Opens counts of bytes.

    Raises:
        BackupError: the target has other files, or a store cannot be copied. What was copied is no backup.
        PostgresError: a database cannot be read.
    """
    return _Making(settings, Place(target), progress, counting).make()


@dataclass(frozen=True)
class _Moments:
    """Moments that the stores are copied as of, and the stream, which is copied already."""

    served: psycopg.Connection
    dagster: tuple[Settings, psycopg.Connection] | None
    stream: Stream | None
    streamed: Cut
    others: Cut


class _Making:
    def __init__(self, settings: Settings, place: Place, progress: Progress, counting: Counting) -> None:
        self._settings, self._place, self._progress, self._counting = settings, place, progress, counting
        self._lake, self._checkpoints = Place(settings.lake), Place(settings.checkpoints)
        self._began_at = datetime.now(UTC)
        self._name = ""
        self._files: dict[str, Written] = {}

    def make(self) -> Backup:
        self._refuse()
        self._name = new_name(self._place, self._began_at)
        begin(self._place, self._name)
        known = _known(self._place)
        with ExitStack() as stack:
            moments = self._moments(stack)
            postgres = self._copy_served(moments.served)
            dagster = self._copy_dagster(moments.dagster)
        lake = self._copy_lake(moments, known)
        backup = Backup(
            format=FORMAT,
            product=version("clickstream-assets"),
            name=self._name,
            began_at=self._began_at,
            ended_at=datetime.now(UTC),
            lake=lake,
            topics=self._topics(),
            stream=moments.stream,
            postgres=postgres,
            dagster=dagster,
            files={path: Stored(file.size, file.sha256) for path, file in sorted(self._files.items())},
        )
        seal(self._place, backup)
        return backup

    def _refuse(self) -> None:
        for name, store in (("LAKE_PATH", self._lake), ("CHECKPOINT_PATH", self._checkpoints)):
            if self._place.is_in(store):
                raise BackupError(
                    f"{self._place.uri} is in {name}={store.uri}, which it is to be a copy of; name another folder"
                )
        if marker := read_marker(self._lake):
            raise BackupError(
                f"LAKE_PATH={self._lake.uri} is not whole: the return of backup {marker.backup} has not ended. Run "
                f"`clickstream restore {marker.source} --which {marker.backup}` first"
            )

    def _moments(self, stack: ExitStack) -> _Moments:
        """Take the moments, in the order that the module says; they last as long as the stack."""
        settings = self._settings
        instance = stack.enter_context(instance_of(settings))
        its_database = database_of(instance, settings) if instance else None
        served = stack.enter_context(moment(settings))
        dagster = stack.enter_context(moment(its_database)) if its_database else None
        streamed = cut(self._lake, only=_STREAMED)
        with explained(settings), connect(settings) as connection:
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(_LOCK_TIMEOUT))
            read_progress(connection, for_update=True)
            # The first query of each is its moment.
            progress = read_progress(served)
            if its_database and dagster:
                with explained(its_database):
                    revision_of(dagster, REVISION)
            stream = self._copy_stream(progress) if progress else None
        # Elasticsearch is in no backup: by this checkpoint the stream finds that it has less, and what.
        self._files |= copy_checkpoint(self._checkpoints, live_events.QUERY, self._place, self._name)
        others = cut(self._lake, besides=_STREAMED)
        with_settings = (its_database, dagster) if its_database and dagster else None
        return _Moments(served, with_settings, stream, streamed, others)

    def _copy_stream(self, progress: StreamProgress) -> Stream:
        checkpoint = checkpoint_of(self._settings, progress.generation).path.rpartition("/")[2]
        copied = copy_checkpoint(self._checkpoints, checkpoint, self._place, self._name)
        if progress.has_begun and not copied:
            raise BackupError(
                f"CHECKPOINT_PATH={self._checkpoints.uri} has no {checkpoint}, and PostgreSQL has what the stream "
                f"counted up to batch {progress.batch_id}. Set it to where the stream's checkpoint is, or run {REBUILD}"
            )
        self._files |= copied
        self._progress(f"Stream: up to batch {progress.batch_id}, a checkpoint of {len(copied):,} files")
        return Stream(checkpoint, progress.generation, progress.batch_id, to_json(progress.offsets))

    def _copy_served(self, served: psycopg.Connection) -> Database:
        with explained(self._settings):
            there, newest = revision_of(served, VERSION_TABLE), newest_revision()
            if there == newest:
                return self._copy_database("PostgreSQL", served, sorted(METADATA.tables), newest, "postgres")
        raise BackupError(
            f"POSTGRES_DB={self._settings.postgres_db} is at revision {there}, and this version of the product "
            f"knows it at {newest}; make the backup by the version that made the tables, or run `clickstream "
            "prepare` first"
        )

    def _copy_dagster(self, dagster: tuple[Settings, psycopg.Connection] | None) -> Database | None:
        if dagster is None:
            self._progress("Dagster: DAGSTER_HOME names no database in PostgreSQL, so none is in this backup")
            return None
        settings, connection = dagster
        with explained(settings):
            names = tables_of(connection, {*METADATA.tables, VERSION_TABLE, REVISION})
            revision = revision_of(connection, REVISION) or ""
            return self._copy_database("Dagster", connection, names, revision, "dagster")

    def _copy_database(
        self, title: str, connection: psycopg.Connection, names: list[str], revision: str, folder: str
    ) -> Database:
        database, files = copy_out(connection, names, revision, self._place, f"{self._name}/{folder}")
        self._files |= files
        rows = sum(table.rows for table in database.tables.values())
        self._progress(f"{title}: {len(names)} tables, {rows:,} rows, at revision {revision}")
        return database

    def _copy_lake(self, moments: _Moments, known: Mapping[str, Written]) -> Lake:
        tables: dict[str, LakeTable] = {}
        reused = 0
        for pinned in (moments.streamed, moments.others):
            for name, number in sorted(pinned.versions.items()):
                copied = copy_table(
                    self._lake, name, number, pinned.moment, self._place, self._name, known, self._counting
                )
                tables[name] = copied.table
                self._files |= copied.files
                reused += len(copied.files.keys() & known.keys())
        rows = sum(table.rows for table in tables.values())
        self._progress(
            f"Lake: {len(tables)} tables, {rows:,} rows; {reused:,} files were there from the last backup"
        )
        offsets: dict[TopicPartition, int] = {}
        if raw := tables.get(RAW_EVENTS.name):
            snapshot = lake_of(self._settings).snapshot(RAW_EVENTS, version=raw.version)
            last = snapshot.maximum("offset", by=("topic", "partition"))
            offsets = {TopicPartition(*key): offset + 1 for key, offset in last.items()}
        return Lake(tables, to_json(offsets))

    def _topics(self) -> dict[str, str | None]:
        try:
            ids = Topics(self._settings).ids()
        except TopicError as error:
            # What is in the backup does not depend on it.
            self._progress(f"Kafka: the topics' ids are not noted: {error}")
            return {}
        return {name: str(number) if number else None for name, number in ids.items()}


def _known(place: Place) -> dict[str, Written]:
    """Return the lake's files that the newest backup has, and that are there as it has them."""
    before = newest(place)
    if before is None:
        return {}
    there = place.files(FILES)
    return {
        path: Written(file.size, file.sha256)
        for path, file in before.files.items()
        if path.startswith(f"{FILES}/") and _is_whole(there.get(path.removeprefix(f"{FILES}/")), file)
    }


def _is_whole(found: Found | None, file: Stored) -> bool:
    return found is not None and found.size == file.size
