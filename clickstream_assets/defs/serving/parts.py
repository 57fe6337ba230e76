"""Publishes days of tables: those that the lake has otherwise than they were published, and rows that differ.

PostgreSQL says itself which of the lake's files each day was published from. A day of the same files is left alone. Of
a large day, the rows of both versions are compared in the lake, and those of the keys that differ are published. Where
the lake may not have the older version's files any more, the day is published whole, and PostgreSQL compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import PUBLISHED_PARTS, SERVED_TABLES, Table
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.differences import unlike
from clickstream_assets.defs.partitions import Days, chunks
from clickstream_assets.defs.shopper_days import files_by
from clickstream_assets.engine import DataFrame
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.publishing import (
    Among,
    Keyed,
    Publication,
    Published,
    Scope,
    publication,
)

# Of 300,000 sessions of which one differs, both versions are compared in 1.1 s of a processor, and by PostgreSQL, which
# gets all of them, in 5.4 s; of some ten thousand rows, either takes less than half a second.
LEAST_ROWS = 20_000
# Rows that differ are in memory, at some 500 bytes.
MOST_DIFFERING = 200_000


def publish_days(
    lake: Lake,
    settings: Settings,
    publication: Publication,
    table: Table,
    days: Iterable[date] | None = None,
    *,
    is_whole: bool = False,
) -> dict[date, Published]:
    """Publish days of a table as the lake has them, if that is not what was published.

    Of days that are past SERVED_PERSONS_RETENTION_DAYS no row is left.

    Args:
        lake: has the table, laid out by days.
        settings: say for how long the lake keeps older versions.
        publication: the transaction.
        table: the table.
        days: the days (default: all, between which rows may have moved).
        is_whole: compare all rows of the days with PostgreSQL's, whatever was published.

    Returns:
        Counts of each of the days, or of those of all days that were published; `rows` are those that the lake has.
    """
    return _Publisher(lake, settings, publication, table).publish(days, is_whole)


def first_served(settings: Settings, table: Table) -> date | None:
    """Return the first day whose rows PostgreSQL has, of a table of persons' days; None for all days."""
    days = settings.served_persons_retention_days
    if not days or "user_id" not in table.by_name:
        return None
    return ShopClock(settings.shop_time_zone).today() - timedelta(days=days - 1)


def withdraw_old_days(lake: Lake, settings: Settings) -> dict[str, int]:
    """Delete the rows of days that are past SERVED_PERSONS_RETENTION_DAYS from PostgreSQL; the lake keeps them.

    A transaction a day, so it can be interrupted, and repeated, at any time.

    Returns:
        By table, how many rows were deleted; only tables that had any.
    """
    deleted: dict[str, int] = {}
    for table in SERVED_TABLES:
        first = first_served(settings, table) if table.day else None
        if first is None:
            continue
        with publication(settings) as transaction:
            parts = transaction.read(PUBLISHED_PARTS, ("day",), Scope("table_name", table.name)).to_pylist()
        for day in sorted(row["day"] for row in parts if row["day"] < first):
            with publication(settings) as transaction:
                its = publish_days(lake, settings, transaction, table, [day])[day].deleted
            deleted[table.name] = deleted.get(table.name, 0) + its
    return {name: rows for name, rows in deleted.items() if rows}


