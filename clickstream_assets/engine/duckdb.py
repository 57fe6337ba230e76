"""SQLFrame on DuckDB, in this process: no JVM."""

from __future__ import annotations

import atexit
import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, cached_property, partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.engine.base import BatchFunction, DataFrame, Engine, Part
from clickstream_assets.engine.sqlframe_private import (
    attach,
    attached,
    copy_queries_quickly,
    detach,
    duckdb_query,
    is_sqlframe,
    look_up_names,
    named_table,
    rewrite_statements,
    share_steps,
    use_compiled_classes,
)
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.files import room
from clickstream_assets.settings import EngineName, Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

_A = TypeVar("_A")

ADDED_LATER = "clickstream.added_later"
"""Metadata of a Delta column that the table's older files do not have."""
_RELATION_NAME = re.compile(r"\b(?:relation|view|delta)_\d+\b")
_views: dict[str, str] = {}
"""The queries of `as_view`, by their names, each after those that it reads."""
_views_on: dict[str, list[str]] = {}
_shapes: dict[str, str] = {}
"""The columns and types of what has a name, as DuckDB writes them in CREATE TABLE."""
# What is asked of a query, as by a DataFrame's schema.
_ASKED = re.compile(r"(?:DESCRIBE|EXPLAIN|CREATE OR REPLACE TEMPORARY VIEW \S+ AS) ")
_relation_numbers = itertools.count(1)
_BATCH_ROWS = 16_384
_BLOCK_ROWS = 16 * _BATCH_ROWS
_STREAMED_ROWS = 122_880
"""As many as DuckDB's threads work on at once."""
# Compressing takes what a pipe does with the rest. And what is read is then in Arrow's own memory, which goes back to
# the system when it is released. Python's, of so many large messages, does not: 200 MB after 5 million records.
_MESSAGES = pa.ipc.IpcWriteOptions(compression="lz4")
# Starting worker processes takes as long as one process takes for this much.
_PARALLEL_BATCHES = 4


class EngineStorageError(ClickstreamError):
    """The engine has neither memory nor disk for what it computes; the message names the settings and the fix."""

    retryable = True


def as_view(df: DataFrame) -> DataFrame:
    """Give a name to an intermediate result; it stays lazy, and its rows are the same.

    To be put between the steps of a long function: SQLFrame goes through the whole query at each operation, and a
    view starts afresh. It is no view of DuckDB's, which would plan all that it reads again for each view upon it: its
    query is put in front of those that are computed (`_with_views`). Spark needs nothing.
    """
    if not is_sqlframe(df):
        return df
    name = f"view_{next(_relation_numbers)}"
    query = duckdb_query(df)
    sources = _sources(query)
    bound = _bind(query, sources)
    _views[name] = query
    for source in sources:
        _views_on.setdefault(source, []).append(name)
    return _named(name, dict(zip(bound.columns, map(str, bound.types), strict=True)))


def _sources(query: str) -> list[str]:
    return sorted(set(_RELATION_NAME.findall(query)))


def _bind(query: str, sources: Iterable[str]) -> Any:
    """Return DuckDB's relation of a query on empty tables, which has its columns and types.

    On the views themselves DuckDB would plan all that they read, and after 30 steps that takes 50 ms.
    """
    shapes = _shapes_connection()
    for name in sources:
        if name in _shapes:
            shapes.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({_shapes[name]})")
    return shapes.sql(query)


def _with_views(query: str) -> str:
    """Put the views that a query reads in front of it, each with those that it reads itself."""
    found: dict[str, str] = {}
    waiting = [query]
    while waiting:
        for name in _sources(waiting.pop()):
            if name in _views and name not in found:
                found[name] = _views[name]
                waiting.append(found[name])
    if not found:
        return query
    # By their numbers, so that each comes after what it reads. DuckDB sees which of them to compute once.
    ordered = sorted(found, key=lambda name: int(name.rpartition("_")[-1]))
    views = ", ".join(f"{name} AS ({found[name]})" for name in ordered)
    asked = _ASKED.match(query)
    start = asked.end() if asked else 0
    return f"{query[:start]}WITH {views} SELECT * FROM ({query[start:]})"  # noqa: S608 - of queries and names that we made; nobody's text


_BOUND_TYPES = {
    "varchar": "string",
    "integer": "int",
    "bigint": "bigint",
    "hugeint": "decimal(38,0)",
    "float": "float",
    "double": "double",
    "boolean": "boolean",
    "date": "date",
    "blob": "binary",
    "timestamp": "timestamp",
    "timestamp with time zone": "timestamp",
}


@cache
def _spark_type(written: str) -> str:
    """Write the type of a column, which is written as DuckDB does, as Spark does."""
    import duckdb

    return _bound_type(duckdb.sqltype(written))


