"""Erasure of persons: their records first, then, by the days that have lost some, all that is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import ERASED_EXPOSURES, ERASED_RECORDS
from clickstream_assets.defs.assets import FRESH_DAILY, Metadata, table_asset
from clickstream_assets.defs.jobs import erase
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import DIRTY_DAYS
from clickstream_assets.errors import InputError
from clickstream_assets.ingest import erasure as records
from clickstream_assets.ingest.erased_places import keep_places_of_lake
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.retention import kept_until
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
    keep_places_of_lake(lake, settings)
    reported = context.instance.get_latest_materialization_event(dg.AssetKey(ERASED_RECORDS.name))
    since = metadata_value(reported, ERASURE) or 0
    waiting = [each for each in erasures.unfinished(settings) if each.number > since or not each.erased_at]
    rules, reading = IdentityRules.of(settings), ValidationRules.of(settings)
    numbers = [each.number for each in waiting]
    live = LiveEvents(settings)
    shared: set[str] = set()
    for each in waiting:
        if each.erased_at:
            # By their places, as of a backup that was put back: what came since is of somebody new.
            continue
        who = records.identify(lake, each.persons)
        shared |= who.shared
        records.note(lake, each.number, records.records_of(lake, who, rules, reading))
        records.note(lake, each.number, records.exposures_of(lake, who), records.OF_EXPOSURES)
        if settings.pseudonyms:
            # Not with the request: what the lake had not taken in by then, and what API workers remember, is found by
            # them. And before the events are gone, which say which sessions were theirs.
            pseudonyms.forget(settings, records.sent_ids(lake, who, each.number))
        records.untie(lake, who)
        live.erase(who.users, who.visitors, who.sessions)
    touched = [table for kind in records.KINDS for table in (kind.raw, *kind.put_into)]
    before = {table.name: lake.version(table) for table in touched}
    days = records.take_out(lake, numbers)
    records.take_out(lake, numbers, records.OF_EXPOSURES)
    places = {number: records.places_of(lake, number) for number in numbers}
    # Of these only the lake knows who did what.
    live.erase_at({place for its in places.values() for place in records.records_in(its)}, shared)
    erasures.keep_places(settings, places)
    _add_to_receipts(
        settings, places, {table.name: [before[table.name], lake.version(table)] for table in touched}
    )
    return {
        ERASURE: max([since, *numbers]),
        "erasures": len(numbers),
        "records": sum(its.num_rows for its in places.values()),
        DIRTY_DAYS: [day.isoformat() for day in days],
    }


def _add_to_receipts(
    settings: Settings, places: Mapping[int, pa.Table], versions: dict[str, list[int]]
) -> None:
    """Say what the lake has lost, and where else persons are for how long."""
    now = datetime.now(UTC)
    changed = {name: its for name, its in versions.items() if its[0] != its[1]}
    keeps = settings.backup_retention_days
    # A backup that is being made has been begun before.
    in_backups = (
        (now + timedelta(days=keeps + 1)).isoformat() if keeps else "not known: set BACKUP_RETENTION_DAYS"
    )
    parts = {}
    for number, its in places.items():
        topics = sorted({*its["topic"].to_pylist()})
        # None of their records can have come later.
        until = _in_kafka(settings, dict.fromkeys(topics, now))
        parts[number] = {
            "records_erased": its.num_rows,
            "versions_before_and_after": changed,
            "files_go": "at 03:30, once no table names them",
            "in_kafka_until": until,
            "in_backups_until": in_backups,
        }
    erasures.add_to_receipt(settings, parts)


def _in_kafka(settings: Settings, newest: Mapping[str, datetime]) -> dict[str, str]:
    try:
        until = kept_until(settings, newest, newest)
    except InputError as error:
        return dict.fromkeys(newest, f"not known: {error}")
    unknown = "not known: the topic is not there, or KAFKA_USERNAME may not describe its configuration"
    return {topic: _in_words(until[topic]) if topic in until else unknown for topic in newest}


def _in_words(until: datetime | None) -> str:
    return until.isoformat() if until else "for ever: set retention.ms of the topic"


nightly_erasure = dg.ScheduleDefinition(
    name="nightly_erasure",
    job=erase,
    cron_schedule="30 2 * * *",
    execution_timezone=load_settings().shop_time_zone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Erases who asked for it since yesterday: at 02:30 of SHOP_TIME_ZONE.",
)
