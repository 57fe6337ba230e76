"""Erasure of persons: their records first, then, by the days that have lost some, all that is made of them."""

from __future__ import annotations

import dagster as dg

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import ERASED_EXPOSURES, ERASED_RECORDS
from clickstream_assets.defs.assets import FRESH_DAILY, Metadata, table_asset
from clickstream_assets.defs.jobs import erase
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import DIRTY_DAYS
from clickstream_assets.ingest import erasure as records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres import erasures, pseudonyms

ERASURE = "erasure"
"""Metadata of `erased_records`: the number of the last erasure whose days were reported."""


@table_asset(
    ERASED_RECORDS, ERASED_EXPOSURES, deps=["events", "experiment_exposures"], freshness_policy=FRESH_DAILY
)
def erased_records(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """Places of the records of persons who asked to be erased; what they said is gone from the lake.

    Takes in the requests of `clickstream erase`, all that wait together, and reports the days whose events are fewer
    now: these are computed anew as those of late events are.
    """
    reported = context.instance.get_latest_materialization_event(dg.AssetKey(ERASED_RECORDS.name))
    since = metadata_value(reported, ERASURE) or 0
    waiting = [each for each in erasures.unfinished(settings) if each.number > since or not each.erased_at]
    rules, reading = IdentityRules.of(settings), ValidationRules.of(settings)
    numbers = [each.number for each in waiting]
    for each in waiting:
        who = records.identify(lake, each.persons)
        records.note(lake, each.number, records.records_of(lake, who, rules, reading))
        records.note(lake, each.number, records.exposures_of(lake, who), records.OF_EXPOSURES)
        if settings.pseudonyms:
            # Not with the request: what the lake had not taken in by then, and what API workers remember, is found by
            # them. And before the events are gone, which say which sessions were theirs.
            sessions = records.sessions_of(lake, each.number)
            pseudonyms.forget(settings, who.users | who.visitors | who.sessions | sessions)
        records.untie(lake, who)
        LiveEvents(settings).erase(who.users, who.visitors, who.sessions)
    days = records.take_out(lake, numbers)
    records.take_out(lake, numbers, records.OF_EXPOSURES)
    places = {number: records.places_of(lake, number) for number in numbers}
    erasures.keep_places(settings, places)
    return {
        ERASURE: max([since, *numbers]),
        "erasures": len(numbers),
        "records": sum(its.num_rows for its in places.values()),
        DIRTY_DAYS: [day.isoformat() for day in days],
    }


def erase_again(lake: Lake, settings: Settings) -> None:
    """Take out of a lake that was made anew, or put back, the records of erasures that it does not know.

    Raises:
        PostgresError: the database cannot be reached, which knows where they are.
    """
    for kind in records.KINDS:
        known = lake.snapshot(kind.erased).batch
        for number, places in erasures.places_after(settings, known).items():
            records.note(lake, number, records.records_at(lake, places, kind), kind)
            records.take_out(lake, [number], kind)


nightly_erasure = dg.ScheduleDefinition(
    name="nightly_erasure",
    job=erase,
    cron_schedule="30 2 * * *",
    execution_timezone=load_settings().shop_time_zone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Erases who asked for it since yesterday: at 02:30 of SHOP_TIME_ZONE.",
)