def _bound_type(bound: Any) -> str:
    """Write the type of a DuckDB column as Spark does."""
    if bound.id == "decimal":
        (_, precision), (_, scale) = bound.children
        return f"decimal({precision},{scale})"
    if bound.id == "list":
        ((_, value),) = bound.children
        return f"array<{_bound_type(value)}>"
    if bound.id == "struct":
        return f"struct<{', '.join(f'{name}: {_bound_type(field)}' for name, field in bound.children)}>"
    return _BOUND_TYPES[bound.id]


@cache
def _duckdb_session() -> tuple[Any, Any]:
    """The process's DuckDB connection and SQLFrame's session on it: SQLFrame allows one a process."""
    import duckdb
    from sqlframe.duckdb import DuckDBSession

    use_compiled_classes()
    copy_queries_quickly()
    share_steps()
    look_up_names()
    # Keeping insertion order costs memory on large results, and no function here relies on it.
    # Nor does caching files' data: each is read once a query, and the cache would fill the limit and stay.
    connection = duckdb.connect(
        config={"preserve_insertion_order": False, "enable_external_file_cache": False}
    )
    connection.execute("SET TimeZone = 'UTC'")
    # SQLFrame holds it to the end, and DuckDB prints what is still there by then as 40 lines of leaks.
    atexit.register(connection.close)
    session = DuckDBSession(conn=connection)
    rewrite_statements(session, _with_views)
    return connection, session


@cache
def _shapes_connection() -> Any:
    """A database with an empty table for each relation and view that a view reads."""
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    atexit.register(connection.close)
    return connection


def _forget(name: str) -> None:
    """Forget a name and the views that read it; one that reads several goes with the first of them."""
    for view in _views_on.pop(name, ()):
        _forget(view)
    _views.pop(name, None)
    if _shapes.pop(name, None):
        _shapes_connection().execute(f"DROP TABLE IF EXISTS {name}")


@cache
def _duckdb_type(arrow: pa.DataType) -> str:
    """Write the type that DuckDB gives a column of Arrow's."""
    (bound,) = _shapes_connection().from_arrow(pa.table({"a": pa.array([], arrow)})).types
    return str(bound)


def _of_schema(name: str, schema: pa.Schema) -> DataFrame:
    """Return the DataFrame of what has this name and the columns of a schema."""
    return _named(name, {field.name: _duckdb_type(field.type) for field in schema})


def _named(name: str, types: dict[str, str]) -> DataFrame:
    """Return the DataFrame of what has this name, with the types of its columns as DuckDB writes them."""
    _, session = _duckdb_session()
    _shapes[name] = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
    return named_table(session, name, {column: _spark_type(kind) for column, kind in types.items()})


