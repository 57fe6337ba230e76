"""Counts of records by the hour in which they came: what became of them, and which rules the rejected ones break."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import bdtrc

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RECORD_COUNTS,
    RECORD_DAYS,
    REJECTED_COUNTS,
    REJECTED_EVENTS,
    WHOLE_RECORD,
    Table,
)
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import EPOCH, HOUR, MICROSECOND, MINUTE
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.stores.lake import Lake

PUBLISHED = timedelta(days=90)
"""So long before the newest record the counts of days, and those of rejected records by hour, are published."""
_OUTCOME_OF = {
    EVENTS: "event",
    DUPLICATE_EVENTS: "duplicate",
    CONFLICTING_EVENTS: "conflict",
    REJECTED_EVENTS: "rejected",
}
_REJECTED_BY = {"rejected": "ingest", "refused": "elasticsearch", "left_out": "nobody"}
_COUNTED_ONCE_MORE = {"refused", "left_out", "late"}
# Days begin at one by every clock since 2011, before which nothing comes.
_QUARTER = 15 * MINUTE
# What Elasticsearch rejected belongs to no ingest batch.
_NO_BATCH = (0, 0)

LATELY = timedelta(hours=24)
BEFORE = timedelta(days=7)
# The check looks at every rule after every ingest, thousands of times a day: at the usual 5 % or 1 % it would find
# something by chance every day.
SIGNIFICANCE = 1e-6
LEAST_RECORDS = 10
"""Fewer rejected records are not unusual: one client that repeats itself can send them."""
LEAST_RATIO = 2
"""In a large shop any difference is significant; less than so many times the usual share is none to speak of."""
USUAL_SHARE = 0.05
"""The share that counts as usual where no record came in the days before."""


class _Key(NamedTuple):
    hour: datetime
    outcome: str
    rule: str
    field: str


def update_record_counts(lake: Lake, clock: ShopClock = UTC_CLOCK) -> None:
    """Count the records of the ingest batches that RECORD_COUNTS does not have yet.

    The commit carries the number of the last batch, so each is counted once, however often this is tried. Records that
    Elasticsearch refused are counted anew, since they come without batches.

    Args:
        lake: has the records, and keeps the counts.
        clock: the shop's, by which the days of events end.
    """
    newest, counted = lake.snapshot(EVENTS).batch, lake.snapshot(RECORD_COUNTS).batch
    if newest <= counted:
        return
    found: Counter[_Key] = Counter()
    for table, outcome in _OUTCOME_OF.items():
        found += _count(lake, table, (counted + 1, newest), outcome)
    found += _count_late(lake, (counted + 1, newest), clock)
    found += _count(lake, EVENTS, (counted + 1, newest), "left_out")
    found += _count(lake, REJECTED_EVENTS, _NO_BATCH, "refused")
    there = _there(lake, min(key.hour.date() for key in found)) if found else {}
    for key in found:
        if key.outcome != "refused":
            found[key] += there.get(key, 0)
    changed = [
        {**key._asdict(), "hour_date": key.hour.date(), "records": records}
        for key, records in found.items()
        if there.get(key) != records
    ]
    if changed:
        lake.merge(RECORD_COUNTS, pa.Table.from_pylist(changed, schema=RECORD_COUNTS.arrow), newest)


def record_days(lake: Lake, clock: ShopClock = UTC_CLOCK) -> pa.Table:
    """Return RECORD_DAYS rows, as RECORD_COUNTS has them: of whole days alone, the newest aside."""
    counts = _newest(lake, PUBLISHED)
    records: Counter[tuple[date, str, str, str]] = Counter()
    for key, number in counts.items():
        # Elasticsearch's own words after the kind of its error are without end.
        rule = key.rule.partition(":")[0] if key.outcome == "refused" else key.rule
        records[clock.day_of(key.hour), key.outcome, rule, key.field] += number
    newest = max((day for day, *_ in records), default=date.min)
    rows = [
        {**dict(zip(RECORD_DAYS.key, key, strict=True)), "records": number}
        for key, number in records.items()
        if newest - key[0] < PUBLISHED
    ]
    return pa.Table.from_pylist(rows, schema=RECORD_DAYS.arrow)


def rejected_counts(lake: Lake) -> pa.Table:
    """Return REJECTED_COUNTS rows, as RECORD_COUNTS has them."""
    counts = _newest(lake, PUBLISHED)
    received: Counter[datetime] = Counter()
    for key, records in counts.items():
        if key.outcome not in _COUNTED_ONCE_MORE:
            received[key.hour] += records
    rows = [
        {
            "hour": key.hour,
            "rule": key.rule,
            "field": key.field,
            "rejected_by": _REJECTED_BY[key.outcome],
            "records": records,
            "received": received[key.hour],
            "share": _percent(records, received[key.hour]),
        }
        for key, records in counts.items()
        if key.outcome in _REJECTED_BY
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED_COUNTS.arrow)


@dataclass(frozen=True)
class Share:
    """The records that break a rule, among all that came: of the last day, and of the week before it.

    Where nothing was rejected, the rule has the field that was left out before it.
    """

    rule: str
    rejected_by: str
    rejected: int
    received: int
    rejected_before: int
    received_before: int

    @property
    def name(self) -> str:
        """The rule, and Elasticsearch where that rejects by it."""
        return f"{self.rule} (elasticsearch)" if self.rejected_by == "elasticsearch" else self.rule

    @property
    def is_left_out(self) -> bool:
        """True if the field was left out and nothing was rejected."""
        return self.rejected_by == "nobody"

    @property
    def percent(self) -> Decimal:
        """Rejected per hundred received, of the last day."""
        return _percent(self.rejected, self.received)

    @property
    def percent_before(self) -> Decimal | None:
        """The same of the week before; None if nothing came then."""
        return _percent(self.rejected_before, self.received_before) if self.received_before else None

    @property
    def chance(self) -> float:
        """Probability that at least so many records of the last day break the rule, were its share what it was before.

        The conditional test of two Poisson rates (Przyborowski and Wilenski, Biometrika 31, 1940): of the rejected
        records of both times, the last day's are binomial, with the probability that is its part of the received ones.
        """
        if not self.received_before:
            return float(bdtrc(self.rejected - 1, self.received, USUAL_SHARE))
        part = self.received / (self.received + self.received_before)
        return float(bdtrc(self.rejected - 1, self.rejected + self.rejected_before, part))

    @property
    def is_unusual(self) -> bool:
        """True if the rule is broken more often than by chance, and by enough to look at."""
        usual = self.rejected_before / self.received_before if self.received_before else USUAL_SHARE
        return (
            self.rejected >= LEAST_RECORDS
            and self.rejected >= LEAST_RATIO * usual * self.received
            and self.chance < SIGNIFICANCE
        )


def rejected_shares(lake: Lake) -> list[Share]:
    """Return the share of each rule that records were rejected by lately or in the week before.

    The least probable comes first.

    Lately is in the 24 hours up to the newest record's, so that midnight does not begin them anew.
    """
    return [share for share in shares(lake) if not share.is_left_out]


def left_out_shares(lake: Lake) -> list[Share]:
    """Return the same of each field and rule by which it was left out of events."""
    return [share for share in shares(lake) if share.is_left_out]


def shares(lake: Lake) -> list[Share]:
    """Return both."""
    counts = _newest(lake, LATELY + BEFORE)
    start = max((key.hour for key in counts), default=EPOCH) - LATELY
    received: Counter[bool] = Counter()
    rejected: Counter[tuple[str, str, bool]] = Counter()
    for key, records in counts.items():
        is_late = key.hour > start
        if key.outcome not in _COUNTED_ONCE_MORE:
            received[is_late] += records
        if key.outcome in _REJECTED_BY:
            rule = f"{key.field}: {key.rule}" if key.outcome == "left_out" else key.rule
            rejected[rule, _REJECTED_BY[key.outcome], is_late] += records
    found = [
        Share(
            rule=rule,
            rejected_by=by,
            rejected=rejected[rule, by, True],
            received=received[True],
            rejected_before=rejected[rule, by, False],
            received_before=received[False],
        )
        for rule, by in sorted({(rule, by) for rule, by, _ in rejected})
    ]
    return sorted(found, key=lambda share: (not share.is_unusual, share.chance))


def _has_any(lake: Lake, table: Table, batches: tuple[int, int]) -> bool:
    """Return whether a table may have records of some batches, without a query."""
    files = lake.snapshot(table).files
    first, last = batches
    return bool(
        files.num_rows
        and pc.any(
            pc.and_(pc.less_equal(files["min.batch"], last), pc.greater_equal(files["max.batch"], first))
        ).as_py()
    )


def _count_late(lake: Lake, batches: tuple[int, int], clock: ShopClock) -> Counter[_Key]:
    """Count the events of some batches that came after the end of their day."""
    counts: Counter[_Key] = Counter()
    if not _has_any(lake, EVENTS, batches):
        return counts
    events = lake.read(EVENTS, columns=("kafka_time", "event_date", "batch"), batches=batches)
    F, _ = functions_of(events)
    quarters = events.select(
        F.floor(F.unix_micros("kafka_time") / F.lit(_QUARTER)).cast("long").alias("quarter"), "event_date"
    )
    grouped = quarters.groupBy("quarter", "event_date").agg(F.count(F.lit(1)).cast("long").alias("records"))
    for row in lake.engine.to_arrow(grouped).to_pylist():
        came = EPOCH + row["quarter"] * _QUARTER * MICROSECOND
        if row["event_date"] < clock.day_of(came):
            hour = came.replace(minute=0)
            counts[_Key(hour, "late", "", "")] += row["records"]
    return counts


def _count(lake: Lake, table: Table, batches: tuple[int, int], outcome: str) -> Counter[_Key]:
    """Count the records of some batches that a table has, without a query where it has none."""
    if not _has_any(lake, table, batches):
        return Counter()
    rows = lake.read(table, batches=batches)
    F, _ = functions_of(rows)
    rule, field = F.lit(""), F.lit("")
    if outcome == "left_out":
        problems = rows.where(F.col("field_problems").isNotNull())
        rows = as_view(problems.select("kafka_time", F.explode("field_problems").alias("problem")))
        rule, field = F.col("problem").getField("rule"), F.col("problem").getField("field")
    elif outcome in _REJECTED_BY:
        rule, field = F.col("rule"), F.coalesce(F.col("field"), F.lit(WHOLE_RECORD))
    reasons = rows.select(
        F.floor(F.unix_micros("kafka_time") / F.lit(HOUR)).cast("long").alias("hour"),
        rule.alias("rule"),
        field.alias("field"),
    )
    counts = reasons.groupBy("hour", "rule", "field").agg(F.count(F.lit(1)).cast("long").alias("records"))
    return Counter(
        {
            _Key(datetime.fromtimestamp(row["hour"] * 3600, UTC), outcome, row["rule"], row["field"]): row[
                "records"
            ]
            for row in lake.engine.to_arrow(counts).to_pylist()
        }
    )


def _there(lake: Lake, first: date) -> Counter[_Key]:
    """Return what RECORD_COUNTS has of the days from `first` on."""
    rows = lake.read(RECORD_COUNTS)
    F, _ = functions_of(rows)
    of_days = rows.where(F.col("hour_date") >= F.lit(first)).select(*_Key._fields, "records")
    counts: Counter[_Key] = Counter()
    for row in lake.engine.to_arrow(of_days).to_pylist():
        records = row.pop("records")
        counts[_Key(**row)] = records
    return counts


def _newest(lake: Lake, span: timedelta) -> Counter[_Key]:
    """Return what RECORD_COUNTS has of the hours within `span` before the end of the newest."""
    days = lake.snapshot(RECORD_COUNTS).rows_by("hour_date")
    if not days:
        return Counter()
    counts = _there(lake, max(days) - span)
    newest = max(key.hour for key in counts)
    return Counter({key: records for key, records in counts.items() if key.hour > newest - span})


def _percent(records: int, received: int) -> Decimal:
    # Elasticsearch can refuse an event that the ingest has yet to read.
    return round(Decimal(100 * records) / received, 2) if received else Decimal(0)
