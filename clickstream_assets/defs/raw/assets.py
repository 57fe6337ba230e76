"""From the Kafka topic to events: every record once, and in exactly one place."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
)
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.resources import KafkaResource, LakeResource, SettingsResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.ingest.parsing import Rules
from clickstream_assets.ingest.placing import days_to_update, land_records, place_events

clickstream_events = dg.AssetSpec(
    "clickstream_events",
    group_name="raw",
    kinds={"kafka"},
    owners=OWNERS,
    description="The Kafka topic of click events, written by the shop (or by `clickstream simulate`).",
)


@dg.asset(
    deps=[clickstream_events],
    group_name="raw",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(RAW_EVENTS),
)
def raw_events(settings: SettingsResource, lake: LakeResource, kafka: KafkaResource) -> dg.MaterializeResult:
    """Every Kafka record once, by topic, partition and offset, its bytes as they came.

    Reads from where the table ends, so no run can lose or double a record. Records that Kafka deleted before
    they were read fail the run, unless ALLOW_DATA_LOSS says to go on.
    """
    limits = settings.get()
    the_lake = lake.get()
    with explained_errors():
        landing = land_records(
            the_lake,
            kafka.topic(),
            limits.ingest_batch,
            limits.ingest_run_records,
            limits.allow_data_loss,
        )
        rows = the_lake.snapshot(RAW_EVENTS).rows
    return dg.MaterializeResult(
        metadata={
            "records": landing.records,
            "batch": landing.batch,
            "topic": kafka.topic().name,
            "offsets": {str(partition): offset for partition, offset in sorted(landing.offsets.items())},
            "lost_records": landing.lost,
            "dagster/row_count": rows,
        }
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            table.name,
            deps=[raw_events],
            group_name="raw",
            kinds={"delta"},
            owners=OWNERS,
            freshness_policy=FRESHNESS,
            metadata=describe(table),
            description=description,
        )
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
    ],
    name="events",
)
def events(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> Iterator[dg.MaterializeResult]:
    """Put each new raw record into exactly one of four tables.

    Says which days the new events touch, counted from the last materialization: days that a killed run did not
    come to report are reported by the next.
    """
    limits = settings.get()
    the_lake = lake.get()
    reported = context.instance.get_latest_materialization_event(dg.AssetKey(EVENTS.name))
    since = metadata_value(reported, "batch") or 0
    # What happens after midnight counts in the sessions and in the funnels of the day before.
    reach = timedelta(minutes=max(limits.session_gap_minutes, limits.funnel_window_minutes))
    with explained_errors():
        if since > the_lake.snapshot(EVENTS).batch:
            # Another lake, or this one made anew: none of its days has been reported.
            since = 0
        counts = place_events(the_lake, Rules.of(limits))
        snapshot = the_lake.snapshot(EVENTS)
        days = days_to_update(the_lake, since, reach, timedelta(days=limits.attribution_days))
        beside = [
            the_lake.snapshot(table) for table in (DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS)
        ]
    yield dg.MaterializeResult(
        asset_key=EVENTS.name,
        metadata={
            "batch": snapshot.batch,
            "new_events": counts["events"],
            "days_to_update": [day.isoformat() for day in days],
            "dagster/row_count": snapshot.rows,
        },
    )
    repeated = {reason: counts[reason] for reason in ("same_event", "same_order_line")}
    new_records = {
        DUPLICATE_EVENTS.name: {"new_records": sum(repeated.values()), **repeated},
        CONFLICTING_EVENTS.name: {"new_records": counts["other_payload"]},
        REJECTED_EVENTS.name: {"new_records": counts["rejected"]},
    }
    for snapshot in beside:
        yield dg.MaterializeResult(
            asset_key=snapshot.table.name,
            metadata={**new_records[snapshot.table.name], "dagster/row_count": snapshot.rows},
        )
