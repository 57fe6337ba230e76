"""From the Kafka topic to events: every record once, and in exactly one table."""

import time
from collections.abc import Mapping
from datetime import UTC
from functools import partial
from typing import Any

import dagster as dg

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    EXCHANGE_RATES,
    ID_FIELDS,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    RAW_EVENTS,
    REJECTED_EVENTS,
    WHOLE_RECORD,
)
from clickstream_assets.defs.assets import Metadata, table_asset, table_assets, table_spec
from clickstream_assets.defs.measurements import NEWEST_EVENT
from clickstream_assets.defs.partitions import daily
from clickstream_assets.defs.plots import shortened, text_list
from clickstream_assets.defs.put_back import older_tables
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import (
    DIRTY_DAYS,
    MONEY_VERSION,
    NO_DAY,
    PUT_BACK_AT,
    REPLACED_FROM,
    SETTINGS,
)
from clickstream_assets.defs.shopper_days import newest_time
from clickstream_assets.ingest.classification import classify_records, land_records
from clickstream_assets.ingest.erased_places import erase_again, leave_out_erased
from clickstream_assets.ingest.erasure import OF_EVENTS
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.money import days_of_other_money, settings_of_money, update_money
from clickstream_assets.ingest.reach import days_of_other_settings, dirty_days, settings_of_days
from clickstream_assets.ingest.rejected import rejected_samples
from clickstream_assets.ingest.ties import update_ties
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.partition import TopicPartition, to_json
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.pseudonyms import pseudonyms_of
from clickstream_assets.stores.start_date import keep_start_date

SAMPLES_SHOWN = 10
# Of the wrong field, which may say something of a person.
SHOWN_CHARACTERS = 30

clickstream_events = table_spec(
    name="clickstream_events",
    deps=[],
    group_name="raw",
    kinds={"kafka"},
    metadata={
        "dagster/uri": f"kafka://{load_settings().kafka_bootstrap_servers}/{','.join(load_settings().topics)}",
        "dagster/storage_kind": "kafka",
    },
    description="The Kafka topics of click events, written by the shop (or by `clickstream simulate`).",
)


@table_asset(RAW_EVENTS, deps=["clickstream_events"])
def raw_events(settings: Settings, lake: Lake, kafka: Topics) -> Metadata:
    """Every Kafka record once, by topic, partition and offset, its bytes as they came.

    Reads from where the table ends, so no run can lose or double a record. Records that Kafka deleted before
    they were read fail the run, unless ALLOW_DATA_LOSS says to go on.
    """
    landing = land_records(lake, kafka, settings)
    return {
        "records": landing.records,
        "batch": landing.batch,
        "offsets": to_json(landing.offsets),
        "lost_records": landing.lost,
    }


