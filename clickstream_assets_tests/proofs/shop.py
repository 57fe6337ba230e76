"""A pipeline of its own on the real servers, and its daily tables in the lake and in PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from psycopg import sql

from clickstream_assets.catalogue import CART_DAYS, CARTS, CUSTOMER_SEGMENTS, PROFILING_REFUSALS, Table
from clickstream_assets.definitions import defs
from clickstream_assets.defs.serving.assets import DAILY_TABLES as SERVED_BY_DAY
from clickstream_assets.defs.serving.assets import SHOPPER_TABLES
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import conform
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.databases import pipeline_environment
from clickstream_assets_tests.defs.pipeline import Pipeline

SERVED = (*SERVED_BY_DAY, *SHOPPER_TABLES, CARTS, CUSTOMER_SEGMENTS)
DAILY_TABLES = (*SERVED, CART_DAYS)
# What is recommended is not in question here.
SMALL_MODELS = {"ALS_FACTORS": "8", "ALS_ITERATIONS": "2"}


@contextmanager
def running_pipeline(stack: Stack, servers: Settings, folder: Path) -> Iterator[Pipeline]:
    """Run a pipeline with a topic, a database and a lake of its own, which the environment names meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pipeline_environment(servers, stack.env() | SMALL_MODELS, patch, folder) as settings:
            yield Pipeline(settings, dg.DagsterInstance.ephemeral(), defs())


@dataclass(frozen=True)
class Tables:
    """The daily tables by the names that they have in the lake, as they are there and as PostgreSQL serves them."""

    lake: dict[str, pa.Table]
    served: dict[str, pa.Table]
    refusals: pa.Table
    """Of persons who have refused to be profiled: they are in the lake's segments of days, and in no served ones."""

    @classmethod
    def of(cls, settings: Settings) -> Tables:
        """Read both."""
        lake = {
            table.name: conform(DeltaTable(f"{settings.lake}/{table.name}").to_pyarrow_table(), table)
            for table in DAILY_TABLES
        }
        with connect(settings) as connection:
            served = {table.name: _served(connection, table) for table in SERVED}
            refusals = _served(connection, PROFILING_REFUSALS)
        return cls(lake, served, refusals)


def _served(connection: psycopg.Connection, table: Table) -> pa.Table:
    """Return a table of PostgreSQL, copied out as text: as rows of Python's, hundreds of thousands take a minute."""
    lists = {field.name for field in table.arrow if pa.types.is_list(field.type)}
    copied = sql.SQL(", ").join(
        sql.SQL("to_json({})").format(sql.Identifier(name)) if name in lists else sql.Identifier(name)
        for name in table.column_names
    )
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, HEADER)")
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        with connection.cursor().copy(query.format(copied, sql.Identifier(table.served_name))) as copy:
            for part in copy:
                file.write(part)
        file.flush()
        duck = duckdb.connect(config={"threads": 2})
        duck.execute("SET TimeZone = 'UTC'")
        duck.register("empty", table.arrow.empty_table())
        duck.execute("CREATE TABLE typed AS FROM empty")
        types = dict(duck.execute("SELECT column_name, column_type FROM (DESCRIBE typed)").fetchall())
        names = ", ".join(f"'{name}': 'VARCHAR'" for name in types)
        values = ", ".join(
            f'from_json("{name}", \'["VARCHAR"]\')' if name in lists else f'CAST("{name}" AS {kind})'
            for name, kind in types.items()
        )
        duck.execute(
            f"INSERT INTO typed SELECT {values} FROM read_csv('{file.name}', columns = {{{names}}}, header = true, "
            "quote = '\"', escape = '\"', delim = ',', nullstr = '', allow_quoted_nulls = false)"
        )
        return conform(duck.execute("FROM typed").to_arrow_table(), table)
