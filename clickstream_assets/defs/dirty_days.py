"""The sensor that has dirty days computed again: late events and new ones are treated alike.

`events` reports the days that its new rows make dirty. `dirty_days` collects them and asks for one `refresh` run at a
time, each over a range of days in a row, with all that rests on them: the tables of all time, the models, and what
is served. So no report is older than the carts and customers in it, and no day keeps another waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from pydantic import BaseModel

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.defs.dagster_private import FIRST_PARTITION_TAG, LAST_PARTITION_TAG
from clickstream_assets.defs.jobs import refresh
from clickstream_assets.defs.partitions import daily
from clickstream_assets.defs.runs import (
    blocking_checks,
    look_until_due,
    metadata_value,
    under_way,
    wait_after_failures,
)
from clickstream_assets.settings import load_settings

REQUEST_TAG = "clickstream/refresh_request"
REPORTS_READ_PER_TICK = 500
LONGEST_GAP = timedelta(days=3)


class RefreshState(BaseModel):
    """The sensor's cursor."""

    seen: int = 0
    """Storage id of the last materialization of `events` that was taken in."""
    pending: list[date] = []
    """Days to bring up to date, each once; first the one that has waited longest."""
    requested: set[date] = set()
    """Days of the run that was asked for last; they return to `pending` unless it succeeds."""
    newest_is_next: bool = True
    """The next run is of the newest days; where false, of those that have waited longest. They take turns."""
    request_id: str = ""
    requested_at: float = 0
    """Seconds since 1970."""

    def put_behind(self, days: Iterable[date]) -> None:
        """Put days behind those that wait already."""
        self.pending = list(dict.fromkeys([*self.pending, *sorted(days)]))


def next_range(waiting: Sequence[date], newest: bool) -> tuple[date, date]:
    """Return the first and last of the days around the newest or the one that has waited longest, up to longer gaps.

    In turn: hundreds of stray old days do not keep today waiting, and today, which is dirty again while it is computed
    under steady traffic, does not keep the others waiting for ever.

    Recomputing a gap of up to three days is cheaper than starting a second run.
    """
    chosen = max(waiting) if newest else waiting[0]
    days = sorted(waiting)
    number = days.index(chosen)
    return _last_without_gap(chosen, reversed(days[:number])), _last_without_gap(chosen, days[number + 1 :])


def _last_without_gap(day: date, onward: Iterable[date]) -> date:
    for another in onward:
        if abs(another - day) > LONGEST_GAP:
            break
        day = another
    return day


@dg.sensor(
    name="dirty_days",
    job=refresh,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a refresh run for the days that new events make dirty.",
)
def dirty_days_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Ask for the days that `events` reported, one run at a time; a failed run's days are asked for again.

    Nothing is asked for before the blocking checks of `events` have passed on what it holds.
    """
    state = RefreshState.model_validate_json(context.cursor) if context.cursor else RefreshState()
    return look_until_due(lambda: _look(context, state))


def _look(context: dg.SensorEvaluationContext, state: RefreshState) -> dg.SensorResult:
    _take_in_reports(context.instance, state)
    _settle_request(context.instance, state)

    def skip(reason: str) -> dg.SensorResult:
        return dg.SensorResult(skip_reason=reason, cursor=state.model_dump_json())

    if not state.pending:
        return skip("every day is up to date")
    if run_id := under_way(context.instance, refresh.name):
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
    possible = [day for day in state.pending if daily().has_partition_key(day.isoformat())]
    if not possible:
        return skip(f"{len(state.pending)} days wait for their time to come")

    first, last = next_range(possible, state.newest_is_next)
    state.newest_is_next = not state.newest_is_next
    state.requested = {day for day in possible if first <= day <= last}
    state.pending = [day for day in state.pending if day not in state.requested]
    state.requested_at = time.time()
    state.request_id = f"{first}/{last}@{state.requested_at:.3f}"
    return dg.SensorResult(
        cursor=state.model_dump_json(),
        run_requests=[
            dg.RunRequest(
                run_key=state.request_id,
                tags={
                    FIRST_PARTITION_TAG: first.isoformat(),
                    LAST_PARTITION_TAG: last.isoformat(),
                    REQUEST_TAG: state.request_id,
                },
            )
        ],
    )


def _take_in_reports(instance: dg.DagsterInstance, state: RefreshState) -> None:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(EVENTS.name), after_storage_id=state.seen),
        limit=REPORTS_READ_PER_TICK,
        ascending=True,
    ).records
    for record in records:
        state.seen = record.storage_id
        days = metadata_value(record.event_log_entry, "dirty_days") or []
        state.put_behind(date.fromisoformat(day) for day in days)


def _settle_request(instance: dg.DagsterInstance, state: RefreshState) -> None:
    """Forget the requested days when their run has succeeded; take them back when it failed or never was."""
    if not state.requested:
        return
    runs = instance.get_runs(RunsFilter(tags={REQUEST_TAG: state.request_id}), limit=1)
    if runs and not runs[0].is_finished:
        return
    if not runs or runs[0].status != DagsterRunStatus.SUCCESS:
        # Behind the others: days that fail each time must not keep those waiting.
        state.put_behind(state.requested)
    state.requested = set()
