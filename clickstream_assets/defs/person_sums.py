"""Renews days of tables whose figures are sums over persons: of a large day, what its changed persons count for.

Each figure of such a table is a sum over persons, and what a person counts for depends on their own events alone. So,
where it is known which events of a day have changed, what their persons counted for before is taken away from the
day's figures, and what they count for now is added. Both are computed by the function that computes whole days.
Money is decimal and all else is counted, so the figures are those of the whole day, and not nearly so.

Beside each table is what its large days were made from. That is written after the day: where a killed run has left
rows of another time, their files are not those that the record names, and the day is computed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from importlib.metadata import version
from operator import and_
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import SHOPPER_CHANGES, SHOPPER_EVENTS, Table
from clickstream_assets.defs.changes import NO_FILES, changes_since
from clickstream_assets.defs.differences import among, without
from clickstream_assets.defs.partitions import Days, chunks
from clickstream_assets.defs.renewal import LEAST_EVENTS, MOST_EVENTS, MOST_SHARE, hash_of
from clickstream_assets.defs.shopper_days import files_by
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.stores.lake import Lake


@dataclass(frozen=True)
class PersonSums:
    """A table of days that is made of sums over persons.

    Attributes:
        table: The table.
        inputs: What each of its large days was made from.
        group: Columns that name what is summed up, the day first.
        sums: Columns that are sums over persons, with their types.
        days_after: How many days after a day have events that its sums depend on.
        of_events: Makes the groups of days, from a first to a last one, of SHOPPER_EVENTS rows of these and the days
            after, apart by further columns of theirs: these columns, `group` and `sums`.
        of_rows: Makes groups of the table's rows.
        to_rows: Makes the table's rows of groups.
        made_by: What else a day depends on: settings, and whatever other tables say of it.
    """

    table: Table
    inputs: Table
    group: tuple[str, ...]
    sums: Mapping[str, str]
    of_events: Callable[[DataFrame, date, date, Sequence[str]], DataFrame]
    of_rows: Callable[[DataFrame], DataFrame]
    to_rows: Callable[[DataFrame], DataFrame]
    days_after: int = 0
    made_by: Callable[[date], Any] = lambda _: None


def renew_sums(lake: Lake, sums: PersonSums, days: Days, is_whole: bool) -> None:
    """Replace rows of days by those that they have by now.

    Args:
        lake: has the events and the table.
        sums: the table.
        days: the days.
        is_whole: compute them whole, whatever they were made from.
    """
    _Renewal(lake, sums).renew(days, is_whole)


class _Renewal:
    def __init__(self, lake: Lake, sums: PersonSums) -> None:
        self._lake, self._engine, self._sums = lake, lake.engine, sums
        self._events = lake.snapshot(SHOPPER_EVENTS)
        self._files = files_by(self._events, "event_date")
        self._counts = self._events.rows_by("event_date")
        self._before = lake.snapshot(sums.table)
        self._commits = 0
        self._known = {row["report_date"]: row for row in lake.rows(sums.inputs).to_pylist()}

    def renew(self, days: Days, is_whole: bool) -> None:
        there = files_by(self._before, str(self._sums.table.day))
        rules = {day: self._rules(day) for day in days if self._is_large(day)}

        def is_done(day: date) -> bool:
            record = self._known.get(day)
            is_valid = (
                record
                and day in rules
                and record["rules"] == rules[day]
                and record["files"] == there.get(day, NO_FILES)
            )
            return bool(record and is_valid and not is_whole and self._add_up(day, record["events"]))

        whole = Days.of([day for day in days if not is_done(day)])
        for first, last in chunks(self._lake, whole):
            groups = self._sums.of_events(self._read(first, last), first, last, ())
            self._replace(self._sums.to_rows(groups), first, last)
        if self._commits:
            self._record(days, rules)

    def _is_large(self, day: date) -> bool:
        return sum(self._counts.get(one, 0) for one in self._reach(day)) >= LEAST_EVENTS

    def _reach(self, day: date) -> list[date]:
        """Return the days whose events a day depends on."""
        return [day + timedelta(days=number) for number in range(self._sums.days_after + 1)]

    def _rules(self, day: date) -> str:
        return hash_of([version("clickstream_assets"), self._sums.made_by(day)])

    def _read(self, first: date, last: date) -> DataFrame:
        latest = last + timedelta(days=self._sums.days_after)
        return between(self._lake.read(SHOPPER_EVENTS, self._events.version), "event_date", first, latest)

    def _replace(self, rows: DataFrame, first: date, last: date) -> None:
        self._lake.replace(self._sums.table, rows, days=(first, last))
        self._commits += 1

    def _add_up(self, day: date, events: Iterable[str]) -> bool:
        """Change a day's sums by what has changed in its events since these files; return whether that can be done."""
        before = dict(zip(self._reach(day), events, strict=True))
        if all(self._files.get(one, NO_FILES) == files for one, files in before.items()):
            return True
        changes = changes_since(self._lake, SHOPPER_CHANGES, before, self._files)
        if changes is None:
            return False
        persons = as_view(changes.select("user_id").distinct())
        most = min(
            int(MOST_SHARE / 2 * sum(self._counts.get(one, 0) for one in self._reach(day))), MOST_EVENTS
        )
        # One that is too many tells that they are.
        now = self._engine.persist(among(self._read(day, day), persons, "user_id").limit(most + 1))
        F, _ = functions_of(now)
        counted = self._engine.to_arrow(now.agg(F.count(F.lit(1)).cast("long").alias("events")))
        is_done = counted["events"][0].as_py() <= most and self._exchange(day, changes, now)
        for df in (now, changes):
            self._engine.release(df)
        return is_done

    def _exchange(self, day: date, changes: DataFrame, now: DataFrame) -> bool:
        """Take away from a day's sums what the changed persons counted for, and add what they count for now."""
        F, _ = functions_of(now)
        added, removed = (
            changes.where(condition).select(*now.columns)
            for condition in (F.col("is_added"), ~F.col("is_added"))
        )
        before = as_view(without(now, as_view(added), *SHOPPER_EVENTS.key).union(removed))
        both = before.withColumn("sign", F.lit(-1)).union(now.withColumn("sign", F.lit(1)))
        counted = self._sums.of_events(as_view(both), day, day, ("sign",))
        rows = between(
            self._lake.read(self._sums.table, self._before.version), str(self._sums.table.day), day, day
        )
        there = self._sums.of_rows(rows).withColumn("sign", F.lit(1))
        names = ("sign", *self._sums.group, *self._sums.sums)
        every = as_view(there.select(*names).union(counted.select(*names)))
        summed = self._engine.persist(
            every.groupBy(*self._sums.group).agg(
                *(
                    F.sum(F.col("sign") * F.col(name)).cast(kind).alias(name)
                    for name, kind in self._sums.sums.items()
                )
            )
        )
        # It can be gone, or be there with nothing in it.
        empty = summed.where(reduce(and_, (F.col(name) == 0 for name in self._sums.sums)))
        is_known = not self._engine.to_arrow(empty.limit(1)).num_rows
        if is_known:
            self._replace(self._sums.to_rows(summed), day, day)
        self._engine.release(summed)
        return is_known

    def _record(self, days: Days, rules: Mapping[date, str]) -> None:
        """Keep what the large days are made from now."""
        now = self._lake.snapshot(self._sums.table)
        records = {day: row for day, row in self._known.items() if day not in days}
        # Another run may have written the same days meanwhile.
        if now.version == self._before.version + self._commits:
            there = files_by(now, str(self._sums.table.day))
            records |= {
                day: {
                    "report_date": day,
                    "events": [self._files.get(one, NO_FILES) for one in self._reach(day)],
                    "rules": its_rules,
                    "files": there.get(day, NO_FILES),
                }
                for day, its_rules in rules.items()
            }
        if records != self._known:
            rows = [records[day] for day in sorted(records)]
            inputs = self._sums.inputs
            self._lake.replace_rows(inputs, pa.Table.from_pylist(rows, schema=inputs.arrow))
