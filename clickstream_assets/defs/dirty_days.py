"""The sensor that has dirty days computed again: late events and new ones are treated alike.

`events` reports the days that its new rows make dirty. `dirty_days` collects them and asks for one `refresh` run at a
time, each with all that rests on its days but models: the tables of all time, and what is served. So no report is
older than the carts and customers in it, and no day keeps another waiting. When all is done it asks for the days that
were never made because nothing happened on them, so that a day that is missing in Dagster is one that lacks something.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from pydantic import BaseModel

from clickstream_assets.catalogue import ERASED_RECORDS, EVENTS, Table
from clickstream_assets.defs.dagster_private import FIRST_PARTITION_TAG, LAST_PARTITION_TAG, sensor_cursors
from clickstream_assets.defs.jobs import refresh, train
from clickstream_assets.defs.models.due import verdict_now
from clickstream_assets.defs.partitions import MORE_DAYS_TAG, REQUEST_TAG, Days, Range, daily
from clickstream_assets.defs.runs import (
    blocking_checks,
    look_until_due,
    metadata_value,
    under_way,
    wait_after_failures,
)
from clickstream_assets.defs.scope import DIRTY_DAYS
from clickstream_assets.settings import load_settings

SENSOR = "dirty_days"
REPORTS_READ_PER_TICK = 500
LONGEST_GAP = timedelta(days=3)
# Of so many ranges the tag that names them, of 22 bytes each, fits into an entry of PostgreSQL's index of tags (2,704).
MOST_RANGES = 100


class RefreshState(BaseModel):
    """The sensor's cursor."""

    seen: int = 0
    """Storage id of the last materialization of `events` that was taken in."""
    seen_erased: int = 0
    """The same of `erased_records`."""
    pending: list[date] = []
    """Days to bring up to date, each once; first the one that has waited longest."""
    requested: set[date] = set()
    """Days of the run that was asked for last; they return to `pending` unless it succeeds."""
    newest_is_next: bool = True
    """The next run is of the newest days; where false, of those that have waited longest. They take turns."""
    newest: date = date.min
    """The newest day that was ever asked for; older ones stand in line."""
    ranges_at_once: int = MOST_RANGES
    """Ranges that a run takes at most; fewer after it failed, until the days that make it fail are by themselves."""
    failed: set[date] = set()
    """Days whose last run failed; where they wait in line, those that have not failed come before."""
    filled: date | None = None
    """The day of which days that were never made were last asked for."""
    request_id: str = ""
    requested_at: float = 0
    """Seconds since 1970."""

    @property
    def begun(self) -> list[date]:
        """The pending days that can be computed: not tomorrow, into which a visit of today can reach."""
        return [day for day in self.pending if daily().has_partition_key(day.isoformat())]

    def put_behind(self, days: Iterable[date]) -> None:
        """Put days behind those that wait already."""
        self.pending = list(dict.fromkeys([*self.pending, *sorted(days)]))


def next_days(
    waiting: Sequence[date], newest: bool, most_ranges: int, failed: set[date] | frozenset[date] = frozenset()
) -> list[Range]:
    """Return the ranges of days to bring up to date next: the newest, or those that have waited longest.

    In turn: hundreds of stray old days do not keep today waiting, and today, which is dirty again while it is computed
    under steady traffic, does not keep the others waiting for ever. Those take one run together, since what rests on
    all days is made again with every run.

    Args:
        waiting: days, each once; first the one that has waited longest.
        newest: which of the two.
        most_ranges: how many ranges at most, where it is not the newest.
        failed: days whose last run failed; the others come before.
    """
    ranges = _ranges(waiting)
    if newest:
        return ranges[-1:]
    place = {day: number for number, day in enumerate(waiting)}

    def days_in(its: Range) -> Iterable[date]:
        return (day for day in waiting if its[0] <= day <= its[1])

    ranges.sort(key=lambda its: min(place[day] for day in days_in(its)))
    return [its for its in ranges if not failed.intersection(days_in(its))][:most_ranges] or ranges[
        :most_ranges
    ]


def _ranges(days: Collection[date]) -> list[Range]:
    """Put days together to ranges, in order. Recomputing a gap of up to three days is cheaper than a range more."""
    ranges: list[Range] = []
    for day in sorted(days):
        if ranges and day - ranges[-1][1] <= LONGEST_GAP:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


