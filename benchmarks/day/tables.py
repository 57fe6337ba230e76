"""The day's tables as the pipeline makes them: its assets, called one after another in one process, as a run does.

    LAKE_PATH=… COMPUTE_ENGINE=duckdb python -m benchmarks.day.tables sessions carts …
    LAKE_PATH=… python -m benchmarks.day.tables --late sessions carts …

What an asset takes is all that it does: it reads from the lake, writes to it, and counts rows for Dagster; and some
0.1 s for the run of each by itself. Not measured are the imports, and the engine's start, which a run has once.

`identity_ties` is what the ingest of the events takes to find who is who. `persons` reads all columns of the day's
events with their persons, and `as_sent` without: what is between them is what persons take of `sessions`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import date

import dagster as dg
import pyarrow as pa

from benchmarks.day.events import DAY
from benchmarks.day.usage import used_by
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import EVENTS
from clickstream_assets.defs.partitions import REQUEST_TAG
from clickstream_assets.defs.reports.assets import (
    category_conversion,
    daily_summary,
    funnel,
    product_performance,
)
from clickstream_assets.defs.reports.attribution import campaign_attribution, campaign_touches
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.defs.segments.assets import cohort_retention, customer_segments, user_segments
from clickstream_assets.defs.sessions.assets import carts, sessions, shopper_events
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.reach import dirty_days
from clickstream_assets.ingest.ties import persons_of, update_ties
from clickstream_assets.stores.lake import Lake

ASSETS: dict[str, dg.AssetsDefinition] = {
    asset.key.to_user_string(): asset
    for asset in (
        sessions,
        shopper_events,
        carts,
        user_segments,
        customer_segments,
        cohort_retention,
        product_performance,
        category_conversion,
        funnel,
        campaign_attribution,
        daily_summary,
    )
}
"""In an order in which each comes after those that it reads."""
READ_BY_ONE = {campaign_attribution: [campaign_touches]}
"""Assets that are made with the one that reads them, and counted with it."""
READ_BY_OTHERS = ("sessions", "shopper_events", "user_segments", "customer_segments")


def maker(
    name: str, settings: SettingsResource, lake: LakeResource, days: list[date], instance: dg.DagsterInstance
) -> Callable[[], None]:
    """Return what runs one asset, for each of the days where it is made by days."""
    asset = ASSETS[name]
    resources = {"settings": settings, "lake": lake}

    def make() -> None:
        for key in map(str, days) if asset.partitions_def else [None]:
            dg.materialize(
                [*READ_BY_ONE.get(asset, []), asset],
                partition_key=key,
                resources=resources,
                instance=instance,
                # As the sensor asks for it.
                tags={REQUEST_TAG: "day"},
            )

    return make


def days_of_last_batch(settings: SettingsResource, lake: Lake) -> list[date]:
    """Return, as the ingest asks for them, the days that the last batch of events makes dirty."""
    last = lake.snapshot(EVENTS).batch
    return dirty_days(lake, last - 1, settings.get())


def warm_up(lake: Lake) -> None:
    """Start what a process starts once: the engine, and imports that come late."""
    events = lake.read(EVENTS)
    F, _ = functions_of(events)
    first = events.groupBy("user_id").agg(F.min("event_time").alias("first")).limit(1)
    lake.engine.to_arrow(as_view(first))
    lake.snapshot(EVENTS)


def read_through(lake: Lake, events: DataFrame) -> None:
    """Compute all columns of EVENTS rows, and keep nothing."""
    F, _ = functions_of(events)
    flat = [field.name for field in EVENTS.arrow if not pa.types.is_nested(field.type)]
    lake.engine.to_arrow(as_view(events.agg(*(F.max(name).alias(name) for name in flat))))


def main() -> None:
    """Make the tables that are asked for, and, without measuring, those that they read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=ASSETS)
    parser.add_argument("--late", action="store_true", help="recompute what the last batch of events reaches")
    arguments = parser.parse_args()
    settings = SettingsResource()
    lake = LakeResource(settings=settings, compute=ComputeResource(settings=settings))
    figures = {"start": used_by(lambda: warm_up(lake.get()))}
    days = [DAY]
    rules = IdentityRules.of(settings.get())
    figures["identity_ties"] = used_by(lambda: update_ties(lake.get(), rules))
    if not arguments.late:
        events = lake.get().read(EVENTS)
        figures["as_sent"] = used_by(lambda: read_through(lake.get(), events))
        figures["persons"] = used_by(lambda: read_through(lake.get(), persons_of(lake.get(), events, rules)))
    if arguments.late:

        def ask() -> None:
            days[:] = days_of_last_batch(settings, lake.get())

        figures["dirty_days"] = used_by(ask)
    with dg.DagsterInstance.ephemeral() as instance:
        for name in ASSETS:
            make = maker(name, settings, lake, days, instance)
            if name in arguments.tables:
                figures[name] = used_by(make)
            elif name in READ_BY_OTHERS and not arguments.late:
                make()
    print(json.dumps({"days": [str(day) for day in days], "tables": figures}))


if __name__ == "__main__":
    main()
