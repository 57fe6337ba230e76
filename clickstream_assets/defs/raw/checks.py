"""Whether the numbers close: every raw record is in exactly one of the four tables."""

import dagster as dg

from clickstream_assets.analytics.schema import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
)
from clickstream_assets.engine import functions_of
from clickstream_assets.ingest import counts_by_hour, misplaced_records
from clickstream_assets.resources.lake import LakeResource

PLACES = (EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS)
HOURS_SHOWN = 48


@dg.asset_check(asset="events", blocking=True)
def counts_close(lake: LakeResource) -> dg.AssetCheckResult:
    """raw_events = events + duplicate_events + conflicting_events + rejected_events, by record."""
    the_lake = lake.get()
    batch = the_lake.snapshot(EVENTS).batch
    hours = counts_by_hour(the_lake, RAW_EVENTS, PLACES, batch)
    names = [RAW_EVENTS.name, *(table.name for table in PLACES)]
    totals = {name: sum(hour[name] for hour in hours) for name in names}
    placed = sum(totals[table.name] for table in PLACES)
    wrong = misplaced_records(the_lake, RAW_EVENTS, PLACES, batch)
    rows = [
        f"| {hour['hour']:%Y-%m-%d %H}:00 | {' | '.join(f'{hour[name]:,}' for name in names)} |"
        for hour in hours[-HOURS_SHOWN:]
    ]
    header = [f"| received (UTC) | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return dg.AssetCheckResult(
        passed=totals[RAW_EVENTS.name] == placed and not wrong,
        metadata={
            "expected": totals[RAW_EVENTS.name],
            "actual": placed,
            "counts": totals,
            "missing_or_doubled": [
                {"partition": row["partition"], "offset": row["offset"], "places": row["places"]}
                for row in wrong
            ],
            "by_hour": dg.MetadataValue.md("\n".join([*header, *rows])),
        },
    )


@dg.asset_check(asset="events", blocking=True)
def event_ids_are_unique(lake: LakeResource) -> dg.AssetCheckResult:
    """No event id occurs twice."""
    the_lake = lake.get()
    events = the_lake.read(EVENTS)
    F, _ = functions_of(events)
    twice = events.groupBy("event_id").agg(F.count(F.lit(1)).alias("rows")).where(F.col("rows") > 1).limit(5)
    ids = the_lake.engine.to_arrow(twice.select("event_id"))["event_id"].to_pylist()
    return dg.AssetCheckResult(passed=not ids, metadata={"sample_event_ids": ids})
