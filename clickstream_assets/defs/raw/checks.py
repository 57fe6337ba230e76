"""Whether the numbers close: every raw record is in exactly one of the four tables.

Each ingest looks at the batches that have come since a check last passed, so that its time grows with what is new;
once in FULL_AUDIT_EVERY it looks at all of them.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import dagster as dg

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
)
from clickstream_assets.defs.dagster_private import last_evaluation
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.engine import functions_of
from clickstream_assets.ingest.placing import counts_by_hour, misplaced_records

PLACES = (EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, REJECTED_EVENTS)
NAMES = (RAW_EVENTS.name, *(table.name for table in PLACES))
HOURS_SHOWN = 48
FULL_AUDIT_EVERY = timedelta(hours=24)


@dataclass(frozen=True)
class Passed:
    """What a check found when it last passed; nothing, where it has to look at everything."""

    batch: int
    """Last batch that it has looked at."""
    audited_at: float
    """When it looked at all batches; seconds since 1970."""
    metadata: dict[str, Any]

    @classmethod
    def of(cls, context: dg.AssetCheckExecutionContext, check: str, newest: int) -> Self:
        """Take it from the check's last evaluation that passed.

        Args:
            context: knows the instance.
            check: the check's name.
            newest: the last batch that the lake holds; a lake of fewer batches than were looked at is another one.
        """
        now = time.time()
        key = dg.AssetCheckKey(dg.AssetKey(EVENTS.name), check)
        evaluation = last_evaluation(context.instance, key, passed_only=True)
        metadata: dict[str, Any] = (
            {name: value.value for name, value in evaluation.metadata.items()} if evaluation else {}
        )
        batch, audited_at = metadata.get("batch", 0), metadata.get("audited_at", 0.0)
        if batch > newest or now - audited_at > FULL_AUDIT_EVERY.total_seconds():
            return cls(0, now, {})
        return cls(batch, audited_at, metadata)

    def progress(self, newest: int) -> dict[str, Any]:
        """Return the metadata that the next evaluation goes on from."""
        return {"batch": newest, "first_batch": self.batch + 1, "audited_at": self.audited_at}


@dg.asset_check(asset="events", blocking=True)
def counts_close(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """raw_events = events + duplicate_events + conflicting_events + rejected_events, by record."""
    the_lake = lake.get()
    newest = the_lake.snapshot(EVENTS).batch
    passed = Passed.of(context, "counts_close", newest)
    first = passed.batch + 1
    new_hours = counts_by_hour(the_lake, RAW_EVENTS, PLACES, newest, first_batch=first)
    wrong = misplaced_records(the_lake, RAW_EVENTS, PLACES, newest, first_batch=first)
    totals = dict(passed.metadata.get("counts", dict.fromkeys(NAMES, 0)))
    hours = dict(passed.metadata.get("hours", {}))
    for row in new_hours:
        hour = f"{row['hour']:%Y-%m-%d %H}:00"
        before = hours.get(hour, dict.fromkeys(NAMES, 0))
        hours[hour] = {name: before[name] + row[name] for name in NAMES}
        for name in NAMES:
            totals[name] += row[name]
    hours = dict(sorted(hours.items())[-HOURS_SHOWN:])
    placed = sum(totals[table.name] for table in PLACES)
    rows = [
        f"| {hour} | {' | '.join(f'{counts[name]:,}' for name in NAMES)} |" for hour, counts in hours.items()
    ]
    header = [f"| received (UTC) | {' | '.join(NAMES)} |", "|---" * (len(NAMES) + 1) + "|"]
    return dg.AssetCheckResult(
        passed=totals[RAW_EVENTS.name] == placed and not wrong,
        metadata={
            **passed.progress(newest),
            "expected": totals[RAW_EVENTS.name],
            "actual": placed,
            "counts": totals,
            "missing_or_doubled": [
                {"partition": row["partition"], "offset": row["offset"], "places": row["places"]}
                for row in wrong
            ],
            "hours": hours,
            "by_hour": dg.MetadataValue.md("\n".join([*header, *rows])),
        },
    )


@dg.asset_check(asset="events", blocking=True)
def event_ids_are_unique(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """No event id occurs twice; of new events, none among those of the same days.

    The same payload has the same day, so that is where one that was placed twice would be.
    """
    the_lake = lake.get()
    newest = the_lake.snapshot(EVENTS).batch
    passed = Passed.of(context, "event_ids_are_unique", newest)
    columns = ("event_id", "event_date", "batch")
    events = the_lake.read(EVENTS, columns=columns)
    F, _ = functions_of(events)
    if passed.batch:
        new = the_lake.read(EVENTS, columns=columns, batches=(passed.batch + 1, newest))
        days = the_lake.engine.to_arrow(new.select("event_date").distinct())["event_date"].to_pylist()
        # Naming the days lets the engine skip the files of all others.
        beside = events.where(F.col("event_date").isin(days)) if days else new
        events = beside.join(new.select("event_id").distinct(), "event_id", "left_semi")
    twice = events.groupBy("event_id").agg(F.count(F.lit(1)).alias("rows")).where(F.col("rows") > 1).limit(5)
    ids = the_lake.engine.to_arrow(twice.select("event_id"))["event_id"].to_pylist()
    return dg.AssetCheckResult(passed=not ids, metadata={**passed.progress(newest), "sample_event_ids": ids})
