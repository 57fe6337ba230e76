"""Keeps what the last renewal by persons has changed in days of a table, for those who know the rows of before.

A day is known by the names of its files, which every write changes. So what is kept leads from some files to others,
and says nothing of a day that anything else has written since: of that, all rows have to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import Table
from clickstream_assets.defs.partitions import Days
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.stores.lake import Lake

NO_FILES = ""
"""Hash of the files of a day that has none."""


def keep_changes(
    lake: Lake,
    changes: Table,
    added: DataFrame,
    removed: DataFrame,
    before: Mapping[date, str],
    after: Mapping[date, str],
) -> None:
    """Keep which rows days have got and lost, in place of what was kept of these days.

    Args:
        lake: has the tables.
        changes: where it is kept.
        added: rows that the days have now, and had not before.
        removed: rows that they had.
        before: hash of each day's files before.
        after: the same since.
    """
    day = str(changes.day)
    days = [one for one, files in after.items() if files != before.get(one)]
    links = lake.engine.from_arrow(
        pa.table(
            {
                "linked_day": pa.array(days, pa.date32()),
                "files_before": pa.array([before.get(one, NO_FILES) for one in days], pa.string()),
                "files": pa.array([after[one] for one in days], pa.string()),
            }
        )
    )
    F, _ = functions_of(added)
    rows = as_view(
        added.withColumn("is_added", F.lit(True)).union(removed.withColumn("is_added", F.lit(False)))
    ).join(links, on=F.col(day) == F.col("linked_day"), how="inner")
    for first, last in Days.of(days).ranges:
        lake.replace(changes, between(rows, day, first, last), days=(first, last))
    lake.engine.release(links)


def changes_since(
    lake: Lake, changes: Table, before: Mapping[date, str], now: Mapping[date, str]
) -> DataFrame | None:
    """Return what has changed in some days since they had other files; None where that is not known.

    Args:
        lake: has the tables.
        changes: where it is kept.
        before: hash of each day's files as they were.
        now: hash of the files of each day that has any, as they are.

    Returns:
        Rows of `changes`, of these days, computed; to be released.
    """
    day = str(changes.day)
    changed = {one: files for one, files in before.items() if files != now.get(one, NO_FILES)}
    rows = lake.engine.persist(lake.read(changes, days=list(changed)))
    links = lake.engine.to_arrow(rows.select(day, "files_before", "files").distinct()).to_pylist()
    found = {(link[day], link["files_before"], link["files"]) for link in links}
    if found == {(one, files, now.get(one, NO_FILES)) for one, files in changed.items()}:
        return rows
    lake.engine.release(rows)
    return None
