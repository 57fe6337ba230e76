"""Databases of PostgreSQL, copied by COPY as they are at one moment.

Alembic makes the tables on restore, ours and Dagster's, so only rows are copied. `pg_dump` is not used: it has to be of
the server's version or a later one, and `pg_restore` of a later one writes settings that an older server refuses, so
that backups would hang on which programs a machine has: docs/decisions/0011-backup-by-copy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter

import psycopg
import zstandard
from psycopg import sql

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import Backup, CopiedTable, Database
from clickstream_assets.backup.place import Place, Written
from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.statements import each

# As text that every server reads alike, whatever its settings are.
_FORM = {"client_encoding": "UTF8", "TimeZone": "UTC", "DateStyle": "ISO", "IntervalStyle": "postgres"}
_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
    "AND attgenerated = '' ORDER BY attnum"
)
_KEYS = "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"


@contextmanager
def moment(settings: Settings, role: DatabaseRole = DatabaseRole.PIPELINE) -> Iterator[psycopg.Connection]:
    """Open a connection that reads one moment of a database: that of its first query.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings, role), connect(settings, role=role) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        _prepare(connection)
        yield connection


def _prepare(connection: psycopg.Connection) -> None:
    for name, value in {**_FORM, "application_name": "clickstream backup"}.items():
        connection.execute(sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)))


def tables_of(connection: psycopg.Connection, besides: Collection[str]) -> list[str]:
    """Return the names of all tables but some."""
    return sorted(name for (name,) in connection.execute(_TABLES) if name not in besides)


def revision_of(connection: psycopg.Connection, table: str) -> str | None:
    """Return the revision that Alembic keeps in a table; None where there is no such table, or nothing in it."""
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    row = connection.execute(sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table))).fetchone()
    return row[0] if row else None


def copy_out(
    connection: psycopg.Connection, names: Iterable[str], revision: str, to: Place, folder: str
) -> tuple[Database, dict[str, Written]]:
    """Copy tables to files.

    Args:
        connection: As `moment` has it.
        names: The tables.
        revision: Alembic's, of the tables.
        to: Where to.
        folder: Path of a folder there.

    Returns:
        What the manifest says of them, and the files by their paths.
    """
    tables, files = {}, {}
    for name in names:
        columns = [column for (column,) in connection.execute(_COLUMNS, [_quoted(name)])]
        path = f"{folder}/{name}.copy.zst"
        statement = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(name), each("{}", columns))
        with (
            to.writing(path) as sink,
            zstandard.ZstdCompressor().stream_writer(sink, closefd=False) as packed,  # type: ignore[arg-type]
        ):
            rows = _write_rows(connection, statement, packed.write)
        files[path] = sink.written
        tables[name] = CopiedTable(columns, rows, path)
    return Database(revision, tables, _sequences(connection, tables)), files


def _write_rows(
    connection: psycopg.Connection, statement: sql.Composed, write: Callable[[bytes], object]
) -> int:
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for data in copy:
                write(bytes(data))
        return cursor.rowcount


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sequences(connection: psycopg.Connection, tables: dict[str, CopiedTable]) -> dict[str, int]:
    """Return the last number that each sequence of a column has given.

    Not the greatest of the column: rows of later numbers may have been deleted, and others know these numbers.
    """
    given = {}
    for name, column, sequence in _with_sequences(connection, tables):
        row = connection.execute("SELECT pg_sequence_last_value(%s::regclass)", [sequence]).fetchone()
        if row and row[0] is not None:
            given[f"{name}.{column}"] = row[0]
    return given


def _with_sequences(
    connection: psycopg.Connection, tables: dict[str, CopiedTable]
) -> Iterator[tuple[str, str, str]]:
    for name, table in tables.items():
        for column in table.columns:
            row = connection.execute(
                "SELECT pg_get_serial_sequence(%s, %s)", [_quoted(name), column]
            ).fetchone()
            if row and row[0]:
                yield name, column, row[0]


def filled_table(connection: psycopg.Connection, names: Iterable[str]) -> str | None:
    """Return one of some tables that has rows; None where none has, or is there."""
    there = {name for (name,) in connection.execute(_TABLES)}
    for name in sorted(there.intersection(names)):
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(name))
        if connection.execute(query).fetchone() == (True,):
            return name
    return None


def put_back_rows(settings: Settings, database: Database, place: Place, backup: Backup) -> None:
    """Replace all rows of the tables of a backup, in one transaction, as their owner, who alone may.

    Raises:
        BackupError: a table is missing, or a file of the backup is damaged.
        PostgresError: the database cannot be reached or written.
    """
    owner = DatabaseRole.OWNER
    with explained(settings, owner), connect(settings, role=owner) as connection:
        _prepare(connection)
        there = {name for (name,) in connection.execute(_TABLES)}
        if missing := sorted(database.tables.keys() - there):
            raise BackupError(
                f"POSTGRES_DB={settings.postgres_db} has no table {missing[0]}, which backup {backup.name} has; "
                f"install clickstream-assets {backup.product}, which made it"
            )
        connection.execute(sql.SQL("TRUNCATE {}").format(each("{}", database.tables)))
        for name in _in_order(connection, database.tables):
            copy_in(connection, name, database.tables[name], place, backup)
        for name, column, sequence in _with_sequences(connection, database.tables):
            if (given := database.sequences.get(f"{name}.{column}")) is not None:
                connection.execute("SELECT setval(%s, %s)", [sequence, given])


def _in_order(connection: psycopg.Connection, tables: Collection[str]) -> list[str]:
    """Return tables, each after those that its foreign keys are of."""
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(tables, ()))
    for name, other in connection.execute(_KEYS).fetchall():
        if name in tables and other in tables and name != other:
            sorter.add(name, other)
    return list(sorter.static_order())


def copy_in(
    connection: psycopg.Connection, name: str, table: CopiedTable, place: Place, backup: Backup
) -> None:
    """Copy the rows of a table of a backup into a table of this name.

    Raises:
        BackupError: its file is damaged.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), each("{}", table.columns))
    unpacked = zstandard.ZstdDecompressor().decompressobj()
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for data in place.chunks(table.file):
                copy.write(unpacked.decompress(data))
        rows = cursor.rowcount
    if rows != table.rows:
        raise BackupError(
            f"{place.uri}/{table.file} has {rows:,} rows, and backup {backup.name} says {table.rows:,}; name another "
            "by --which"
        )
