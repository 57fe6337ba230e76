"""What a run is about: which days, and which version of the events all of its tables are made from."""

from __future__ import annotations

from datetime import date
from typing import TypeAlias

import dagster as dg

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import EVENTS, SESSIONS, Table
from clickstream_assets.defs.dagster_private import FIRST_PARTITION_TAG, LAST_PARTITION_TAG, PARTITION_TAG
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.engine import DataFrame
from clickstream_assets.stores.lake import Lake

Days: TypeAlias = tuple[date, date] | None
"""The first and the last day; None for all that there are."""
EVENTS_VERSION = "events_version"
"""Metadata of `sessions`: the version of `events` that they were made from."""


def run_days(context: dg.AssetCheckExecutionContext) -> Days:
    """The days of the run that a check is part of; all, where somebody runs the check by itself."""
    tags = context.run.tags
    day = tags.get(PARTITION_TAG)
    first, last = tags.get(FIRST_PARTITION_TAG, day), tags.get(LAST_PARTITION_TAG, day)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None


def rows_of(lake: Lake, table: Table, days: Days) -> DataFrame:
    """The rows of some days of a table that has days."""
    rows = lake.read(table)
    (column,) = table.partition_by
    return between(rows, column, *days) if days else rows


def events_version(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The version of the events that the run's sessions were made from; None, for the newest, where it made none.

    Events come in while a run is under way. Were each of its tables made from the newest, their sums would differ
    though nothing is wrong; what came in later is reported, and asked for by another run.
    """
    event = instance.get_latest_materialization_event(dg.AssetKey(SESSIONS.name))
    return metadata_value(event, EVENTS_VERSION) if event and event.run_id == run_id else None


def check_events(context: dg.AssetCheckExecutionContext, lake: Lake) -> DataFrame:
    """The events that the run's tables were made from."""
    return lake.read(EVENTS, events_version(context.instance, context.run.run_id))
