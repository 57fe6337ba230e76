"""Replaces rows of a table that is laid out by days: the days alone whose rows are others than before are written."""

from __future__ import annotations

from datetime import date
from functools import reduce
from operator import and_

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import Table
from clickstream_assets.defs.partitions import Days, chunks
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.stores.lake import Lake

# Of 500 bytes each, what is in memory at once is some hundred MB.
ROWS_PER_WRITE = 500_000


def replace_rows(lake: Lake, table: Table, old: DataFrame, new: DataFrame) -> list[date]:
    """Put new rows into a table in place of some that it has.

    The last days are written first, each commit being of some days: what a killed run has left undone is seen by the
    first of its days.

    Args:
        lake: has the table, which is laid out by a date.
        table: the table.
        old: rows of it, by whose keys they are taken out.
        new: rows to be put in; those that are among `old` too stay. Both have the table's columns in their order.

    Returns:
        The days that were written, in order.
    """
    engine = lake.engine
    day = str(table.day)
    before, after = engine.persist(old), engine.persist(new)
    differing = unlike(before, after).select(day).union(unlike(after, before).select(day))
    days = sorted(engine.to_arrow(differing.distinct())[day].to_pylist())
    for first, last in reversed(list(chunks(lake, Days.of(days), table, ROWS_PER_WRITE))):
        there = between(lake.read(table), day, first, last)
        kept = without(there, before, *table.key)
        lake.replace(table, kept.union(between(after, day, first, last)), days=(first, last))
    for df in (before, after):
        engine.release(df)
    return days


def among(rows: DataFrame, others: DataFrame, *names: str) -> DataFrame:
    """Return the rows of which other rows have the same values in some columns."""
    return _of(rows, others, names, "left_semi")


def without(rows: DataFrame, others: DataFrame, *names: str) -> DataFrame:
    """Return the rows of which no other rows have the same values in some columns."""
    return _of(rows, others, names, "left_anti")


def unlike(rows: DataFrame, others: DataFrame) -> DataFrame:
    """Return the rows that others do not have, of the same columns; neither has a row twice.

    Where one had, `exceptAll` would tell how often. To number equal rows for that takes DuckDB four times as long.
    """
    F, _ = functions_of(rows)
    renamed = as_view(others.select(*(F.col(name).alias(f"other_{name}") for name in rows.columns)))
    is_same = reduce(and_, (F.col(name).eqNullSafe(F.col(f"other_{name}")) for name in rows.columns))
    return as_view(rows.join(renamed, on=is_same, how="left_anti").select(*rows.columns))


def _of(rows: DataFrame, others: DataFrame, names: tuple[str, ...], how: str) -> DataFrame:
    joined = rows.join(others.select(*names), on=list(names), how=how)
    # SQLFrame has the columns of such a join twice.
    return as_view(joined.select(*rows.columns))
