"""Renews days of `sessions` and `shopper_events`: of a large day, only the rows of persons whom new events concern.

A row of either depends on its person's events alone, of the day and of a few days around it. Beside each table is what
each of its days was made from. The next run finds by that which events are new, and whose they are or were: these
persons' rows are computed by the functions that compute whole days, and replaced in one commit with the day; where
all that they had stays as it is, what is new is added, and nothing else is written.

What a day was made from is written after its rows. A killed run leaves the older record, by which the next run takes
more persons than it would have to. Where a record is not one of these rows any more, it is taken back before they are
written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.identity import IdentityRules, events_by_ids
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import EVENTS, EXCHANGE_RATES, IDENTITY_TIES, SHOPPER_EVENTS, Table
from clickstream_assets.defs.changes import keep_changes
from clickstream_assets.defs.differences import among, unlike, without
from clickstream_assets.defs.partitions import Days, Range, chunks
from clickstream_assets.defs.shopper_days import files_by
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.money import priced
from clickstream_assets.ingest.reach import moved_events, settings_of_days
from clickstream_assets.ingest.ties import persons_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.exchange_rates import ShopMoney
from clickstream_assets.stores.lake import Lake, Snapshot

# Of one late event, 100,000 take 1.0 s of a processor for both tables, whole or by persons; 50,000 take 0.7 or 0.9 s,
# 400,000 take 2.4 or 1.5 s, and a million 5.9 or 1.8 s.
LEAST_EVENTS = 100_000
# Where the persons have a larger share of the events, a whole day takes no longer; half of it where their rows are
# compared with those that are there. And their events are held in memory, 300 bytes each.
MOST_SHARE = 0.4
MOST_EVENTS = 1_000_000
# What is only added is a file more. Of so many, or more, a day is put together.
MOST_FILES = 20

_IDS = ("event_date", "event_time", "user_id", "anonymous_id", "session_id")
_COLUMNS = tuple(
    name for name in EVENTS.column_names if name in SHOPPER_EVENTS.column_names or name in (*_IDS, "is_bot")
)
"""Columns of an event that both tables take."""
_Record: TypeAlias = dict[str, Any]
"""A row of the table of inputs."""
_Batches: TypeAlias = dict[date, list[tuple[int, int, int, int]]]
"""By day, each batch with events of it: its number, their number, and the first and the last of their offsets."""


@dataclass(frozen=True)
class Sources:
    """The versions of what days are made from, and the settings that they are made by."""

    lake: Lake
    settings: Settings
    events: Snapshot
    ties: Snapshot
    money_version: int

    @classmethod
    def of(
        cls,
        lake: Lake,
        settings: Settings,
        events: int | None = None,
        ties: int | None = None,
        money: int | None = None,
    ) -> Self:
        """Take versions of `events`, `identity_ties` and `exchange_rates`; of each the newest, where none is given."""
        return cls(
            lake,
            settings,
            lake.snapshot(EVENTS, version=events),
            lake.snapshot(IDENTITY_TIES, version=ties),
            lake.snapshot(EXCHANGE_RATES).version if money is None else money,
        )

    @cached_property
    def money(self) -> ShopMoney:
        """The shop's money."""
        return ShopMoney.of(self.lake, self.money_version)

    def read(self, first: date, last: date) -> DataFrame:
        """Return the events of some days, as they were sent."""
        events = self.lake.read(EVENTS, self.events.version, _COLUMNS)
        return between(events, "event_date", first, last)

    def settled(self, events: DataFrame) -> DataFrame:
        """Return events with persons, in the shop's money."""
        rules = IdentityRules.of(self.settings)
        return persons_of(self.lake, priced(self.lake, events, self.money_version), rules, self.ties.version)

    def persons_since(self, batch: int, ties_batch: int, first: date, last: date) -> DataFrame:
        """Return whose events of some days have come, or have another person, since these batches: `user_id`."""
        newest = self.lake.read(
            EVENTS, self.events.version, (*_IDS, "batch"), batches=(batch + 1, self.events.batch)
        )
        rules = IdentityRules.of(self.settings)
        added = persons_of(self.lake, between(newest, "event_date", first, last), rules, self.ties.version)
        persons = added.select("user_id")
        moved = moved_events(self.lake, ties_batch, (first, last))
        if moved is not None:
            persons = as_view(persons).union(as_view(moved.select("user_id")))
        return as_view(persons.distinct())

    def possible_events(self, persons: DataFrame, first: date, last: date) -> DataFrame:
        """Return the events of some days that can be some persons', and perhaps others; as they were sent."""
        ties = self.lake.read(IDENTITY_TIES, self.ties.version)
        return events_by_ids(self.read(first, last), persons, ties)

    def batches(self, first: date, last: date) -> _Batches:
        """Return which batches the events of some days came with.

        The files' statistics say it, but for files that were put together: of the days that have any, the events are
        read. So a day's batches stay the same, whatever its files are.
        """
        files = self.events.files
        if not files.num_rows:
            return {}
        days = files["partition.event_date"].cast(pa.date32())
        is_asked = pc.and_(pc.greater_equal(days, pa.scalar(first)), pc.less_equal(days, pa.scalar(last)))
        files = files.set_column(files.column_names.index("partition.event_date"), "event_date", days)
        found: dict[date, dict[int, tuple[int, int, int]]] = {}
        several: set[date] = set()
        for file in files.filter(is_asked).to_pylist():
            day, batch = file["event_date"], file.get("min.batch")
            if batch is None or batch != file["max.batch"]:
                several.add(day)
                continue
            count, low, high = found.setdefault(day, {}).get(batch, (0, 2**63 - 1, -1))
            found[day][batch] = (
                count + file["num_records"],
                min(low, file["min.offset"]),
                max(high, file["max.offset"]),
            )
        if several:
            found |= self._batches_read(several)
        return {day: sorted((batch, *its) for batch, its in of.items()) for day, of in found.items()}

    def _batches_read(self, days: set[date]) -> dict[date, dict[int, tuple[int, int, int]]]:
        events = self.lake.read(
            EVENTS, self.events.version, ("event_date", "batch", "offset"), days=sorted(days)
        )
        F, _ = functions_of(events)
        counted = events.groupBy("event_date", "batch").agg(
            F.count(F.lit(1)).cast("long").alias("events"),
            F.min("offset").alias("low"),
            F.max("offset").alias("high"),
        )
        found: dict[date, dict[int, tuple[int, int, int]]] = {}
        for row in self.lake.engine.to_arrow(counted).to_pylist():
            its = (row["events"], row["low"], row["high"])
            found.setdefault(row["event_date"], {})[row["batch"]] = its
        return found

    def rules(self, last: date) -> str:
        """Return a hash of what days are made by beside events and ties, where no event is later than a day."""
        rates = [rate for rate in self.money.rates if rate.since <= last]
        made_by = [version("clickstream_assets"), settings_of_days(self.settings), self.money.currency, rates]
        return hash_of(made_by)


