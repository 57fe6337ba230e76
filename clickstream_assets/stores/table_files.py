"""Files of a Delta table, written by Spark's tasks for delta-rs to commit.

A task writes as delta-rs itself does, with the same access to the storage, and under names that nobody else takes. No
reader knows a file before a commit names it. So a task that fails, is repeated, or outlives its run leaves at most a
file that nobody reads, until the table's upkeep deletes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow import fs

from clickstream_assets.engine import DataFrame, SparkEngine

Fit = Callable[[pa.Table], pa.Table]
"""Gives rows the table's columns, or raises; a function of an importable module, as Spark's workers call it."""

# A row group: what a task holds in memory, and a reader at a time.
_GROUP_BYTES = 64_000_000
_WRITTEN = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("partition_values", pa.string()),
        pa.field("stats", pa.string()),
    ]
)


def write_files(
    engine: SparkEngine,
    df: DataFrame,
    path: str,
    partition_by: Sequence[str],
    indexed: Sequence[str],
    fit: Fit,
) -> list[AddAction]:
    """Write the rows of a DataFrame to new files of a table, which a commit has yet to name.

    Args:
        engine: the DataFrame's.
        df: the rows; a task writes a file for each partition of the table that it comes upon, one after another, so
            rows of a partition are to be in a row.
        path: the table's, as delta-rs spells it, on storage that all of Spark's machines reach.
        partition_by: columns that the files are laid out by, without nulls: dates, whole numbers, or words that may
            be in a path.
        indexed: columns of whole numbers whose least and greatest value the commit is to say.
        fit: see there.

    Returns:
        What the commit is to say, one of each file.
    """
    write = partial(_write_part, path=path, partition_by=partition_by, indexed=indexed, fit=fit)
    now = int(time.time() * 1000)
    return [
        AddAction(
            path=file["path"],
            size=file["size"],
            partition_values=json.loads(file["partition_values"]),
            modification_time=now,
            data_change=True,
            stats=file["stats"],
        )
        for file in engine.to_arrow(engine.map_arrow(df, write, _WRITTEN)).to_pylist()
    ]


def _write_part(
    batches: Iterator[pa.RecordBatch],
    path: str,
    partition_by: Sequence[str],
    indexed: Sequence[str],
    fit: Fit,
) -> Iterator[pa.RecordBatch]:
    storage = fs.PyFileSystem(DeltaStorageHandler(path))
    file: _File | None = None
    for batch in batches:
        rows = fit(pa.Table.from_batches([batch]))
        for start, length in _runs(rows, partition_by):
            values = {name: str(rows[name][start].as_py()) for name in partition_by}
            if file is None or file.values != values:
                if file:
                    yield file.finish()
                file = _File(storage, values, indexed)
            file.add(rows.slice(start, length).drop_columns(list(partition_by)))
    if file:
        yield file.finish()


def _runs(rows: pa.Table, columns: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where rows of equal values in these columns begin, and how many they are."""
    is_other = np.zeros(max(0, rows.num_rows - 1), dtype=bool)
    for name in columns:
        column = rows[name].combine_chunks()
        is_other |= pc.not_equal(column.slice(1), column.slice(0, len(is_other))).to_numpy(
            zero_copy_only=False
        )
    starts = [0, *(np.flatnonzero(is_other) + 1).tolist()] if rows.num_rows else []
    for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=False):
        yield start, end - start


class _File:
    """A file that is being written: rows of one partition of the table."""

    def __init__(self, storage: fs.FileSystem, values: dict[str, str], indexed: Sequence[str]) -> None:
        self.values = values
        folder = "".join(f"{name}={value}/" for name, value in values.items())
        self._path = f"{folder}part-{uuid4()}.snappy.parquet"
        self._storage = storage
        self._indexed = indexed
        self._sink: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._written: list[pq.FileMetaData] = []
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows in; they are in the file after `finish`."""
        self._waiting.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= _GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        rows = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._sink = self._storage.open_output_stream(self._path)
            self._writer = pq.ParquetWriter(self._sink, rows.schema, metadata_collector=self._written)
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._waiting, self._bytes = [], 0

    def finish(self) -> pa.RecordBatch:
        """Close it, and return what the commit is to say of it."""
        if self._waiting:
            self._write()
        assert self._writer
        self._writer.close()
        size = self._sink.tell()
        self._sink.close()
        (metadata,) = self._written
        said = {
            "path": self._path,
            "size": size,
            "partition_values": json.dumps(self.values),
            "stats": json.dumps(_statistics(metadata, self._indexed)),
        }
        return pa.RecordBatch.from_pylist([said], _WRITTEN)


def _statistics(metadata: pq.FileMetaData, indexed: Sequence[str]) -> dict[str, Any]:
    """Return what Delta's protocol calls a file's statistics, of some columns without nulls."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    least, greatest = {}, {}
    for number in range(metadata.num_columns):
        if (name := metadata.schema.column(number).path) in indexed:
            of_groups = [group.column(number).statistics for group in groups]
            least[name] = min(its.min for its in of_groups)
            greatest[name] = max(its.max for its in of_groups)
    return {
        "numRecords": metadata.num_rows,
        "minValues": least,
        "maxValues": greatest,
        "nullCount": dict.fromkeys(least, 0),
    }
