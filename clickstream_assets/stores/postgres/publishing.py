"""Publish tables: several in one transaction, of which a reader sees either all or nothing.

A publication says which rows a table, or a part of it, holds from now on. Rows that stay the same are not written, so
repeating a publication changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Self, TypeAlias

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from pyarrow import csv

from clickstream_assets.catalogue import PROFILING_REFUSALS, Lists, Table
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.erasures import without_erased
from clickstream_assets.stores.postgres.refusals import (
    first_day_agreed_to,
    keep_refusals,
    profiles,
    without_refusers,
)
from clickstream_assets.stores.postgres.statements import each

Rows: TypeAlias = pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch]

# Bounds the memory of one COPY message: 50,000 sessions are about 10 MB of CSV.
_ROWS_PER_MESSAGE = 50_000
_LOCK_TIMEOUT = "10min"
_STAGED = sql.Identifier("pg_temp", "staged_rows")
_KEYS = sql.Identifier("pg_temp", "staged_keys")


class PublicationError(ClickstreamError):
    """The rows cannot be published; the message names the table, the column or key. Nothing was changed."""


@dataclass(frozen=True)
class Scope:
    """The part of a table that a publication replaces: rows whose `column` is from `first` to `last`.

    Attributes:
        column: A column of the table.
        first: The least value.
        last: The greatest value, included; none means `first` alone.
    """

    column: str
    first: Any
    last: Any = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that say whether a row is in the part."""
        return (self.column,)

    @property
    def condition(self) -> sql.Composed:
        """SQL condition that is true in the part, and false or null outside of it."""
        last = self.first if self.last is None else self.last
        return sql.SQL("{} BETWEEN {} AND {}").format(sql.Identifier(self.column), self.first, last)

    @property
    def words(self) -> str:
        """Name of the part in error messages."""
        return f"{self.column} from {self.first} to {self.first if self.last is None else self.last}"


@dataclass(frozen=True)
class Among:
    """The part of a table that a publication replaces: rows whose `column` has one of some values.

    Attributes:
        column: A column of the table.
        values: The values; at least one.
    """

    column: str
    values: tuple[Any, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that say whether a row is in the part."""
        return (self.column,)

    @property
    def condition(self) -> sql.Composed:
        """SQL condition that is true in the part, and false or null outside of it."""
        return sql.SQL("{} = ANY({})").format(sql.Identifier(self.column), list(self.values))

    @property
    def words(self) -> str:
        """Name of the part in error messages."""
        return f"{self.column} {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Keyed:
    """The part of a table that a publication replaces: rows of some keys.

    Attributes:
        column: A column of the table, to count by.
        keys: The keys' columns, a row for each key.
    """

    column: str
    keys: pa.Table

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that say whether a row is in the part."""
        return tuple(self.keys.column_names)

    @property
    def condition(self) -> sql.Composed:
        """SQL condition that is true in the part, and false outside of it; where the keys are staged."""
        names = each("{}", self.keys.column_names)
        return sql.SQL("({0}) IN (SELECT {0} FROM {1})").format(names, _KEYS)

    @property
    def words(self) -> str:
        """Name of the part in error messages."""
        return f"the {self.keys.num_rows} keys"


Part: TypeAlias = Scope | Among | Keyed


@dataclass(frozen=True)
class Published:
    """Counts of a publication: its rows, and the rows of the table that it changed."""

    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: Self) -> Self:
        """Return the counts of both."""
        return replace(self, **{name: count + getattr(other, name) for name, count in asdict(self).items()})