@dg.sensor(
    name=SENSOR,
    job=refresh,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a refresh run for the days that new events make dirty.",
)
def dirty_days_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Ask for the days that `events` reported, one run at a time; a failed run's days are asked for again.

    When none is left, once a day, for those up to today that were never made.

    Nothing is asked for before the blocking checks of `events` have passed on what it holds.
    """
    state = RefreshState.model_validate_json(context.cursor) if context.cursor else RefreshState()
    return look_until_due(lambda: _look(context, state))


def _look(context: dg.SensorEvaluationContext, state: RefreshState) -> dg.SensorResult:
    _take_in_reports(context.instance, state)
    _settle_request(context.instance, state)

    def skip(reason: str) -> dg.SensorResult:
        return dg.SensorResult(skip_reason=reason, cursor=state.model_dump_json())

    run_id = under_way(context.instance, refresh.name)
    if not run_id and not state.begun:
        _take_in_days_never_made(context, state)
    if not state.pending:
        return skip("every day is up to date")
    possible = state.begun
    if not possible:
        return skip(f"{len(state.pending)} days wait for their time to come")
    if run_id:
        return skip(f"run {run_id} is under way; {len(state.pending)} days wait")
    for check, passed in blocking_checks(context, dg.AssetKey(EVENTS.name), state.seen).items():
        if not passed:
            verdict = "has not been carried out yet" if passed is None else "failed"
            return skip(f"check {check} of {EVENTS.name} {verdict}; {len(state.pending)} days wait")
    if wait := wait_after_failures(context.instance, refresh.name, time.time()):
        return skip(f"the last run failed; trying again in {wait:.0f} s")
    rest = state.requested_at + load_settings().refresh_interval_seconds - time.time()
    if rest > 0:
        return skip(f"REFRESH_INTERVAL_SECONDS leaves {rest:.0f} s; {len(state.pending)} days wait")

    newest = state.newest_is_next and max(possible) >= state.newest
    ((first, last), *more) = next_days(possible, newest, state.ranges_at_once, state.failed)
    state.newest_is_next = not newest
    state.newest = max(state.newest, last)
    asked = Days(tuple(sorted([(first, last), *more])))
    state.requested = {day for day in possible if day in asked}
    state.pending = [day for day in state.pending if day not in state.requested]
    state.requested_at = time.time()
    state.request_id = f"{first}/{last}@{state.requested_at:.3f}"
    tags = {
        FIRST_PARTITION_TAG: first.isoformat(),
        LAST_PARTITION_TAG: last.isoformat(),
        REQUEST_TAG: state.request_id,
    }
    if more:
        tags[MORE_DAYS_TAG] = str(Days(tuple(sorted(more))))
    return dg.SensorResult(
        cursor=state.model_dump_json(), run_requests=[dg.RunRequest(run_key=state.request_id, tags=tags)]
    )


def _take_in_reports(instance: dg.DagsterInstance, state: RefreshState) -> None:
    state.seen = _take_in(instance, state, EVENTS, state.seen)
    state.seen_erased = _take_in(instance, state, ERASED_RECORDS, state.seen_erased)


def _take_in(instance: dg.DagsterInstance, state: RefreshState, table: Table, seen: int) -> int:
    """Put the days that an asset has reported since behind those that wait; return what is seen now."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(table.name), after_storage_id=seen),
        limit=REPORTS_READ_PER_TICK,
        ascending=True,
    ).records
    for record in records:
        seen = record.storage_id
        days = metadata_value(record.event_log_entry, DIRTY_DAYS) or []
        state.put_behind(date.fromisoformat(day) for day in days)
    return seen


def runs_not_taken_in(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs that reported dirty days which the sensor has yet to take in: these must not be lost."""
    states = [RefreshState.model_validate_json(cursor) for cursor in sensor_cursors(instance, SENSOR)]
    seen = {
        EVENTS.name: max((state.seen for state in states), default=0),
        ERASED_RECORDS.name: max((state.seen_erased for state in states), default=0),
    }
    found: set[str] = set()
    for table, last in seen.items():
        cursor, more = None, True
        asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(table), after_storage_id=last)
        while more:
            page = instance.fetch_materializations(asked, limit=REPORTS_READ_PER_TICK, cursor=cursor)
            found.update(record.run_id for record in page.records)
            cursor, more = page.cursor, page.has_more
    return found


def _settle_request(instance: dg.DagsterInstance, state: RefreshState) -> None:
    """Forget the requested days when their run has succeeded; take them back when it failed or never was."""
    if not state.requested:
        return
    runs = instance.get_runs(RunsFilter(tags={REQUEST_TAG: state.request_id}), limit=1)
    if runs and not runs[0].is_finished:
        return
    ranges = len(_ranges(state.requested))
    if runs and runs[0].status == DagsterRunStatus.SUCCESS:
        state.failed -= state.requested
        if ranges >= state.ranges_at_once:
            state.ranges_at_once = min(MOST_RANGES, ranges * 2)
    else:
        # Behind the others: days that fail each time must not keep those waiting.
        state.put_behind(state.requested)
        state.failed |= state.requested
        if ranges > 1:
            state.ranges_at_once = ranges // 2
    state.requested = set()


def _take_in_days_never_made(context: dg.SensorEvaluationContext, state: RefreshState) -> None:
    """Put those days in line, once a day, that a daily asset has no materialization of, as nothing happened on them.

    These are the days before the first event, those between on which nobody came, and today. A house without an event
    has nothing to make. There can be thousands, so what is new is trained on first.
    """
    days = daily().get_partition_keys()
    if not days or not state.requested_at or context.repository_def is None:
        return
    today = date.fromisoformat(days[-1])
    if state.filled and state.filled >= today:
        return
    if _is_to_be_trained(context.instance):
        return
    graph = context.repository_def.asset_graph
    job = context.repository_def.get_job(refresh.name)
    assets = [key for key in job.asset_layer.selected_asset_keys if graph.get(key).partitions_def]
    made = set.intersection(*(context.instance.get_materialized_partitions(asset) for asset in assets))
    state.put_behind(date.fromisoformat(day) for day in days if day not in made)
    state.filled = today


def _is_to_be_trained(instance: dg.DagsterInstance) -> bool:
    """Return whether a training is under way, or due and not waiting after a failure."""
    if under_way(instance, train.name):
        return True
    is_due = verdict_now(instance, load_settings()).is_due
    return is_due and not wait_after_failures(instance, train.name, time.time())