@dataclass(frozen=True)
class PersonRows:
    """A table of days whose rows each depend on one person's events.

    Attributes:
        table: The table.
        inputs: What each of its days was made from.
        reach: How many days before and after a day have events that its rows depend on.
        reads: Of how many days before and after `compute` takes the events.
        compute: Makes the rows of days, from a first to a last one, of events with persons.
        made_with: The inputs of another table whose rows `compute` reads, and of how many days before; or none.
        changes: Which rows days have got and lost when they were renewed by persons; or none. New events, as a rule,
            add rows of such a table and leave those that are there as they are.
    """

    table: Table
    inputs: Table
    reach: tuple[int, int]
    reads: tuple[int, int]
    compute: Callable[[DataFrame, date, date], DataFrame]
    made_with: tuple[Table, int] | None = None
    changes: Table | None = None


def renew_days(sources: Sources, rows: PersonRows, days: Days, is_whole: bool) -> None:
    """Replace rows of days by those that they have by now; each chunk of days is one commit.

    Args:
        sources: the events, and what else the rows are made from.
        rows: the table.
        days: the days.
        is_whole: compute them whole, whatever they were made from.
    """
    for first, last in chunks(sources.lake, days):
        _Chunk(sources, rows, first, last).renew(is_whole)


class _Chunk:
    """Days of a table that are renewed at once."""

    def __init__(self, sources: Sources, rows: PersonRows, first: date, last: date) -> None:
        self._sources, self._rows = sources, rows
        self._lake, self._engine = sources.lake, sources.lake.engine
        self._first, self._last = first, last
        self._batches = sources.batches(*_widened((first, last), rows.reach))
        self._known = {row["report_date"]: row for row in self._lake.rows(rows.inputs).to_pylist()}
        now = self._lake.snapshot(rows.table)
        there = now.rows_by(str(rows.table.day))
        if any(row["version"] > now.version for row in self._known.values()):
            # The table was put back to an earlier time.
            self._keep({})
        self._asked = [day for day in Days(((first, last),)) if day in there or day in self._batches]
        self._valid = {
            day: row
            for day in self._asked
            if (row := self._known.get(day))
            and row["rows"] == there.get(day, 0)
            and row["rules"] == self._rules(day)
            and row["events"] == self._fingerprint(day, row["events_batch"])
        }

    def renew(self, is_whole: bool) -> None:
        """Replace what is not as it has to be."""
        most = self._most_events()
        if is_whole or not most or len(self._valid) < len(self._asked):
            self._renew_whole()
            return
        batch, ties_batch = (
            min(row[name] for row in self._valid.values()) for name in ("events_batch", "ties_batch")
        )
        added = sum(its[1] for of_day in self._batches.values() for its in of_day if its[0] > batch)
        if added > most:
            self._renew_whole()
            return
        if not added and ties_batch == self._sources.ties.batch:
            return
        reach = _widened((self._first, self._last), self._rows.reach)
        persons = self._engine.persist(self._sources.persons_since(batch, ties_batch, *reach))
        F, _ = functions_of(persons)
        if self._engine.to_arrow(persons.limit(1)).num_rows:
            possible = self._sources.possible_events(persons, *self._read_days())
            # One that is too many tells that they are.
            events = self._engine.persist(possible.limit(most + 1))
            counted = self._engine.to_arrow(events.agg(F.count(F.lit(1)).cast("long").alias("events")))
            if counted["events"][0].as_py() > most:
                self._renew_whole()
            else:
                self._renew_rows(persons, events)
            self._engine.release(events)
        self._engine.release(persons)

    def _most_events(self) -> int:
        """Return how many events the persons may have that are computed for themselves; 0 where none are."""
        events = sum(its[1] for of_day in self._batches.values() for its in of_day)
        share = MOST_SHARE / 2 if self._rows.changes else MOST_SHARE
        return min(int(share * events), MOST_EVENTS) if events >= LEAST_EVENTS else 0

    def _read_days(self) -> Range:
        return _widened((self._first, self._last), self._rows.reads)

    def _renew_whole(self) -> None:
        if set(self._asked) & self._known.keys() - self._valid.keys():
            # Who sets back what it was made by would find a record of other rows.
            self._keep({day: row for day, row in self._known.items() if day not in self._asked})
        events = self._sources.settled(self._sources.read(*self._read_days()))
        self._write(self._rows.compute(events, self._first, self._last))

    def _renew_rows(self, persons: DataFrame, events: DataFrame) -> None:
        """Replace the rows of some persons by those that they have by these events, among which are all of theirs."""
        table = self._rows.table
        settled = among(self._sources.settled(events), persons, "user_id")
        new = self._rows.compute(settled, self._first, self._last).select(*table.column_names)
        if self._rows.changes:
            self._renew_changed(persons, new, self._rows.changes)
        else:
            self._write(without(self._there(), persons, "user_id").union(new))

    def _renew_changed(self, persons: DataFrame, new: DataFrame, changes: Table) -> None:
        """Write what is other than before of some persons' rows; where they have all that they had, it is added."""
        table, engine, day = self._rows.table, self._engine, str(self._rows.table.day)
        before = self._lake.snapshot(table)
        new, old = engine.persist(new), engine.persist(among(self._there(), persons, "user_id"))
        added, removed = engine.persist(unlike(new, old)), engine.persist(unlike(old, new))
        got, lost = (
            Days.of(engine.to_arrow(rows.select(day).distinct())[day].to_pylist())
            for rows in (added, removed)
        )
        commits = 0
        if lost.ranges or (got.ranges and self._files() >= MOST_FILES):
            rows = without(self._there(), persons, "user_id").union(new)
            for first, last in Days.of([*got, *lost]).ranges:
                self._lake.replace(table, between(rows, day, first, last), days=(first, last))
                commits += 1
        elif got.ranges:
            self._lake.append(table, added)
            commits += 1
        after = self._lake.snapshot(table)
        if after.version != before.version + commits:
            # Adding comes into no conflict with another run, which may have added the same.
            self._renew_whole()
        else:
            if commits:
                keep_changes(self._lake, changes, added, removed, files_by(before, day), files_by(after, day))
            self._record_days()
        for df in (removed, added, old, new):
            engine.release(df)

    def _there(self) -> DataFrame:
        table = self._rows.table
        return between(self._lake.read(table), str(table.day), self._first, self._last)

    def _files(self) -> int:
        """Return how many files the day has that has most."""
        table = self._rows.table
        files = self._lake.snapshot(table).files
        if not files.num_rows:
            return 0
        days = files[f"partition.{table.day}"].cast(pa.date32()).to_pylist()
        return max(Counter(day for day in days if self._first <= day <= self._last).values(), default=0)

    def _write(self, df: DataFrame) -> None:
        self._lake.replace(self._rows.table, df, days=(self._first, self._last))
        self._record_days()

    def _record_days(self) -> None:
        """Keep what the days are made from now."""
        table = self._rows.table
        now = self._lake.snapshot(table)
        there = now.rows_by(str(table.day))
        made = {day: self._record(day, now.version, there.get(day, 0)) for day in self._asked}
        others = {day: row for day, row in self._known.items() if day not in made}
        self._keep(others | {day: row for day, row in made.items() if row})

    def _keep(self, records: Mapping[date, _Record]) -> None:
        self._known = dict(records)
        rows = [records[day] for day in sorted(records)]
        inputs = self._rows.inputs
        self._lake.replace_rows(inputs, pa.Table.from_pylist(rows, schema=inputs.arrow))

    def _record(self, day: date, table_version: int, rows: int) -> _Record | None:
        """Return what a day is made from now; None where that cannot be said."""
        made_from = [{"events_batch": self._sources.events.batch, "ties_batch": self._sources.ties.batch}]
        for other_day, record in self._made_with(day).items():
            if record is None or record["rules"] != self._rules(other_day):
                return None
            made_from.append(record)
        batch, ties_batch = (min(row[name] for row in made_from) for name in ("events_batch", "ties_batch"))
        return {
            "report_date": day,
            "events_batch": batch,
            "ties_batch": ties_batch,
            "events": self._fingerprint(day, batch),
            "rules": self._rules(day),
            "version": table_version,
            "rows": rows,
        }

    def _made_with(self, day: date) -> dict[date, _Record | None]:
        """Return the records of the other table's days that a day is made with, but for days without events."""
        if self._rows.made_with is None:
            return {}
        _, before = self._rows.made_with
        days = (day - timedelta(days=number) for number in range(before + 1))
        return {its: self._others.get(its) for its in days if its in self._batches}

    @cached_property
    def _others(self) -> dict[date, _Record]:
        assert self._rows.made_with
        inputs, _ = self._rows.made_with
        return {row["report_date"]: row for row in self._lake.rows(inputs).to_pylist()}

    def _fingerprint(self, day: date, batch: int) -> str:
        """Return a hash of the events up to a batch that the day's rows depend on."""
        around = Days((_widened((day, day), self._rows.reach),))
        return hash_of(
            [
                [other.isoformat(), [its for its in self._batches.get(other, ()) if its[0] <= batch]]
                for other in around
            ]
        )

    def _rules(self, day: date) -> str:
        return self._sources.rules(day + timedelta(days=self._rows.reach[1]))


def _widened(days: Range, by: tuple[int, int]) -> Range:
    """Return the days from some before a first to some after a last one."""
    return days[0] - timedelta(days=by[0]), days[1] + timedelta(days=by[1])


def hash_of(values: Iterable[Any]) -> str:
    """Return the hash of values by which it is known that they are others."""
    return sha256(json.dumps(values, default=str).encode()).hexdigest()[:32]
