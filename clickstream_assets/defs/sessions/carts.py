"""Keeps the lake's carts right: follows the persons whose cart events have changed, from the first such day on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from clickstream_assets.analytics.carts import (
    CartRules,
    abandoned,
    cart_days,
    cart_events,
    cart_input,
    cart_states,
    carts,
    latest_states,
    overdue,
    states,
    steps,
)
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import (
    CART_DAYS,
    CART_INPUTS,
    CART_STATES,
    CART_STEPS,
    CARTS,
    SHOPPER_CHANGES,
    SHOPPER_EVENTS,
)
from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.defs.changes import NO_FILES, changes_since
from clickstream_assets.defs.differences import among, replace_rows, unlike, without
from clickstream_assets.defs.shopper_days import update_shopper_days
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.stores.lake import Lake

# Cart events that are followed at once, in Python, with what comes of them: some 600 MB.
EVENTS_PER_CHUNK = 500_000
ONE_DAY = timedelta(days=1)
_MADE = (CARTS, CART_STEPS, CART_STATES, CART_DAYS)


def update_carts(lake: Lake, rules: CartRules) -> date | None:
    """Bring `carts`, `cart_steps`, `cart_states` and `cart_days` up to date with `shopper_events`.

    A day whose events are not those that carts were made from (`cart_inputs`) concerns the persons alone whose own
    events of it have changed. These are followed anew from the first such day on, from their state before it. All rows
    that they had from then on are replaced; of the other persons' carts, those are abandoned whose time has come.

    This is not a table of partitions with a mapping to the day before: a run is asked for of the days whose events are
    new, and carts have to go on from the first of them to the newest, through days that the run does not have.

    Args:
        lake: where the tables are.
        rules: say when carts are abandoned and over, and which time it is.

    Returns:
        The first day of which `carts` or `cart_steps` has other rows than before; none if all are the same.
    """
    return _Update(lake, rules).run()


class _Update:
    def __init__(self, lake: Lake, rules: CartRules) -> None:
        self._lake = lake
        self._engine = lake.engine
        self._rules = rules
        self._as_of = EPOCH + rules.as_of * MICROSECOND
        self._events: dict[date, int] = {}
        self._files: dict[date, str] = {}
        """Hash of the files of each day of events, as they are."""
        self._files_before: dict[date, str] = {}
        """The same as they were when carts were made."""
        self._days_of_carts: list[date] = []
        self._days_of_steps: list[date] = []

    def run(self) -> date | None:
        all_days = update_shopper_days(self._lake).to_pylist()
        days = [row for row in all_days if row["events"]]
        self._events = {row["report_date"]: row["events"] for row in days}
        self._files = {row["report_date"]: row["files"] for row in all_days}
        now = {row["report_date"]: row["fingerprint"] for row in days}
        made, made_as_of = self._record()
        changed = [day for day in now.keys() | made.keys() if now.get(day) != made.get(day)]
        if not changed and made_as_of == self._as_of:
            return None
        # Without a record there can be anything.
        first = min([*changed, *([] if made else self._days_there())], default=None)
        if first:
            self._follow_from(first, changed, made, made_as_of)
        elif made_as_of:
            late = as_view(self._overdue(made_as_of))
            self._days_of_carts = replace_rows(self._lake, CARTS, late, abandoned(late, self._rules))
        if made_as_of:
            self._count(min([*self._days_of_steps, self._rules.clock.day_of(made_as_of)]))
        else:
            self._count(EPOCH.date())
        self._keep_record(now, self._as_of)
        return min([*self._days_of_carts, *self._days_of_steps], default=None)

    def _record(self) -> tuple[dict[date, str], datetime | None]:
        """Return what carts were made from, by day, and as of when; nothing where all have to be made anew."""
        rows = self._lake.rows(CART_INPUTS).to_pylist()
        as_of = max((row["as_of"].astimezone(UTC) for row in rows), default=None)
        is_other = any(row["rules"] != self._rules.text for row in rows)
        # A cart that was abandoned would have to be open again.
        is_early = as_of is not None and as_of > self._as_of
        if is_other or is_early or self._lake.is_lost(*_MADE):
            return {}, None
        self._files_before = {row["report_date"]: row["files"] or NO_FILES for row in rows}
        return {row["report_date"]: row["fingerprint"] for row in rows}, as_of

    def _keep_record(self, made: dict[date, str], as_of: datetime | None) -> None:
        for table in _MADE:
            if self._lake.is_lost(table):
                # Of a shop without carts: that there are none is written down too, or all would be asked again.
                self._lake.mark(table, {table.name: 0})
        rows = [
            {
                "report_date": day,
                "fingerprint": its,
                "files": self._files.get(day),
                "rules": self._rules.text,
                "as_of": as_of,
            }
            for day, its in made.items()
        ]
        self._lake.replace_rows(CART_INPUTS, pa.Table.from_pylist(rows, schema=CART_INPUTS.arrow))

    def _days_there(self) -> Iterator[date]:
        for table in (CARTS, CART_STATES, CART_STEPS):
            yield from self._lake.snapshot(table).rows_by(str(table.day))

    def _follow_from(
        self, first: date, changed: Collection[date], made: dict[date, str], made_as_of: datetime | None
    ) -> None:
        """Follow from the first day on, in chunks of days, the persons of whom any day's events have changed."""
        everything = followed = sum(its for day, its in self._events.items() if day >= first)
        is_much = everything > EVENTS_PER_CHUNK
        persons: DataFrame | None = None
        # Where all of many events are new, there are none to be left out.
        if made and not (is_much and first > max(made)):
            without_record = [day for day in changed if day not in made]
            persons = self._changed_persons(changed, without_record)
            followed = self._count_events(first, persons) if is_much else everything
        ranges = self._chunks(first, followed / max(1, everything))
        if made and len(ranges) > 1:
            # A chunk's states no longer say who has to be followed through the next: should this run be killed, the
            # next one has to follow all.
            self._keep_record({day: its for day, its in made.items() if day < first}, made_as_of)
        for start, end in ranges:
            self._follow(start, end, persons, made_as_of if end == date.max else None)
        if persons is not None:
            self._engine.release(persons)

    def _chunks(self, first: date, share: float) -> list[tuple[date, date]]:
        """Split the days from the first on, of whose events a share is followed; the last chunk has no end."""
        starts, held = [first], 0.0
        for day in sorted(day for day in self._events if day >= first):
            if held and held + self._events[day] * share > EVENTS_PER_CHUNK:
                starts.append(day)
                held = 0.0
            held += self._events[day] * share
        ends = [start - ONE_DAY for start in starts[1:]]
        return list(zip(starts, [*ends, date.max], strict=True))

    def _changed_persons(self, changed: Collection[date], without_record: Collection[date]) -> DataFrame:
        """Return `user_id`, computed, of whose cart events of a day are not those that their state was made from.

        Of days that there is no record of, all persons: what there is can be what a killed run has left. Of the others,
        where it is known who has other events at all, nobody else is looked at.
        """
        before = {day: self._files_before.get(day, NO_FILES) for day in changed}
        changes = None if without_record else changes_since(self._lake, SHOPPER_CHANGES, before, self._files)
        events = self._of(changes, self._lake.read(SHOPPER_EVENTS, days=changed))
        states = self._of(changes, self._lake.read(CART_STATES, days=changed))
        F, _ = functions_of(events)
        now = as_view(cart_input(events))
        made = as_view(states.select("state_date", "user_id", "fingerprint"))
        concerned = unlike(now, made).union(unlike(made, now))
        if without_record:
            is_unknown = F.col("state_date").isin(without_record)
            concerned = concerned.union(now.where(is_unknown)).union(made.where(is_unknown))
        persons = self._engine.persist(concerned.select("user_id").distinct())
        if changes is not None:
            self._engine.release(changes)
        return persons

    def _count_events(self, first: date, persons: DataFrame) -> int:
        rows = self._of(
            persons, cart_events(between(self._lake.read(SHOPPER_EVENTS), "event_date", first, date.max))
        )
        F, _ = functions_of(rows)
        counted = self._engine.to_arrow(rows.agg(F.count(F.lit(1)).cast("long").alias("events")))
        return int(counted["events"][0].as_py())

    @staticmethod
    def _of(persons: DataFrame | None, rows: DataFrame) -> DataFrame:
        """Return the rows of some persons; of all, where none are given."""
        return rows if persons is None else among(rows, persons, "user_id")

    def _follow(
        self, first: date, last: date, persons: DataFrame | None, made_as_of: datetime | None
    ) -> None:
        """Replace the rows of some days, and those of carts that go on into them; of some persons, or of all.

        If it is said since when, also abandon the carts of others whose time has come.
        """
        lake, engine = self._lake, self._engine
        oldest = self._rules.oldest_day(first)
        events = self._of(persons, between(lake.read(SHOPPER_EVENTS), "event_date", first, last))
        known = between(lake.read(CART_STATES), "state_date", oldest, first - ONE_DAY)
        if persons is None:
            # Of the others nothing happens in these days, be it by the clock.
            since = self._rules.clock.day_of(
                self._rules.clock.begin(first) - self._rules.abandoned_after * MICROSECOND
            )
            idle = between(known, "state_date", since, first - ONE_DAY).select("user_id")
            known = among(known, as_view(cart_events(events).select("user_id").union(idle)), "user_id")
        before = as_view(latest_states(self._of(persons, known)))
        followed = engine.persist(cart_states(engine, events, self._rules, before, (first, last)))
        new = carts(followed)
        there = self._of(persons, between(lake.read(CARTS), "last_activity_date", oldest, last))
        F, _ = functions_of(there)
        is_of_days = F.col("last_activity_date") >= F.lit(first)
        went_on = among(there.where(~is_of_days), new, "cart_id")
        old = as_view(there.where(is_of_days).union(went_on))
        if made_as_of:
            of_others = without(self._overdue(made_as_of), old, "cart_id")
            old, new = old.union(of_others), new.union(abandoned(of_others, self._rules))
        self._days_of_carts += replace_rows(lake, CARTS, old, new)
        # The states come last: by them it is known whose events have changed.
        for table, rows in ((CART_STEPS, steps(followed)), (CART_STATES, states(followed))):
            day = str(table.day)
            old = self._of(persons, between(lake.read(table), day, first, last))
            written = replace_rows(lake, table, old, rows)
            if table is CART_STEPS:
                self._days_of_steps += written
        engine.release(followed)

    def _overdue(self, made_as_of: datetime) -> DataFrame:
        """Return the carts, whosever they are, whose time has come since carts were last made."""
        idle = self._rules.abandoned_after * MICROSECOND
        first, last = (self._rules.clock.day_of(moment - idle) for moment in (made_as_of, self._as_of))
        return overdue(between(self._lake.read(CARTS), "last_activity_date", first, last), self._rules)

    def _count(self, first: date) -> None:
        """Count anew what happened to carts from a day on."""
        lake = self._lake
        before = lake.read(CART_DAYS)
        F, _ = functions_of(before)
        kept = before.where(F.col("report_date") < F.lit(first))
        counted = cart_days(between(lake.read(CART_STEPS), "step_date", first, date.max), self._rules)
        lake.replace(CART_DAYS, kept.union(counted))