@table_assets(
    *(
        table_spec(table, deps=["raw_events"], description=description)
        for table, description in (
            (
                EVENTS,
                "Every click event once, typed and in UTC: the first record of its id. Bots are labelled, not dropped.",
            ),
            (
                DUPLICATE_EVENTS,
                "Records that repeat an event: the same id and payload, or an order line under another id.",
            ),
            (
                CONFLICTING_EVENTS,
                "Records whose id came before with another payload: this payload, and where the first one is.",
            ),
            (REJECTED_EVENTS, "Records that are no valid event: their bytes, and the field, rule and value."),
        )
    ),
    table_spec(
        EXCHANGE_RATES,
        deps=["events"],
        description="The shop's currency, and what others are worth in it from a day on: as SHOP_CURRENCY and "
        "EXCHANGE_RATES say.",
    ),
    table_spec(
        *(IDENTITY_TIES, IDENTITY_CHANGES),
        deps=["events"],
        description="From when on an anonymous id is a user's: by the events that have both, in whatever order they "
        "came. `identity_changes` says which events have another person since.",
    ),
)
def events(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Mapping[str, Metadata]:
    """Put each new raw record into exactly one of four tables, and keep which ids are one person.

    Reports the days that the new events make dirty, or other settings, counted from the last materialization: days that
    a killed run did not come to report are reported by the next.
    """
    reported = context.instance.get_latest_materialization_event(dg.AssetKey(EVENTS.name))
    since = metadata_value(reported, "batch") or 0
    put_back_at = metadata_value(reported, PUT_BACK_AT) or 0.0
    if since > lake.snapshot(EVENTS).batch or older_tables(context.instance, lake):
        # Another lake, or this one made anew or put back to an earlier time: none of its days has been reported.
        since, put_back_at = 0, time.time()
    rules = ValidationRules.of(settings)
    keep_start_date(lake, daily().start.date())
    # Kafka may have records of persons who were erased from the lake that there was before.
    leave_out_erased(lake, settings, OF_EVENTS)
    counts = classify_records(lake, rules, partial(pseudonyms_of, settings))
    if not since:
        erase_again(lake, settings)
    tied = update_ties(lake, IdentityRules.of(settings))
    batch = lake.snapshot(EVENTS).batch
    # Before the file is used, so that what is written to it meanwhile is noticed.
    made_by = settings_of_days(settings) | settings_of_money(settings)
    money = update_money(lake, since, settings)
    # Where nothing has been reported of this lake, all days are.
    money_before, made_by_before = (
        metadata_value(reported, name) if since else None for name in (MONEY_VERSION, SETTINGS)
    )
    days = {
        *dirty_days(lake, since, settings),
        *days_of_other_money(lake, money_before, money),
        *days_of_other_settings(lake, made_by_before or {}, settings),
    }
    samples = _rejected_samples(context, lake, counts["rejected"])
    repeated = {reason: counts[reason] for reason in ("same_event", "same_order_line")}
    return {
        EVENTS.name: {
            "batch": batch,
            PUT_BACK_AT: put_back_at,
            "new_events": counts["events"],
            NEWEST_EVENT: dg.MetadataValue.timestamp(newest_time(lake, lake.snapshot(EVENTS), rules)),
            MONEY_VERSION: lake.snapshot(EXCHANGE_RATES).version,
            SETTINGS: made_by,
            DIRTY_DAYS: [day.isoformat() for day in sorted(days)],
        },
        DUPLICATE_EVENTS.name: {"new_records": sum(repeated.values()), **repeated},
        CONFLICTING_EVENTS.name: {"new_records": counts["other_payload"]},
        REJECTED_EVENTS.name: {"new_records": counts["rejected"], "samples": samples},
        EXCHANGE_RATES.name: {
            "shop_currency": money.currency or "none is known yet",
            "rates": len(money.rates),
        },
        IDENTITY_TIES.name: {"batch": batch, REPLACED_FROM: str(tied[0]) if tied else NO_DAY},
    }


def _shown(row: Mapping[str, Any]) -> str:
    """Return a wrong value, cut; none that may be a person's id, as an erasure does not look into Dagster's records."""
    value = None if row["field"] in ID_FIELDS else row["rejected_value"]
    return shortened(value or "-", SHOWN_CHARACTERS)


def _rejected_samples(context: dg.AssetExecutionContext, lake: Lake, new: int) -> dg.MarkdownMetadataValue:
    """Show the last rejected record of each rule and field, its value cut; they stay until others come.

    What a shopper's tracker sent is in the lake alone, whole: `clickstream rejected list` shows it.
    """
    before = context.instance.get_latest_materialization_event(dg.AssetKey(REJECTED_EVENTS.name))
    shown = metadata_value(before, "samples")
    if shown and not new:
        return dg.MetadataValue.md(shown)
    return text_list(
        f"{row['rule']} {row['field'] or WHOLE_RECORD}: {_shown(row)} "
        f"({TopicPartition(row['topic'], row['partition'])}, offset {row['offset']}, "
        f"{row['kafka_time'].astimezone(UTC):%Y-%m-%d %H:%M} UTC)"
        for row in rejected_samples(lake, SAMPLES_SHOWN)
    )
