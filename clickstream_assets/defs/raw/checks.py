"""Checks that every record is accounted for: each item of a raw record is in exactly one of the four tables, once."""

import dagster as dg

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.partitions import Days, chunks
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.scope import Passed
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.classification import (
    CLASSIFIED_TABLES,
    counts_by_hour,
    misclassified_records,
)
from clickstream_assets.stores.lake import Lake

NAMES = (RAW_EVENTS.name, "items", *(table.name for table in CLASSIFIED_TABLES))
HOURS_SHOWN = 48
_ID_COLUMNS = ("event_id", "event_date", "batch")


@table_check(EVENTS, is_blocking=True)
def counts_close(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """items = events + duplicate_events + conflicting_events + rejected_events, for each record of raw_events."""
    newest = lake.snapshot(EVENTS).batch
    passed = Passed.of(context, counts_close.check_key, newest)
    first = passed.batch + 1
    new_hours = counts_by_hour(lake, newest, first_batch=first)
    wrong = misclassified_records(lake, newest, first_batch=first)
    totals = dict(passed.metadata.get("counts", dict.fromkeys(NAMES, 0)))
    hours = dict(passed.metadata.get("hours", {}))
    for row in new_hours:
        hour = f"{row['hour']:%Y-%m-%d %H}:00"
        before = hours.get(hour, dict.fromkeys(NAMES, 0))
        hours[hour] = {name: before[name] + row[name] for name in NAMES}
        for name in NAMES:
            totals[name] += row[name]
    hours = dict(sorted(hours.items())[-HOURS_SHOWN:])
    classified = sum(totals[table.name] for table in CLASSIFIED_TABLES)
    return dg.AssetCheckResult(
        passed=totals["items"] == classified and not wrong,
        metadata={
            **passed.progress(newest),
            "expected": totals["items"],
            "actual": classified,
            "counts": totals,
            "missing_or_doubled": [
                {"partition": row["partition"], "offset": row["offset"], "tables": row["tables"]}
                for row in wrong
            ],
            "hours": hours,
            "by_hour": text_table(
                ["received (UTC)", *NAMES],
                [(hour, *(counts[name] for name in NAMES)) for hour, counts in hours.items()],
            ),
        },
    )


@table_check(EVENTS, is_blocking=True)
def event_ids_are_unique(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """No event id occurs twice on a day; a new event's id occurs once among the events of its day.

    The same payload has the same day, so that is where an event that came in twice would be. Once a day, when all
    events are looked at, `ids_used_again` counts the ids that occur on several days: more than EVENT_ID_DAYS apart, or
    they would be repetitions, they are taken for events of their own.
    """
    snapshot = lake.snapshot(EVENTS)
    newest = snapshot.batch
    passed = Passed.of(context, event_ids_are_unique.check_key, newest)
    used_again = passed.metadata.get("ids_used_again")
    if passed.batch:
        new = lake.read(EVENTS, columns=_ID_COLUMNS, batches=(passed.batch + 1, newest))
        days = lake.engine.to_arrow(new.select("event_date").distinct())["event_date"].to_pylist()
        of_days = lake.read(EVENTS, columns=_ID_COLUMNS, days=days)
        ids = _ids_of_several(lake, of_days.join(new.select("event_id").distinct(), "event_id", "left_semi"))
    else:
        events = lake.read(EVENTS, columns=_ID_COLUMNS)
        # Days at a time: what an engine keeps of each group beside a count, it cannot put on the disk.
        parts = chunks(lake, Days.of(snapshot.rows_by("event_date")))
        ids = [
            event_id
            for first, last in parts
            for event_id in _ids_of_several(lake, between(events, "event_date", first, last))
        ]
        F, _ = functions_of(events)
        rows = as_view(events.groupBy("event_id").agg(F.count(F.lit(1)).alias("rows")))
        several = rows.where(F.col("rows") > 1).agg(F.count(F.lit(1)).cast("long").alias("ids"))
        used_again = lake.engine.to_arrow(several)["ids"][0].as_py()
    return dg.AssetCheckResult(
        passed=not ids,
        metadata={**passed.progress(newest), "sample_event_ids": ids[:SAMPLES], "ids_used_again": used_again},
    )


def _ids_of_several(lake: Lake, events: DataFrame) -> list[str]:
    """Return ids, at most SAMPLES, that several of these events of one day have."""
    F, _ = functions_of(events)
    rows = events.groupBy("event_date", "event_id").agg(F.count(F.lit(1)).alias("rows"))
    twice = rows.where(F.col("rows") > 1).select("event_id").limit(SAMPLES)
    ids: list[str] = lake.engine.to_arrow(twice)["event_id"].to_pylist()
    return ids
