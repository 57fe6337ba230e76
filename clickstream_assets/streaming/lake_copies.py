"""The lake's copies of windows and alerts, brought up to PostgreSQL's at intervals.

Every row of a window carries the number of the batch that changed it last, and every commit to the lake the number up
to which it has all rows. So the copy can be made at any time, by anybody, however the last one ended.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS, Table
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.statements import each
from clickstream_assets.streaming.progress import Progress, read_progress

EVERY_ROW = sql.SQL("true")


def update_copies(settings: Settings, lake: Lake) -> int:
    """Bring the lake's `product_windows` and `flash_sale_alerts` up to PostgreSQL's.

    Returns:
        How many rows of windows were new or changed.

    Raises:
        PostgresError: the database cannot be reached.
        LakeStorageError: the lake cannot be written.
    """
    with snapshot(settings) as connection:
        progress = read_progress(connection)
        copied = lake.snapshot(PRODUCT_WINDOWS).batch
        if progress is None or are_copied(lake, progress):
            return 0
        # Before the base there were other windows, of which some may be gone.
        is_other = copied < progress.base_batch_id
        changed = EVERY_ROW if is_other else sql.SQL("batch_id > {}").format(copied)
        windows = read_rows(connection, PRODUCT_WINDOWS, changed)
        alerts = read_rows(connection, FLASH_SALE_ALERTS)
    if is_other:
        lake.replace_batch(PRODUCT_WINDOWS, windows, progress.batch_id)
    else:
        lake.merge(PRODUCT_WINDOWS, windows, progress.batch_id)
    lake.replace_batch(FLASH_SALE_ALERTS, alerts, progress.batch_id)
    return windows.num_rows


def are_copied(lake: Lake, progress: Progress) -> bool:
    """Return whether the lake's copies are as far as the stream."""
    return all(lake.snapshot(t).batch >= progress.batch_id for t in (PRODUCT_WINDOWS, FLASH_SALE_ALERTS))


@contextmanager
def snapshot(settings: Settings) -> Iterator[psycopg.Connection]:
    """Open a connection that reads one moment of the database, in UTC.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


def read_rows(
    connection: psycopg.Connection, table: Table, condition: sql.Composable = EVERY_ROW
) -> pa.Table:
    """Read rows of a table of PostgreSQL, on a connection whose time zone is UTC."""
    statement = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT csv, HEADER)").format(
        each("{}", table.column_names), sql.Identifier(table.name), condition
    )
    buffer = BytesIO()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for data in copy:
            buffer.write(data)
    buffer.seek(0)
    return csv.read_csv(
        buffer,
        convert_options=csv.ConvertOptions(
            column_types=table.arrow,
            true_values=["t"],
            false_values=["f"],
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True),
    )
