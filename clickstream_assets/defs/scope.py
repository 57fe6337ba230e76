"""The scope of a run: its days, its batches, and the version of the events that its tables are made from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Self, TypeAlias

import dagster as dg

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.analytics.persons import between, within
from clickstream_assets.catalogue import EVENTS, SESSIONS, SHOPPER_EVENTS, Table
from clickstream_assets.defs.dagster_private import last_evaluation
from clickstream_assets.defs.partitions import REQUEST_TAG, Days, days_of, replace_days
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.money import priced
from clickstream_assets.ingest.ties import persons_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

Context: TypeAlias = dg.AssetExecutionContext | dg.AssetCheckExecutionContext
EVENTS_VERSION = "events_version"
TIES_VERSION = "identity_ties_version"
MONEY_VERSION = "exchange_rates_version"
"""Metadata of `sessions`: the versions of `events`, `identity_ties` and `exchange_rates` that they were made from."""
DIRTY_DAYS = "dirty_days"
"""Metadata of `events`: the days that a batch has made dirty; the sensor of defs/dirty_days.py takes them in."""
SETTINGS = "settings"
"""Metadata of `events`: the settings that change days already computed, as they were when it was reported."""
REPLACED_FROM = "replaced_from"
"""Metadata of a table of days that has no partitions: the first day that was replaced, or NO_DAY."""
NO_DAY = "no day has changed"
PUT_BACK_AT = "put_back_at"
"""Metadata of `events`: when the lake was last found to hold less than was reported before; seconds since 1970."""
FULL_AUDIT_EVERY = timedelta(hours=24)


def run_days(context: dg.AssetCheckExecutionContext) -> Days | None:
    """Return the days of the run that a check is part of; None for all, where somebody runs the check by itself."""
    days = days_of(context)
    return days if days.ranges else None


def replaced_days(context: dg.AssetCheckExecutionContext, asset: str) -> Days | None:
    """Return the days that an asset without partitions replaced in this run; None for all, where it does not say."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey(asset))
    first = metadata_value(event, REPLACED_FROM) if event and event.run_id == context.run.run_id else None
    if first is None:
        return None
    return Days(((date.fromisoformat(first) if first != NO_DAY else date.max, date.max),))


def rows_of(lake: Lake, table: Table, days: Days | None) -> DataFrame:
    """Return the rows of some days, or of all; of a table without days, all."""
    rows = lake.read(table)
    return within(rows, table.day, days.ranges) if table.day and days else rows


def is_asked_for_by_a_person(context: dg.AssetExecutionContext) -> bool:
    """Return whether a person asked for the run, and so for its days whatever they were made from."""
    return REQUEST_TAG not in context.run.tags


def run_events(context: Context, lake: Lake) -> DataFrame:
    """Return the events that the run's tables are made from, in the shop's money.

    They are those that its sessions, if it made any, were made from.

    Events come in while a run is under way. Were each of its tables made from the newest, their sums would differ
    though nothing is wrong; what came in later is reported, and asked for by another run.
    """
    events = lake.read(EVENTS, reported_by_run(context, SESSIONS.name, EVENTS_VERSION))
    return priced(lake, events, reported_by_run(context, SESSIONS.name, MONEY_VERSION))


def run_batch(context: Context, lake: Lake) -> int:
    """Return the last batch of the events that the run's tables are made from."""
    return lake.snapshot(EVENTS, version=reported_by_run(context, SESSIONS.name, EVENTS_VERSION)).batch


def run_persons(context: Context, lake: Lake, settings: Settings, days: Days | None) -> DataFrame:
    """Return the rows of `run_events` of some days, or of all, with persons: by the ties that its sessions have."""
    events = run_events(context, lake)
    of_days = within(events, "event_date", days.ranges) if days else events
    ties = reported_by_run(context, SESSIONS.name, TIES_VERSION)
    return persons_of(lake, of_days, IdentityRules.of(settings), ties)


def reported_by_run(context: Context, asset: str, name: str) -> Any:
    """Return a metadata value of an asset that the run has made; None where it has not."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey(asset))
    is_of_run = event is not None and event.run_id == context.run.run_id
    return metadata_value(event, name) if is_of_run else None


def replace_days_from_shopper_events(
    context: dg.AssetExecutionContext, lake: Lake, table: Table, compute: Callable[[DataFrame], DataFrame]
) -> None:
    """Replace the rows of the run's days by those that `compute` makes of these days' shopper_events."""
    replace_days(
        context,
        lake,
        table,
        lambda first, last: compute(between(lake.read(SHOPPER_EVENTS), "event_date", first, last)),
    )


@dataclass(frozen=True)
class Passed:
    """The findings of a check of ingest batches when it last passed; none where it has to look at everything.

    Each ingest looks at the batches that have come since, so that its time grows with what is new; once in
    FULL_AUDIT_EVERY it looks at all of them.
    """

    batch: int
    """Last batch that it has looked at."""
    audited_at: float
    """The time at which it looked at all batches; seconds since 1970."""
    metadata: dict[str, Any]

    @classmethod
    def of(cls, context: dg.AssetCheckExecutionContext, check: dg.AssetCheckKey, newest: int) -> Self:
        """Take it from the check's last evaluation that passed.

        Args:
            context: knows the instance.
            check: the check.
            newest: the last batch that the lake holds; a lake of fewer batches than were looked at is another one, and
                so is one that was put back to an earlier time since.
        """
        now = time.time()
        evaluation = last_evaluation(context.instance, check, passed_only=True)
        metadata: dict[str, Any] = (
            {name: value.value for name, value in evaluation.metadata.items()} if evaluation else {}
        )
        batch, audited_at = metadata.get("batch", 0), metadata.get("audited_at", 0.0)
        report = context.instance.get_latest_materialization_event(dg.AssetKey(EVENTS.name))
        is_of_another_lake = batch > newest or audited_at < (metadata_value(report, PUT_BACK_AT) or 0)
        if is_of_another_lake or now - audited_at > FULL_AUDIT_EVERY.total_seconds():
            return cls(0, now, {})
        return cls(batch, audited_at, metadata)

    def progress(self, newest: int) -> dict[str, Any]:
        """Return the metadata that the next evaluation goes on from."""
        return {"batch": newest, "first_batch": self.batch + 1, "audited_at": self.audited_at}