def _to_message(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Buffer:
    # Pickled as it is, a batch that is a slice of a table would take the whole table along.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_MESSAGES) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return sink.getvalue()


def _from_message(message: pa.Buffer) -> pa.Table:
    return pa.ipc.open_stream(message).read_all()


def _literal(value: list[str] | dict[str, str]) -> str:
    """Write a list or a struct of texts as DuckDB does."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{name}': {text}" for name, text in value.items()) + "}"
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in value) + "]"


def _divided(number: int, by: int) -> int:
    """Divide, and round up."""
    return -(-number // by)


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Put batches together to tables of _BLOCK_ROWS rows, and a last one of the rest; none where there are no rows."""
    held: list[pa.RecordBatch] = []
    missing = _BLOCK_ROWS
    for batch in batches:
        rest = batch
        while rest.num_rows >= missing:
            yield pa.Table.from_batches([*held, rest.slice(0, missing)])
            held, rest, missing = [], rest.slice(missing), _BLOCK_ROWS
        if rest.num_rows:
            held.append(rest)
            missing -= rest.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _apply(function: BatchFunction, schema: pa.Schema, message: pa.Buffer) -> pa.Buffer:
    return _to_message(schema, function(iter(pa.ipc.open_stream(message))))


def _call(function: Callable[[_A], pa.Table], argument: _A) -> pa.Buffer:
    table = function(argument)
    return _to_message(table.schema, table.to_batches())


def _end_with_parent() -> None:
    """End this worker when its parent does: a killed one cannot end its workers."""

    def wait() -> None:
        parent = parent_process()
        if parent:
            parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


@cache
def _worker_pool(size: int) -> ProcessPoolExecutor:
    """The process's workers, shared like its DuckDB: a run makes an engine per asset, and starting takes seconds."""
    # Spawned, because this process has threads (DuckDB's, Kafka's) that a fork would tear apart.
    return ProcessPoolExecutor(size, get_context("spawn"), initializer=_end_with_parent)


def _files(table: DeltaTable, part: Part) -> list[str]:
    """Return the addresses of a Delta table's files, of those alone that may have rows of a part."""
    files: list[str] = table.file_uris()
    if not files or (part.batches is None and part.days is None):
        return files
    actions = pa.table(table.get_add_actions(flatten=True))
    if part.batches is not None and "min.batch" in actions.column_names:
        first, last = part.batches
        is_within = pc.and_(
            pc.less_equal(actions["min.batch"], last), pc.greater_equal(actions["max.batch"], first)
        )
        # Another writer may keep no statistics.
        actions = actions.filter(pc.fill_null(is_within, True))
    if part.days is not None:
        days = pa.array(sorted(part.days), pa.date32())
        actions = actions.filter(pc.is_in(actions[f"partition.{part.day}"].cast(pa.date32()), days))
    # Encoded otherwise in the log, but for the last part.
    names = {path.rsplit("/", 1)[-1] for path in actions["path"].to_pylist()}
    return [file for file in files if file.rsplit("/", 1)[-1] in names]


class DuckDBEngine(Engine):
    """SQLFrame on DuckDB, in this process; no JVM."""

    name = EngineName.DUCKDB

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _spill(self) -> Path:
        return self._settings.clickstream_home.absolute() / "spill"

    @cached_property
    def _connection(self) -> Any:
        connection, _ = _duckdb_session()
        connection.execute(f"SET memory_limit = '{self._settings.duckdb_memory_limit}'")
        spill = str(self._spill)
        # Once it has spilled, DuckDB refuses to be given a folder, be it the same: and each asset has an engine.
        if connection.execute("SELECT current_setting('temp_directory')").fetchall() != [(spill,)]:
            connection.execute(f"SET temp_directory = '{spill.replace(chr(39), chr(39) * 2)}'")
        if self._settings.duckdb_threads:
            connection.execute(f"SET threads = {self._settings.duckdb_threads}")
        return connection

    def _register(self, relation: Any, schema: pa.Schema) -> DataFrame:
        name = f"relation_{next(_relation_numbers)}"
        self._connection.register(name, relation)
        df = _of_schema(name, schema)
        attach(df, name, relation)
        return df

    def from_arrow(self, data: pa.Table) -> DataFrame:
        """Make a DataFrame that scans the Arrow table in place; `release` lets go of it."""
        return self._register(data, data.schema)

    def to_arrow(self, df: DataFrame) -> pa.Table:
        """Compute a DataFrame into memory.

        Raises:
            EngineStorageError: it takes more than the memory and the disk that DuckDB may use.
        """
        with self._explained():
            return self._connection.sql(_with_views(duckdb_query(df))).to_arrow_table()

    def to_batches(self, df: DataFrame) -> Generator[pa.RecordBatch, None, None]:
        """Compute a DataFrame a batch after the other; until the last one, the engine does nothing else.

        Raises:
            EngineStorageError: as `to_arrow`.
        """
        with self._explained():
            yield from self._connection.sql(_with_views(duckdb_query(df))).to_arrow_reader(_STREAMED_ROWS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException, OSError) as error:
            # What goes wrong within a stream is an OSError of Arrow's, which begins with the name of DuckDB's. Another
            # one is no question of room, such as that a file is gone.
            if isinstance(error, OSError) and not str(error).startswith(("Out of Memory Error", "IO Error")):
                raise
            settings = self._settings
            raise EngineStorageError(
                f"DUCKDB_MEMORY_LIMIT={settings.duckdb_memory_limit}: DuckDB could not go on: "
                f"{' '.join(str(error).split())}. It spills to {self._spill}: {room(self._spill)}. Free some, set "
                "CLICKSTREAM_HOME to another disk, or raise the limit"
            ) from error

    def read_delta(self, path: str, schema: pa.Schema, version: int, part: Part) -> DataFrame:
        """Let DuckDB read the files that delta-rs finds in the table's log; it skips files and columns."""
        from clickstream_assets.engine import delta_tables

        table = delta_tables.at(path, version)
        return part.of(self._read_files(table, path, schema, _files(table, part)))

    def _read_files(self, table: DeltaTable, path: str, schema: pa.Schema, files: list[str]) -> DataFrame:
        if "://" in path or table.protocol().reader_features:
            # DuckDB itself would need an extension for object stores and for the newer features of Delta. Where
            # it stops reading an Arrow dataset before its end, as at a join with nothing, the process can hang
            # when it ends: so not for local files.
            return self._register(table.to_pyarrow_dataset(), schema)
        if not files:
            return self.from_arrow(schema.empty_table())
        partition_by = table.metadata().partition_columns
        hive = ""
        if partition_by:
            types = {name: _duckdb_type(schema.field(name).type) for name in partition_by}
            hive = f", hive_partitioning = true, hive_types = {_literal(types)}"
        columns = ", ".join(
            # Spark writes times in a form (INT96) that does not say that they are UTC.
            f'"{field.name}"::TIMESTAMPTZ AS "{field.name}"'
            if pa.types.is_timestamp(field.type)
            else f'"{field.name}"'
            for field in schema
        )
        source = f"read_parquet({_literal(files)}{hive})"
        if any(ADDED_LATER in field.metadata for field in table.schema().fields):
            # DuckDB takes the columns of the first file for those of all, unless it looks into each one.
            empty, _ = attached(self.from_arrow(schema.empty_table()))
            source = source[:-1] + ", union_by_name = true)"
            source = f"(FROM {source} UNION ALL BY NAME FROM {empty})"
        name = f"delta_{next(_relation_numbers)}"
        self._connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM {source}")  # noqa: S608 - of queries and names that we made; nobody's text
        return _of_schema(name, schema)

    def map_arrow(self, df: DataFrame, function: BatchFunction, schema: pa.Schema) -> DataFrame:
        """Run the function here, or where there is much to do in a process per core; the result is in memory."""
        with closing(self.to_batches(df)) as batches:
            return self.from_arrow(self._map(batches, function, schema))

    def start_map_arrow(
        self, df: DataFrame, function: BatchFunction, schema: pa.Schema
    ) -> Callable[[], DataFrame]:
        """Compute `df`, and leave the rest to a thread; DuckDB's connection stays with the caller's."""
        background = ThreadPoolExecutor(1, "map_arrow")
        mapped = background.submit(self._map, self.to_arrow(df).to_batches(), function, schema)
        background.shutdown(wait=False)
        return lambda: self.from_arrow(mapped.result())

    @property
    def processes(self) -> int:
        """How many worker processes share what `map_arrow` and `call_in_processes` have to do."""
        return self._settings.duckdb_threads or os.cpu_count() or 1

    def call_in_processes(self, function: Callable[[_A], pa.Table], arguments: Iterable[_A]) -> pa.Table:
        """Call a function of an importable module in worker processes, once per argument; the tables in a row."""
        messages = _worker_pool(self.processes).map(partial(_call, function), arguments)
        return pa.concat_tables(map(_from_message, messages))

    def end_processes(self) -> None:
        """End the worker processes, which hold 300 MB each; the next work for them starts others."""
        if _worker_pool.cache_info().currsize:
            _worker_pool(self.processes).shutdown()
            _worker_pool.cache_clear()

    def _map(self, batches: Iterable[pa.RecordBatch], function: BatchFunction, schema: pa.Schema) -> pa.Table:
        blocks = _blocks(batches)
        first = next(blocks, None)
        if first is None or first.num_rows <= (_PARALLEL_BATCHES - 1) * _BATCH_ROWS:
            rows = [] if first is None else first.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS)
            return pa.Table.from_batches(function(iter(rows)), schema)
        parts = (part for block in itertools.chain([first], blocks) for part in self._parts(block))
        return pa.concat_tables(self._map_in_processes(parts, function, schema))

    def _parts(self, block: pa.Table) -> Iterator[pa.Table]:
        """Split a block into as many parts for each worker, of one size: else all wait for those that have more."""
        number = _divided(block.num_rows, _BATCH_ROWS)
        workers = min(self.processes, number)
        rows = _divided(block.num_rows, workers * _divided(number, workers))
        return (block.slice(start, rows) for start in range(0, block.num_rows, rows))

    def _map_in_processes(
        self, parts: Iterable[pa.Table], function: BatchFunction, schema: pa.Schema
    ) -> Iterator[pa.Table]:
        size = self.processes
        workers = _worker_pool(size)
        waiting: deque[Future[pa.Buffer]] = deque()
        try:
            for part in parts:
                batches = part.combine_chunks().to_batches()
                waiting.append(workers.submit(_apply, function, schema, _to_message(part.schema, batches)))
                # Another for each worker while it is busy; as messages, all would be in memory a second time.
                if len(waiting) > 2 * size:
                    yield _from_message(waiting.popleft().result())
            while waiting:
                yield _from_message(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()

    def persist(self, df: DataFrame) -> DataFrame:
        """Compute into an Arrow table; one that is at hand is taken as it is."""
        _, relation = attached(df)
        return df if isinstance(relation, pa.Table) else self.from_arrow(self.to_arrow(df))

    def release(self, df: DataFrame) -> None:
        """Let go of the Arrow table, and of the views that read it."""
        name = detach(df)
        _forget(name)
        self._connection.unregister(name)