def _rows_of_days(
    lake: Lake, table: Table, days: Iterable[date], version: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some days, a batch after the other; of the newest version, or of one."""
    wanted = Days.of(days)
    for first, last in chunks(lake, wanted, table):
        rows = lake.read(table, version, days=[day for day in wanted if first <= day <= last])
        yield from lake.batches(table, rows)


class _Publisher:
    def __init__(self, lake: Lake, settings: Settings, publication: Publication, table: Table) -> None:
        self._lake, self._engine, self._publication, self._table = lake, lake.engine, publication, table
        self._day = str(table.day)
        self._oldest = datetime.now(UTC) - timedelta(days=settings.lake_retention_days) / 2
        self._now = lake.snapshot(table)
        first = first_served(settings, table) or date.min
        files, counts = files_by(self._now, self._day), self._now.rows_by(self._day)
        # A day that is not served is to PostgreSQL as one that the lake does not have.
        self._files = {day: its for day, its in files.items() if day >= first}
        self._counts = {day: its for day, its in counts.items() if day >= first}
        self._scope = Scope("table_name", table.name)
        # Else another could publish between this question and what follows from it.
        publication.hold(PUBLISHED_PARTS)
        parts = publication.read(PUBLISHED_PARTS, scope=self._scope).to_pylist()
        self._known = {row["day"]: row for row in parts}

    def publish(self, days: Iterable[date] | None, is_whole: bool) -> dict[date, Published]:
        asked = sorted(self._files.keys() | self._known.keys()) if days is None else list(days)
        changed = [day for day in asked if is_whole or self._files.get(day) != self._published(day, "files")]
        compared = [] if is_whole else [day for day in changed if self._is_comparable(day)]
        found: dict[date, Published] = {}
        left = set(changed)
        # Before whole days: a row that has moved to one of these is gone then.
        if compared and (differing := self._publish_differing(compared)) is not None:
            found |= differing
            left -= set(compared)
        for some in [sorted(left)] if days is None else self._chunks(left):
            if some:
                there = [day for day in some if day in self._files]
                rows = _rows_of_days(self._lake, self._table, there, self._now.version)
                found |= self._publication.publish_by(self._table, rows, Among(self._day, tuple(some)))
        if changed:
            self._note(changed)
        shown = changed if days is None else asked
        return {day: replace(found.get(day, Published()), rows=self._counts.get(day, 0)) for day in shown}

    def _published(self, day: date, name: str) -> Any:
        return self._known.get(day, {}).get(name)

    def _chunks(self, days: Iterable[date]) -> Iterator[list[date]]:
        wanted = Days.of(days)
        for first, last in chunks(self._lake, wanted, self._table):
            yield [day for day in wanted if first <= day <= last]

    def _is_comparable(self, day: date) -> bool:
        """Return whether a day is large, and was published from a version that the lake still has."""
        known = self._known.get(day)
        if known is None or self._counts.get(day, 0) < LEAST_ROWS or known["published_at"] < self._oldest:
            return False
        # A table that was put back to an earlier time has others by the same number.
        is_there = known["version"] <= self._now.version
        return is_there and self._files_at(known["version"]).get(day) == known["files"]

    def _files_at(self, version: int) -> dict[date, str]:
        return files_by(self._lake.snapshot(self._table, version=version), self._day)

    def _publish_differing(self, days: list[date]) -> dict[date, Published] | None:
        """Publish rows of the days that differ from those of the published versions; None if they are too many."""
        by_version: dict[int, list[date]] = {}
        for day in days:
            by_version.setdefault(self._published(day, "version"), []).append(day)
        added, removed = [], []
        for version, its in by_version.items():
            old, new = (
                self._lake.read(self._table, number, days=its) for number in (version, self._now.version)
            )
            added.append(self._few(unlike(new, old)))
            removed.append(self._few(unlike(old, new)))
        rows, gone = pa.concat_tables(added), pa.concat_tables(removed)
        if max(rows.num_rows, gone.num_rows) > MOST_DIFFERING:
            return None
        key = self._table.key
        keys = pa.concat_tables([rows.select(key), gone.select(key)]).group_by(key).aggregate([])
        return self._publication.publish_by(self._table, rows, Keyed(self._day, keys))

    def _few(self, rows: DataFrame) -> pa.Table:
        """Compute rows, of which one too many tells that they are."""
        return conform(self._engine.to_arrow(rows.limit(MOST_DIFFERING + 1)), self._table)

    def _note(self, days: Iterable[date]) -> None:
        """Say what the days are published from now."""
        now = datetime.now(UTC)
        parts = {day: row for day, row in self._known.items() if day not in set(days)}
        parts |= {
            day: {
                "table_name": self._table.name,
                "day": day,
                "files": self._files[day],
                "version": self._now.version,
                "published_at": now,
            }
            for day in days
            if day in self._files
        }
        rows = pa.Table.from_pylist(list(parts.values()), schema=PUBLISHED_PARTS.arrow)
        self._publication.publish(PUBLISHED_PARTS, rows, self._scope)