class Publication:
    """One transaction of publications; made by `publication`."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def publish(self, table: Table, rows: Rows, scope: Part | None = None) -> Published:
        """Make the table, or its part in `scope`, hold exactly these rows, and count them; see `publish_by`."""
        return sum(self.publish_by(table, rows, scope).values(), Published())

    def publish_by(self, table: Table, rows: Rows, scope: Part | None = None) -> dict[Any, Published]:
        """Make the table, or its part in `scope`, hold exactly these rows, and count them by the scope's column.

        Publications of the same table wait for each other, from here to the end of their transactions.

        Args:
            table: The table.
            rows: All columns of the table, in any order; read once, batch by batch.
            scope: The part of the table to replace; none is the whole table.

        Raises:
            PublicationError: a column is missing, unknown or of another type; a text has a NUL byte; a key
                is there twice; a row is outside the scope, or its key belongs to a row outside of it; a value
                breaks a constraint.
        """
        try:
            # A savepoint, so that the transaction can go on when the caller does without this table.
            with self._connection.transaction():
                return self._publish(table, rows, scope)
        except psycopg.IntegrityError as error:
            column = f" in column {error.diag.column_name}" if error.diag.column_name else ""
            raise PublicationError(
                f"{table.served_name} does not take a row{column}: {error.diag.message_primary} "
                f"({error.diag.message_detail})"
            ) from error

    def read(
        self, table: Table, columns: Iterable[str] | None = None, scope: Scope | Among | None = None
    ) -> pa.Table:
        """Return what a small table, or its part in `scope`, holds, with what this transaction has published of it.

        `columns` are those that are needed (default: all).
        """
        names = list(columns or table.column_names)
        rows = self._execute(
            "SELECT {chosen} FROM {target} WHERE {in_scope}",
            table,
            chosen=each("{}", names),
            in_scope=scope.condition if scope else sql.SQL("true"),
        ).fetchall()
        dicts = [dict(zip(names, row, strict=True)) for row in rows]
        return pa.Table.from_pylist(dicts, schema=pa.schema([table.arrow.field(n) for n in names]))

    def publish_refusals(self, rows: Rows) -> tuple[Published, date | None]:
        """Publish PROFILING_REFUSALS, and delete what says of these persons what they are like.

        Returns:
            Counts, and the first day from which on somebody agrees who did not: of the days since then, their rows are
            to be published again.
        """
        keep_refusals(self._connection)
        published = self.publish(PROFILING_REFUSALS, rows)
        for table in profiles():
            without_refusers(self._connection, table, sql.Identifier(table.served_name))
        return published, first_day_agreed_to(self._connection)

    def hold(self, table: Table) -> None:
        """Have other publications of a table wait, from here to the end of this transaction."""
        self._execute("LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE", table)

    def stamp(self, asset: str) -> str | None:
        """Return the stamp of an asset's last publication that this database has; None before the first."""
        return read_stamps(self._connection).get(asset)

    def renew_stamp(self, asset: str) -> str:
        """Give an asset's publication a stamp that no earlier one had, and return it."""
        row = self._connection.execute(
            "INSERT INTO publications (asset, stamp) VALUES (%s, gen_random_uuid()::text) "
            "ON CONFLICT (asset) DO UPDATE SET stamp = excluded.stamp, published_at = now() RETURNING stamp",
            [asset],
        ).fetchone()
        assert row is not None
        return str(row[0])

    def _publish(self, table: Table, rows: Rows, scope: Part | None) -> dict[Any, Published]:
        self._stage(table, rows)
        without_erased(self._connection, table, _STAGED)
        if table.served and table.served.profiles:
            without_refusers(self._connection, table, _STAGED)
        if isinstance(scope, Keyed):
            self._stage_keys(table, scope.keys)
        self.hold(table)
        self._refuse_duplicate_keys(table)
        if scope:
            self._refuse_rows_outside(table, scope)
        in_scope = scope.condition if scope else sql.SQL("true")
        if table.served and table.served.lists:
            self._leave_lists(table, table.served.lists, in_scope)
        value = sql.Identifier(scope.column) if scope else sql.SQL("NULL")
        counts: defaultdict[Any, Published] = defaultdict(Published)
        for name, statement in (
            ("rows", "SELECT {value} AS value FROM {staged}"),
            (
                "deleted",
                "DELETE FROM {target} AS target WHERE {in_scope} "
                "AND NOT EXISTS (SELECT FROM {staged} AS staged WHERE {same_key}) RETURNING {value} AS value",
            ),
            (
                "updated",
                "UPDATE {target} AS target SET {assignments} FROM {staged} AS staged "
                "WHERE {same_key} AND ({old}) IS DISTINCT FROM ({new}) RETURNING {target_value} AS value",
            ),
            (
                "inserted",
                "INSERT INTO {target} ({columns}) SELECT {columns} FROM {staged} AS staged "
                "WHERE NOT EXISTS (SELECT FROM {target} AS target WHERE {same_key}) RETURNING {value} AS value",
            ),
        ):
            counted = self._execute(
                f"WITH found AS ({statement}) SELECT value, count(*) FROM found GROUP BY value",  # noqa: S608 - of texts that are written here; names and values are composed
                table,
                in_scope=in_scope,
                value=value,
                target_value=sql.SQL("target.{}").format(value) if scope else value,
            )
            for its_value, number in counted.fetchall():
                counts[its_value] += Published(**{name: number})
        self._execute("DROP TABLE IF EXISTS {staged}, {staged_keys}", table)
        return counts

    def _leave_lists(self, table: Table, lists: Lists, in_scope: sql.Composable) -> None:
        """Give staged lists that say the same as the table's what these have in the columns that may differ."""
        beside = [*lists.beside]
        said = [name for name in table.column_names if name not in beside]
        self._execute(
            "WITH others AS MATERIALIZED ("
            "SELECT DISTINCT coalesce(staged.{per}, target.{per}) AS {per} FROM {staged} AS staged "
            "FULL JOIN (SELECT * FROM {target} WHERE {in_scope}) AS target ON {same_key} "
            "WHERE ({old_said}) IS DISTINCT FROM ({new_said})) "
            "UPDATE {staged} AS staged SET {kept} FROM {target} AS target "
            "WHERE {same_key} AND ({old_beside}) IS DISTINCT FROM ({new_beside}) "
            # Not "NOT IN", for which PostgreSQL looks through all others for each row when they are many.
            "AND NOT EXISTS (SELECT FROM others WHERE others.{per} = staged.{per})",
            table,
            in_scope=in_scope,
            per=sql.Identifier(lists.per),
            old_said=each("target.{}", said),
            new_said=each("staged.{}", said),
            old_beside=each("target.{}", beside),
            new_beside=each("staged.{}", beside),
            kept=each("{0} = target.{0}", beside),
        )

    def _stage(self, table: Table, rows: Rows) -> None:
        """Copy the rows into a temporary table."""
        self._execute(
            "CREATE TEMPORARY TABLE staged_rows ON COMMIT DROP "
            "AS SELECT {columns} FROM {target} WITH NO DATA",
            table,
        )
        copy_statement = self._compose("COPY {staged} ({columns}) FROM STDIN (FORMAT csv)", table)
        copy_rows(self._connection, copy_statement, table, rows)
        # Autovacuum does not see temporary tables, and without statistics the joins are planned for few rows.
        self._execute("ANALYZE {staged}", table)

    def _stage_keys(self, table: Table, keys: pa.Table) -> None:
        """Copy keys into a temporary table."""
        self._execute(
            "CREATE TEMPORARY TABLE staged_keys ON COMMIT DROP AS SELECT {key} FROM {target} WITH NO DATA",
            table,
        )
        copy = self._compose("COPY {staged_keys} ({key}) FROM STDIN (FORMAT csv)", table)
        with self._connection.cursor() as cursor, cursor.copy(copy) as copying:
            for batch in keys.select(table.key).to_batches(max_chunksize=_ROWS_PER_MESSAGE):
                copying.write(_to_csv(batch))
        self._execute("ANALYZE {staged_keys}", table)

    def _refuse_duplicate_keys(self, table: Table) -> None:
        twice = self._execute(
            "SELECT {key}, count(*) FROM {staged} GROUP BY {key} HAVING count(*) > 1 LIMIT 1", table
        ).fetchone()
        if twice:
            *values, times = twice
            raise PublicationError(
                f"{table.served_name}: the key {_named(table, values)} is there {times} times"
            )

    def _refuse_rows_outside(self, table: Table, scope: Part) -> None:
        outside = self._execute(
            "SELECT {key} FROM {staged} WHERE ({in_scope}) IS NOT TRUE LIMIT 1",
            table,
            in_scope=scope.condition,
        ).fetchone()
        if outside:
            raise PublicationError(
                f"{table.served_name}: the row with {_named(table, outside)} is outside of {scope.words}, "
                "which is what is being published"
            )
        if {*scope.columns} <= {*table.key}:
            # Who has the same key is in the part too.
            return
        # Without a limit: for the first of many, PostgreSQL would look through the staged rows for each of the table's.
        taken = self._execute(
            "WITH taken AS MATERIALIZED (SELECT {key} FROM {staged} AS staged WHERE EXISTS ("
            "SELECT FROM {target} AS target WHERE {same_key} AND ({in_scope}) IS NOT TRUE)) "
            "SELECT {key} FROM taken LIMIT 1",
            table,
            in_scope=scope.condition,
        ).fetchone()
        if taken:
            raise PublicationError(
                f"{table.served_name}: the key {_named(table, taken)} belongs to a row outside of {scope.words}"
            )

    def _execute(self, statement: str, table: Table, **parts: sql.Composable) -> psycopg.Cursor[Any]:
        return self._connection.execute(self._compose(statement, table, **parts))

    def _compose(self, statement: str, table: Table, **parts: sql.Composable) -> sql.Composed:
        """Fill in `{target}`, `{staged}` and what follows from the table's columns and key."""
        key = table.key
        values = [name for name in table.column_names if name not in key]
        assignments = each("{0} = staged.{0}", values)
        if stamp := table.served and table.served.stamp:
            assignments += sql.SQL(", {} = now()").format(sql.Identifier(stamp))
        return sql.SQL(statement).format(
            target=sql.Identifier(table.served_name),
            staged=_STAGED,
            staged_keys=_KEYS,
            columns=each("{}", table.column_names),
            key=each("{}", key),
            same_key=each("target.{0} = staged.{0}", key, " AND "),
            old=each("target.{}", values),
            new=each("staged.{}", values),
            assignments=assignments,
            **parts,
        )


