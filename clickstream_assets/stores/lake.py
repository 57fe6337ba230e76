"""The lake: Delta tables that either engine reads and writes, with writes that can be repeated.

The table's log is read and written by delta-rs on both engines: it needs no JVM, answers how far a table has come from
metadata alone, and two writers of which one commits by other means would not see each other on object storage. Data is
written where it was computed: by delta-rs in this process, or by Spark's tasks.
"""

import operator
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from pyarrow.fs import FileType

from clickstream_assets.catalogue import Table
from clickstream_assets.engine import ADDED_LATER, DataFrame, Engine, Part, SparkEngine, delta_tables
from clickstream_assets.engine.spark_private import STORAGE_FAILED
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.files import NO_SPACE, make_private, room
from clickstream_assets.stores.delta_log import DAMAGED, set_checkpoints_aside
from clickstream_assets.stores.table_files import write_files

_Days = list[tuple[str, str, Any]]
"""Conditions on the day that a table's files are laid out by, all of which hold."""
_COMPARISONS: dict[str, Callable[[str, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "in": lambda day, days: day in days,
}
# The error of `conform` in one of Spark's tasks, as it comes back.
_UNFIT = re.compile(r"LakeError: (rows for table [^\n]+)")
# Another writer's commits between two tries; who comes second again and again gives up.
_REPLACING_TRIES = 15
_LOG_RETENTION = "delta.logRetentionDuration"
_USUAL_RETENTION = timedelta(days=7)
"""Of LAKE_RETENTION_DAYS, until the first upkeep."""


class LakeError(ClickstreamError):
    """The lake cannot do what was asked; the message names the table and the fix."""


class LakeConflictError(LakeError):
    """Another writer of the table was first; the message names it. Nothing was changed."""

    retryable = True


class LakeStorageError(LakeError):
    """The lake's storage does not take or give data; the message names LAKE_PATH and the fix."""

    retryable = True


class LakeDamagedError(LakeError):
    """A table's log cannot be read; the message names what is damaged and what mends it."""


@dataclass(frozen=True)
class Snapshot:
    """One version of a table, by its log."""

    table: Table
    version: int
    batch: int
    """Number of the last ingest batch that the table holds; 0 before the first."""
    marks: dict[str, int]
    """Marks that `Lake.mark` keeps with the table, of the names that were asked for and that there are."""
    files: pa.Table
    """One row per data file: num_records, partition.…, min.… and max.… of the indexed columns."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return pc.sum(self.files["num_records"]).as_py() or 0 if self.files.num_rows else 0

    def rows_by(self, column: str) -> dict[Any, int]:
        """Number of rows per value of a partition column."""
        if not self.files.num_rows:
            return {}
        grouped = self.files.group_by(f"partition.{column}").aggregate([("num_records", "sum")]).to_pylist()
        return {row[f"partition.{column}"]: row["num_records_sum"] for row in grouped}

    def ranges_of_batches(self, first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
        """Split ingest batches into ranges, each of single batches or of at most so many rows, in order.

        By the files' statistics: of a file that has several batches, each counts for as many rows.
        """
        if first > last:
            return
        rows = np.zeros(last - first + 1)
        if self.files.num_rows:
            files = self.files.select(["num_records", "min.batch", "max.batch"])
            # Another writer may keep no statistics.
            is_wanted = pc.fill_null(pc.greater_equal(files["max.batch"], first), True)
            for file in files.filter(is_wanted).to_pylist():
                low, high = file["min.batch"], file["max.batch"]
                low, high = first if low is None else low, last if high is None else high
                rows[max(low - first, 0) : max(high - first + 1, 0)] += file["num_records"] / (high - low + 1)
        start, held = first, 0.0
        for batch, its in enumerate(rows.tolist(), start=first):
            if batch > start and held + its > most:
                yield start, batch - 1
                start, held = batch, 0.0
            held += its
        yield start, last

    def up_to_batch(self, batch: int) -> Self:
        """Leave out the files with rows of later batches."""
        if not self.files.num_rows:
            return self
        return replace(self, files=self.files.filter(pc.less_equal(self.files["max.batch"], batch)))

    def maximum(self, column: str, by: tuple[str, ...]) -> dict[tuple[Any, ...], Any]:
        """Greatest value of an indexed column per combination of partition columns, from file statistics."""
        if not self.files.num_rows:
            return {}
        keys = [f"partition.{name}" for name in by]
        grouped = self.files.group_by(keys).aggregate([(f"max.{column}", "max")]).to_pylist()
        return {tuple(row[key] for key in keys): row[f"max.{column}_max"] for row in grouped}


@dataclass(frozen=True)
class Maintenance:
    """Outcome of `Lake.maintain` for a table."""

    rows: int
    files_before: int
    files_after: int
    removed_files: int
    """Files that no version within the retention has, deleted from storage."""


class Lake:
    """Delta tables under one root, by the names of their schemas."""

    def __init__(self, root: str, engine: Engine) -> None:
        self._root = root
        self.engine = engine

    def path(self, table: Table) -> str:
        """Return where a table is, as Spark spells it."""
        return f"{self._root}/{table.name}"

    def _delta_path(self, table: Table) -> str:
        # delta-rs knows S3 by s3://, Spark by s3a://.
        return self.path(table).replace("s3a://", "s3://", 1)

    @contextmanager
    def _explained(self, table: Table) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            raise LakeConflictError(f"table {table.name}: another writer was first: {error}") from error
        except (DeltaError, OSError) as error:
            # delta-rs draws causes as a tree, in colours.
            raise self._storage_error(table, re.sub(r"\x1b\[[0-9;]*m|\u21b3", "", str(error))) from error

    @contextmanager
    def _explained_spark(self, table: Table) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            text = str(error)
            if unfit := _UNFIT.search(text):
                raise LakeError(unfit[1]) from error
            causes = dict.fromkeys(STORAGE_FAILED.findall(text))
            if not causes:
                raise
            raise self._storage_error(table, ", ".join(causes)) from error

    def _storage_error(self, table: Table, cause: str) -> LakeError:
        if DAMAGED.search(cause):
            return LakeDamagedError(
                f"LAKE_PATH={self._root}: the log of table {table.name}, {self.path(table)}/_delta_log, is damaged: "
                f"{' '.join(cause.split())[:300]}. Restore that folder from a backup. If only a checkpoint is damaged "
                "and no commit is missing, rename it and delete _last_checkpoint; on a disk of this machine that is "
                "done by itself"
            )
        if NO_SPACE.search(cause):
            return LakeStorageError(
                f"LAKE_PATH={self._root}: no space left for table {table.name}: {room(self._root)}. Free some; what "
                "failed is tried again"
            )
        return LakeStorageError(
            f"LAKE_PATH={self._root}: table {table.name} cannot be opened or written: {' '.join(cause.split())}. See "
            "that this user may write there and that the disk has space, or set LAKE_PATH to another place"
        )

    def _open(self, table: Table) -> DeltaTable:
        with self._explained(table):
            return self._open_or_make(table)

    def _open_or_make(self, table: Table) -> DeltaTable:
        path = self._delta_path(table)
        try:
            delta = _opened(path)
        except TableNotFoundError:
            if "://" not in self._root:
                make_private(Path(self._root))
            return DeltaTable.create(
                path,
                table.arrow,
                mode="ignore",
                partition_by=list(table.partition_by),
                description=table.grain,
                configuration=_statistics(table) | {_LOG_RETENTION: _log_days(_USUAL_RETENTION)},
            )
        there = {field.name for field in delta.schema().fields}
        new = [field for field in table.arrow if field.name not in there]
        if new:
            # A table of an earlier version of this product: its rows have no value for the column until they are
            # computed anew, so Delta has to let it be null.
            delta.alter.add_columns([_added_field(field) for field in new])
        return delta

    def snapshot(self, table: Table, marks: Iterable[str] = (), version: int | None = None) -> Snapshot:
        """Read a version's metadata (default: the newest's), with marks by name.

        A table that is not there yet is made, empty.
        """
        delta = self._open(table)
        if version is not None and version != delta.version():
            with self._explained(table):
                delta = delta_tables.at(self._delta_path(table), version)
        found = {name: delta.transaction_version(name) for name in marks}
        return Snapshot(
            table=table,
            version=delta.version(),
            batch=_last_batch(delta, table.name),
            marks={name: number for name, number in found.items() if number is not None},
            files=pa.table(delta.get_add_actions(flatten=True)),
        )

    def version(self, table: Table) -> int:
        """Return the newest version of a table; -1 for one that is not there."""
        with self._explained(table):
            try:
                return delta_tables.newest(self._delta_path(table)).version()
            except TableNotFoundError:
                return -1

    def is_lost(self, *tables: Table) -> bool:
        """Return whether one of some tables is not there, or was made anew and nothing was ever written to it.

        Who keeps, in a table of its own, what others were made from, asks it: those can be lost alone.
        """
        return any(self.version(table) < 1 for table in tables)

    def read(
        self,
        table: Table,
        version: int | None = None,
        columns: Iterable[str] | None = None,
        batches: tuple[int, int] | None = None,
        days: Collection[date] | None = None,
    ) -> DataFrame:
        """Read a table lazily; `version` pins it (default: the newest).

        `batches` are the first and the last of those whose rows are wanted, and `days` the days, of a table that is
        laid out by days (default: all); files without are skipped.
        `columns` are those that are needed (default: all). The engines read no others anyway, but on DuckDB each
        step of a query costs time per column that it carries along.
        """
        if version is None:
            version = self._open(table).version()
        schema = table.arrow
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        return self.engine.read_delta(self.path(table), schema, version, Part(batches, table.day, days))

    def has(self, table: Table, version: int) -> bool:
        """Return whether a version can still be read: upkeep deletes files that no newer one has a use for."""
        try:
            files = delta_tables.at(self._delta_path(table), version).to_pyarrow_dataset()
        except DeltaError:
            # The log does not go back so far.
            return False
        there = files.filesystem.get_file_info(list(files.files)) if files.files else []
        return all(file.type is not FileType.NotFound for file in there)

    def exists(self, table: Table) -> bool:
        """Return whether a table has been made."""
        with self._explained(table):
            return DeltaTable.is_deltatable(self._delta_path(table))

    def maintain(self, table: Table, retention: timedelta) -> Maintenance:
        """Put a table's small files together, and delete the files that nobody reads any more.

        Rows, batches and statistics stay; who reads an older version goes on, for as long as `retention`. So long its
        commits are kept, too, of which there can be thousands a day, a file each. Appending goes on meanwhile. Of this
        and a replacement of the same rows, the one that comes second fails. By delta-rs on both engines.

        Raises:
            LakeConflictError: the rows were replaced or merged meanwhile; nothing was changed.
        """
        before = self.snapshot(table)
        with self._explained(table):
            delta = self._open(table)
            # Of a table that readers are to leave at once, the next night shortens the log.
            kept = _log_days(retention)
            if retention and delta.metadata().configuration.get(_LOG_RETENTION) != kept:
                # Whoever writes at this moment has to begin again, so only where the setting is another.
                delta.alter.set_table_properties({_LOG_RETENTION: kept})
                delta = self._open(table)
            delta.optimize.compact()
            removed = delta.vacuum(
                retention_hours=int(retention / timedelta(hours=1)),
                dry_run=False,
                enforce_retention_duration=False,
                # What runs that were killed have left, too.
                full=True,
            )
            if retention:
                # A checkpoint says what the commits before it say.
                delta.create_checkpoint()
                delta.cleanup_metadata()
        after = self.snapshot(table)
        return Maintenance(after.rows, before.files.num_rows, after.files.num_rows, len(removed))

    def blank(
        self, table: Table, columns: Iterable[str], where: str, marks: Mapping[str, int] | None = None
    ) -> int:
        """Set columns to null in the rows that an SQL condition names, in one commit; by delta-rs on both engines.

        Args:
            table: has the columns, which may be null.
            columns: which.
            where: the condition; files whose statistics rule it out are not read.
            marks: numbers that are kept with the table by the same commit, as `mark` keeps them.

        Returns:
            How many rows the condition names.

        Raises:
            LakeConflictError: the rows were put into other files meanwhile; nothing was changed.
        """
        with self._explained(table):
            done = self._open(table).update(
                updates=dict.fromkeys(columns, "NULL"),
                predicate=where,
                commit_properties=_commit_with(marks or {}),
            )
        return int(done["num_updated_rows"])

    def delete_replaced_files(self, table: Table) -> int:
        """Delete the files whose rows were put into others, of a table that nobody reads an older version of.

        Those that are being written meanwhile stay: only what the log says to be replaced is deleted.

        Returns:
            How many there were.
        """
        with self._explained(table):
            deleted = self._open(table).vacuum(
                retention_hours=0, dry_run=False, enforce_retention_duration=False, full=False
            )
        return len(deleted)

    def delete(self, table: Table, where: str) -> int:
        """Delete the rows that an SQL condition names, in one commit; by delta-rs on both engines.

        Files whose statistics rule the condition out are not read. The commit's log has the condition in it.

        Returns:
            How many rows there were.

        Raises:
            LakeConflictError: the rows were put into other files meanwhile; nothing was changed.
        """
        with self._explained(table):
            done = self._open(table).delete(where)
        return int(done["num_deleted_rows"])

    def append_batch(
        self, table: Table, df: DataFrame, batch: int, app: str | None = None, is_laid_out: bool = False
    ) -> None:
        """Append the rows of a batch, once, however often and by however many it is tried.

        The commit carries the batch's number as the app's transaction version, so it and the rows become
        visible together, and a commit of a number that is already there does nothing. The caller makes sure that
        a batch's rows are always the same.

        Args:
            table: where to.
            df: the rows.
            batch: number of the batch, from 1.
            app: whose batches these are, as each counts their own (default: the ingest's).
            is_laid_out: each of Spark's partitions holds rows of a single partition of the table.
        """
        app = app or table.name
        if isinstance(self.engine, SparkEngine):
            rows = df.select(*table.column_names)
            if not is_laid_out:
                rows = _laid_out(rows, table)
            self._append_spark(table, rows, batch, app)
        else:
            self._append_arrow(table, self.engine.to_arrow(df), batch, app)

    def mark(self, table: Table, marks: Mapping[str, int]) -> None:
        """Keep numbers with a table, in a commit without rows; by delta-rs on both engines.

        Raises:
            LakeConflictError: another has marked one of them meanwhile.
        """
        commit = _commit_with(marks)
        with self._explained(table):
            write_deltalake(
                self._open(table), table.arrow.empty_table(), mode="append", commit_properties=commit
            )

    def append_rows(self, table: Table, data: pa.Table, batch: int) -> None:
        """Append the rows of a batch that are at hand, and few, as `append_batch` does; by delta-rs on both engines."""
        self._append_arrow(table, data, batch, table.name)

    def rows_of_batch(self, table: Table, batch: int) -> pa.Table:
        """Return the rows of a batch, which are few; by delta-rs on both engines."""
        with self._explained(table):
            return self._open(table).to_pyarrow_table(filters=[("batch", "=", batch)])

    def rows(self, table: Table) -> pa.Table:
        """Return all rows of a table that has few; by delta-rs on both engines.

        Rows of an earlier version of the table have nulls in columns that came later.
        """
        delta = self._open(table)
        with self._explained(table):
            return delta.to_pyarrow_table(columns=list(table.column_names))

    def replace_rows(self, table: Table, data: pa.Table) -> None:
        """Replace all rows of a table by rows that are at hand, and few; by delta-rs on both engines."""
        delta = self._open(table)
        with self._explained(table):
            write_deltalake(delta, conform(data, table), mode="overwrite")

    @contextmanager
    def _once(self, table: Table, batch: int, app: str) -> Iterator[None]:
        try:
            yield
        except LakeConflictError:
            # Delta lets one of two commits of the same batch win; that it has is what was wanted.
            if _last_batch(self._open(table), app) < batch:
                raise

    def _append_arrow(self, table: Table, rows: pa.Table, batch: int, app: str) -> None:
        data = conform(rows, table)
        delta = self._open(table)
        if _last_batch(delta, app) < batch:
            with self._once(table, batch, app), self._explained(table):
                write_deltalake(delta, data, mode="append", commit_properties=_commit_of(batch, app))

    def _append_spark(self, table: Table, rows: DataFrame, batch: int, app: str) -> None:
        delta = self._open(table)
        if _last_batch(delta, app) < batch:
            with self._once(table, batch, app):
                files = self._written_by_spark(table, rows)
                with self._explained(table):
                    _add(delta, files, _commit_of(batch, app))

    def _written_by_spark(self, table: Table, rows: DataFrame) -> list[AddAction]:
        """Write rows to files that no commit names yet; a partition of the table is in a row in each of Spark's."""
        assert isinstance(self.engine, SparkEngine)
        with self._explained_spark(table):
            return write_files(
                self.engine,
                rows,
                self._delta_path(table),
                table.partition_by,
                [name for name in _indexed(table) if name not in table.partition_by],
                partial(conform, table=table),
            )

    def append(self, table: Table, df: DataFrame) -> int:
        """Append rows, whatever is there already.

        Returns:
            The version that has them: the next one, unless others have written meanwhile.
        """
        delta = self._open(table)
        if isinstance(self.engine, SparkEngine):
            files = self._written_by_spark(table, _laid_out(df.select(*table.column_names), table))
            with self._explained(table):
                _add(delta, files)
        else:
            with self._explained(table):
                write_deltalake(delta, conform(self.engine.to_arrow(df), table), mode="append")
        return self.version(table)

    def replace(self, table: Table, df: DataFrame, days: tuple[date, date] | None = None) -> None:
        """Replace a whole table, or its rows of some days (first and last), in one commit.

        `days` needs a table that is partitioned by a date; rows of other days are an error of the caller.
        """
        where = filters = None
        if days:
            (column,) = table.partition_by
            first, last = (day.isoformat() for day in days)
            where = f"{column} >= '{first}' AND {column} <= '{last}'"
            filters = [(column, ">=", first), (column, "<=", last)]
        if isinstance(self.engine, SparkEngine):
            rows = df.select(*table.column_names)
            if table.partition_by:
                rows = rows.sortWithinPartitions(*table.partition_by)
            self._replace_by_spark(table, rows, filters)
            return
        delta = self._open(table)
        with self._streamed(table, df) as rows, self._explained(table):
            write_deltalake(delta, rows, mode="overwrite", predicate=where)

    def batches(self, table: Table, df: DataFrame) -> Generator[pa.RecordBatch, None, None]:
        """Compute rows of a table a batch after the other, as `Engine.to_batches` does, with its columns and types."""
        for batch in self.engine.to_batches(df):
            yield from conform(pa.Table.from_batches([batch]), table).to_batches()

    @contextmanager
    def _streamed(self, table: Table, df: DataFrame) -> Iterator[pa.RecordBatchReader]:
        """Give delta-rs a table's rows as they are computed: a large day's need not be in memory at once."""
        failed: list[Exception] = []

        def batches() -> Generator[pa.RecordBatch, None, None]:
            try:
                yield from self.batches(table, df)
            except Exception as error:
                failed.append(error)
                raise

        rows = batches()
        try:
            yield pa.RecordBatchReader.from_batches(table.arrow, rows)
        except Exception:
            if failed:
                # Of what stopped the stream delta-rs knows the text alone.
                raise failed[0] from failed[0].__cause__
            raise
        finally:
            rows.close()

    def replace_days(self, table: Table, df: DataFrame, days: Collection[date], batch: int) -> None:
        """Replace the rows of some days by those that they have as of a batch, once, however often it is tried.

        As `append_batch`, the commit carries the batch's number. The table is partitioned by a date.
        """
        (column,) = table.partition_by
        names = [day.isoformat() for day in sorted(days)]
        delta = self._open(table)
        if _last_batch(delta, table.name) >= batch:
            return
        if isinstance(self.engine, SparkEngine):
            rows = _laid_out(df.select(*table.column_names), table)
            with self._once(table, batch, table.name):
                self._replace_by_spark(table, rows, [(column, "in", names)], {table.name: batch})
            return
        where = f"{column} IN ({', '.join(map(repr, names))})"
        data, commit = conform(self.engine.to_arrow(df), table), _commit_of(batch, table.name)
        with self._once(table, batch, table.name), self._explained(table):
            write_deltalake(delta, data, mode="overwrite", predicate=where, commit_properties=commit)

    def _replace_by_spark(
        self, table: Table, rows: DataFrame, days: _Days | None, marks: Mapping[str, int] | None = None
    ) -> None:
        """Replace the files of some days, or all, by new ones; who comes second with the same days fails."""
        delta = self._open(table)
        before = _files_of(delta, days)
        files = self._written_by_spark(table, rows)
        for column, comparison, value in days or ():
            written = {str(file.partition_values[column]) for file in files}
            if strays := sorted(day for day in written if not _COMPARISONS[comparison](day, value)):
                raise LakeError(
                    f"rows for table {table.name}: {column} {strays[0]} is not among the days that are replaced"
                )
        # To try again is left to the loop: delta-rs would not see that another has written the same days meanwhile.
        commit = _commit_with(marks or {}, retries=0)
        tries = 0
        with self._explained(table):
            while True:
                tries += 1
                try:
                    delta.create_write_transaction(
                        [*files],
                        "overwrite",
                        delta.schema(),
                        list(table.partition_by),
                        days,
                        commit_properties=commit,
                    )
                    return
                except CommitFailedError:
                    delta = self._open_or_make(table)
                    if tries == _REPLACING_TRIES or _files_of(delta, days) != before:
                        raise

    def merge(self, table: Table, data: pa.Table, batch: int | None = None) -> None:
        """Insert rows or, where the key is there, replace them, once, however often the batch is tried.

        As `append_batch`, the commit carries the batch's number, where the rows are of a batch. By delta-rs on both
        engines: what is merged is at hand, and few.
        """
        rows = conform(data, table)
        delta = self._open(table)
        if batch is not None and _last_batch(delta, table.name) >= batch:
            return
        same = dict.fromkeys((*table.partition_by, *table.key))
        conditions = [f"target.{name} = source.{name}" for name in same]
        for name in table.partition_by:
            # Without the values themselves every file of the table would be read.
            values = sorted({str(value) for value in rows[name].to_pylist()})
            conditions.append(f"target.{name} IN ({', '.join(repr(value) for value in values)})")
        if not rows.num_rows:
            conditions = ["false"]
        with self._explained(table):
            (
                delta.merge(
                    rows,
                    " AND ".join(conditions),
                    source_alias="source",
                    target_alias="target",
                    commit_properties=_commit_with({} if batch is None else {table.name: batch}),
                )
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            )

    def replace_batch(self, table: Table, data: pa.Table, batch: int) -> None:
        """Replace a whole table by the rows that it has as of a batch; the commit carries the batch's number."""
        delta, commit = self._open(table), _commit_of(batch, table.name)
        with self._explained(table):
            write_deltalake(delta, conform(data, table), mode="overwrite", commit_properties=commit)


def _opened(path: str) -> DeltaTable:
    try:
        return delta_tables.newest(path)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        if not DAMAGED.search(str(error)) or not set_checkpoints_aside(path):
            raise
    return delta_tables.newest(path)


def _laid_out(rows: DataFrame, table: Table) -> DataFrame:
    """Bring the rows of each partition of the table together, in a row.

    Each task would write a file of its own for every day among its rows: a batch of a month on four tasks is 120 files,
    and every later read pays for them.
    """
    if not table.partition_by:
        return rows
    return rows.repartition(*table.partition_by).sortWithinPartitions(*table.partition_by)


def _log_days(retention: timedelta) -> str:
    """Return for how long commits are kept, as Delta writes it."""
    return f"interval {retention // timedelta(days=1)} days"


def _indexed(table: Table) -> list[str]:
    """Return the columns of which commits say the least and the greatest value in a file."""
    return [name for name in table.column_names if name in ("partition", "offset", "batch")]


def _statistics(table: Table) -> dict[str, str]:
    """Return the properties by which commits say of files what is asked of them, and nothing else.

    The rest costs time and log space; and a log with the least and the greatest id would name persons for as long as it
    is kept.
    """
    indexed = _indexed(table)
    if indexed:
        return {"delta.dataSkippingStatsColumns": ",".join(indexed)}
    return {"delta.dataSkippingNumIndexedCols": "0"}


def _add(delta: DeltaTable, files: list[AddAction], commit: CommitProperties | None = None) -> None:
    """Commit files in addition to those that there are."""
    delta.create_write_transaction(
        [*files], "append", delta.schema(), delta.metadata().partition_columns, commit_properties=commit
    )


def _last_batch(delta: DeltaTable, app: str) -> int:
    return delta.transaction_version(app) or 0


def _commit_of(batch: int, app: str) -> CommitProperties:
    return _commit_with({app: batch})


def _commit_with(marks: Mapping[str, int], retries: int | None = None) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(name, number) for name, number in marks.items()],
        max_commit_retries=retries,
    )


def _files_of(delta: DeltaTable, days: _Days | None) -> set[str]:
    return set(delta.file_uris(file_pruning_predicate=days))


def _added_field(field: pa.Field) -> Field:
    delta_type = Schema.from_arrow(pa.schema([field])).fields[0].type
    return Field(field.name, delta_type, nullable=True, metadata={ADDED_LATER: "true"})


def conform(data: pa.Table, table: Table) -> pa.Table:
    """Give Arrow data a table's columns, in its order and types.

    Raises:
        LakeError: a column is missing, a value does not fit its type, or a required one is null.
    """
    columns = []
    for field in table.arrow:
        try:
            column = data[field.name].cast(field.type)
        except KeyError:
            raise LakeError(f"rows for table {table.name} have no column {field.name}") from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise LakeError(
                f"rows for table {table.name}: column {field.name} is not {field.type}: {error}"
            ) from error
        if column.null_count and not field.nullable:
            raise LakeError(
                f"rows for table {table.name}: column {field.name} is null in {column.null_count:,} rows, and must not"
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=table.arrow)