@contextmanager
def publication(settings: Settings) -> Iterator[Publication]:
    """Publish tables together: committed when the block ends, undone when it raises.

    Raises:
        PostgresError: the database cannot be reached or does not carry the publication out.
    """
    with explained(settings), connect(settings) as connection:
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(_LOCK_TIMEOUT))
        yield Publication(connection)


def read_stamps(connection: psycopg.Connection) -> dict[str, str]:
    """Return the stamps of the assets' last publications."""
    return dict(connection.execute("SELECT asset, stamp FROM publications").fetchall())


def copy_rows(connection: psycopg.Connection, statement: sql.Composed, table: Table, rows: Rows) -> int:
    """Run a `COPY … FROM STDIN (FORMAT csv)` of all columns of the table; returns how many rows there were.

    Raises:
        PublicationError: a column is missing, unknown or of another type; a text has a NUL byte.
    """
    count = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in _batches(table, rows):
            copy.write(_to_csv(batch))
            count += batch.num_rows
    return count


def _named(table: Table, values: Iterable[Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(table.key, values, strict=True))


def _batches(table: Table, rows: Rows) -> Iterator[pa.RecordBatch]:
    """The rows in pieces of bounded size, with the table's columns, order and types."""
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    for batch in batches:
        conformed = _conform(table, batch)
        for start in range(0, batch.num_rows, _ROWS_PER_MESSAGE):
            yield conformed.slice(start, _ROWS_PER_MESSAGE)


def _conform(table: Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    names = table.column_names
    if missing := sorted(set(names) - set(batch.schema.names)):
        raise PublicationError(f"{table.served_name}: the rows have no column {', '.join(missing)}")
    if unknown := sorted(set(batch.schema.names) - set(names)):
        raise PublicationError(f"{table.served_name}: the table has no column {', '.join(unknown)}")
    columns = []
    for field in table.arrow:
        try:
            column = batch.column(field.name).cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise PublicationError(
                f"{table.served_name}: column {field.name} is not {field.type}: {error}"
            ) from None
        # Looked for here because PostgreSQL's own error names neither column nor value.
        if pa.types.is_string(field.type) and pc.any(pc.match_substring(column, "\0")).as_py():
            text = column.filter(pc.match_substring(column, "\0"))[0].as_py()
            raise PublicationError(
                f"{table.served_name}: column {field.name} has a NUL byte in {text[:200]!r}, "
                "which PostgreSQL cannot store as text"
            )
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=names)


def _to_csv(batch: pa.RecordBatch) -> memoryview:
    # Arrow quotes every text and leaves nulls empty and unquoted, which is how COPY distinguishes NULL from ''.
    columns = [_to_text(column) if pa.types.is_list(column.type) else column for column in batch.columns]
    batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    buffer = pa.BufferOutputStream()
    csv.write_csv(batch, buffer, csv.WriteOptions(include_header=False, quoting_style="needed"))
    return memoryview(buffer.getvalue())


def _to_text(lists: pa.ListArray) -> pa.StringArray:
    """Lists of texts or numbers as PostgreSQL writes arrays: CSV has none, and Arrow refuses to write them."""
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(counts)])
    texts = lists.flatten().cast(pa.string())
    texts = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    quoted = pc.binary_join_element_wise('"', texts, '"', "")
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, quoted, mask=pc.is_null(lists)), ",")
    return pc.binary_join_element_wise("{", joined, "}", "")
