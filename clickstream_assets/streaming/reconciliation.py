"""Reconciliation of stream and batch: closed windows, counted again from `events`, and a reason per difference."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from clickstream_assets.analytics.windows import counted_time, product_windows
from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    ERASED_RECORDS,
    EVENTS,
    FLASH_SALE_ALERTS,
    ITEM_KEY,
    PRODUCT_WINDOWS,
    Table,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.repetitions import identities, order_line
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, from_json, to_json
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.alerts import find_alerts
from clickstream_assets.streaming.lake_copies import read_rows, snapshot
from clickstream_assets.streaming.progress import Progress, read_progress
from clickstream_assets.streaming.source import classified_offsets
from clickstream_assets.streaming.store import windows_by_product

EXACT = ("views", "add_to_carts", "purchases", "total_events", "first_event_time", "last_event_time")
"""Columns that have to be equal; users are estimated by the stream and counted by the batch."""
_COLUMNS = (
    *("event_id", "event_type", "event_time", "user_id", "product_id", "product_category", "is_bot"),
    *("anonymous_id", "session_id", "price", "quantity", "order_id", "order_line", "kafka_time", *ITEM_KEY),
)


class Reason(StrEnum):
    """Reason that a window's counts differ for."""

    LATE = "late"
    """The batch has events that came later than WATERMARK_DELAY allows; the stream dropped them. Or it has order lines
    that the stream took for repetitions: equal ones of one moment that came in several micro-batches, or such as share
    an id with a duplicate alone, which repeats an event by another id.
    """
    REPEATED = "repeated later"
    """The stream counted a duplicate: it came later than the stream remembers; or the two came in different partitions,
    which have no common order, and the stream took the other."""
    ERASED = "erased since"
    """The stream counted events of persons who were erased since; windows say nothing of persons, and stay."""
    LOST = "lost"
    """The batch has events that were in time. The stream's state was lost, or it is wrong."""
    UNEXPLAINED = "unexplained"
    """The stream counted events that no record explains, or some twice, or otherwise."""


EXCUSED = frozenset({Reason.LATE, Reason.REPEATED, Reason.ERASED})
"""Reasons that are there by design."""


@dataclass(frozen=True)
class Difference:
    """A window whose counts differ."""

    window_start: datetime
    product_id: str
    streamed: int
    """Events that the stream counted."""
    batch: int
    """Events that the lake has."""
    late: int
    """Those of them that the stream may have left out."""
    repeated: int
    """Duplicates in the lake that the stream may have counted."""
    reason: Reason


@dataclass
class Reconciliation:
    """Result of a reconciliation."""

    compared: int = 0
    """Number of closed windows."""
    differences: list[Difference] = field(default_factory=list)
    closed_until: datetime | None = None
    """Windows that end later were left out; None where no window is closed yet."""
    waiting: str | None = None
    """Reason that nothing could be compared for."""

    def count(self, reason: Reason) -> int:
        """Return how many windows differ for a reason."""
        return sum(difference.reason is reason for difference in self.differences)

    @property
    def holds(self) -> bool:
        """True if every difference is excused."""
        return all(difference.reason in EXCUSED for difference in self.differences)


class _Point(NamedTuple):
    """A moment of the stream: windows that end by `closed_until` hold the records up to `offsets`, and no others."""

    closed_until: datetime | None
    floor: datetime
    offsets: dict[TopicPartition, int]


def reconcile(settings: Settings, lake: Lake, days: int) -> Reconciliation:
    """Count the closed windows of the last days again from the lake's events.

    The stream goes on meanwhile, and the lake is behind it or ahead. So both are compared as of the last moment of the
    stream of which the lake has every record: the windows that were closed then, which do not change any more, with
    the events of the records that had been read then. Windows of a rebuild, made of the lake's own events, are left
    out.

    Args:
        settings: length of the windows, and the database.
        lake: with `events` and the non-event tables.
        days: number of days of event time, up to the start of the last closed window.

    Raises:
        PostgresError: the database cannot be reached.
    """
    classified = classified_offsets(lake, settings.topics)
    with snapshot(settings) as connection:
        progress = read_progress(connection)
        if (
            progress is None
            or max(filter(None, (progress.watermark, progress.idle_until)), default=None) is None
        ):
            return Reconciliation(waiting="no window is closed yet")
        point = _last_common(connection, progress, classified)
        if point is None:
            return Reconciliation(
                closed_until=progress.watermark,
                waiting="the lake's events have not come as far as any batch of the stream's",
            )
        if point.closed_until is None:
            return Reconciliation(waiting="no window was closed where the lake's events end")
        newest = _newest_start(connection, point.closed_until - settings.window_duration)
        since = max(newest - timedelta(days=days), point.floor)
        windows = read_rows(
            connection,
            PRODUCT_WINDOWS,
            sql.SQL("window_start >= {} AND window_end > {} AND window_end <= {}").format(
                since - settings.window_duration, since, point.closed_until
            ),
        )
    streamed = lake.engine.from_arrow(windows)
    first = ShopClock(settings.shop_time_zone).day_of(since - settings.window_duration)
    events = _read_by_stream(lake, EVENTS, point, first)
    compared, different = _different_windows(lake, streamed, events, point.closed_until, since, settings)
    result = Reconciliation(compared=compared, closed_until=point.closed_until)
    if different:
        result.differences = _differences(lake, settings, point, first, events, different)
    lake.engine.release(streamed)
    return result


def _last_common(
    connection: psycopg.Connection, progress: Progress, classified: Mapping[TopicPartition, int]
) -> _Point | None:
    """Find the last moment of the stream of which the lake has every record."""
    floor = progress.floor or EPOCH
    if progress.idle_until and all(classified.get(p, 0) >= offset for p, offset in progress.offsets.items()):
        closed_until = max(filter(None, (progress.watermark, progress.idle_until)))
        return _Point(closed_until, floor, progress.offsets)
    row = connection.execute(
        "SELECT watermark, offsets FROM stream_batches WHERE NOT EXISTS ("
        "SELECT FROM jsonb_each_text(offsets) AS read (partition, until) "
        "WHERE until::bigint > coalesce((%s::jsonb ->> partition)::bigint, 0)) ORDER BY batch_id DESC LIMIT 1",
        (json.dumps(to_json(classified)),),
    ).fetchone()
    if row is None:
        return None
    watermark, offsets = row
    return _Point(watermark, floor, from_json(offsets))


def _newest_start(connection: psycopg.Connection, until: datetime) -> datetime:
    """Return the last start of a window by a time; where the clock closes windows, it can be years before."""
    row = connection.execute(
        "SELECT max(window_start) FROM product_windows WHERE window_start <= %s", (until,)
    ).fetchone()
    return (row[0] if row else None) or until


def _different_windows(
    lake: Lake, streamed: DataFrame, events: DataFrame, until: datetime, since: datetime, settings: Settings
) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of windows on either side, and those that differ."""
    F, _ = functions_of(events)
    stream_side = as_view(
        streamed.select(
            F.col("window_start"),
            F.col("product_id"),
            *(F.col(name).alias(f"streamed_{name}") for name in EXACT),
        )
    )
    again = product_windows(events, settings.window_duration, settings.slide_duration)
    is_compared = (F.col("window_end") > F.lit(since)) & (F.col("window_end") <= F.lit(until))
    batch_side = as_view(
        again.where(is_compared).select(
            F.col("window_start").alias("start"),
            F.col("product_id").alias("product"),
            *(F.col(name).alias(f"batch_{name}") for name in EXACT),
        )
    )
    both = as_view(
        stream_side.join(
            batch_side,
            on=(F.col("window_start") == F.col("start")) & (F.col("product_id") == F.col("product")),
            how="full",
        ).select(
            F.coalesce(F.col("window_start"), F.col("start")).alias("window_start"),
            F.coalesce(F.col("product_id"), F.col("product")).alias("product_id"),
            F.coalesce(F.col("streamed_total_events"), F.lit(0)).cast("long").alias("streamed"),
            F.coalesce(F.col("batch_total_events"), F.lit(0)).cast("long").alias("batch"),
            *(F.col(f"{side}_{name}") for side in ("streamed", "batch") for name in EXACT),
        )
    )
    number = lake.engine.to_arrow(both.agg(F.count(F.lit(1)).cast("long").alias("windows")))
    is_same = F.lit(True)
    for name in EXACT:
        is_same = is_same & F.coalesce(F.col(f"streamed_{name}") == F.col(f"batch_{name}"), F.lit(False))
    different = both.where(~is_same).select("window_start", "product_id", "streamed", "batch")
    return number["windows"][0].as_py(), lake.engine.to_arrow(different).to_pylist()


def _read_by_stream(lake: Lake, table: Table, point: _Point, first: date | None = None) -> DataFrame:
    """Return the rows of a table whose records the stream had read; those from day `first` on."""
    rows = lake.read(table)
    F, _ = functions_of(rows)
    is_read = F.lit(False)
    for (topic, partition), offset in point.offsets.items():
        is_read = is_read | (
            (F.col("topic") == topic) & (F.col("partition") == partition) & (F.col("offset") < offset)
        )
    if first is not None:
        # The column first by which files are laid out: it spares whole days.
        rows = rows.where(F.col("event_date") >= F.lit(first))
    return as_view(rows.where(is_read))


def _duplicates(lake: Lake, settings: Settings, point: _Point, first: date) -> DataFrame:
    """Return what repeats an event, with the columns that it would be counted by; to be released."""
    # A repetition of an event of these days can be of a day before.
    first -= timedelta(days=settings.event_id_days)
    repeated, conflicting = (
        as_view(_read_by_stream(lake, table, point, first).select(*_COLUMNS))
        for table in (DUPLICATE_EVENTS, CONFLICTING_EVENTS)
    )
    return lake.engine.persist(as_view(repeated.unionByName(conflicting)))


def _differences(
    lake: Lake,
    settings: Settings,
    point: _Point,
    first: date,
    events: DataFrame,
    different: list[dict[str, Any]],
) -> list[Difference]:
    """Find the events that the stream may have dropped and the duplicates that it may have counted, per window."""
    duplicates = _duplicates(lake, settings, point, first)
    arrivals = _arrivals(events, duplicates, settings.watermark_delay)
    F, _ = functions_of(arrivals)
    starts = [row["window_start"] for row in different]
    counts: list[dict[Any, int]] = []
    for is_event in (True, False):
        of_kind = arrivals.where(F.col("may_differ") & (F.col("is_event") == F.lit(is_event)))
        windows = product_windows(of_kind, settings.window_duration, settings.slide_duration)
        windows = windows.where(
            (F.col("window_start") >= F.lit(min(starts))) & (F.col("window_start") <= F.lit(max(starts)))
        )
        rows = lake.engine.to_arrow(windows.select("window_start", "product_id", "total_events")).to_pylist()
        counts.append({(row["window_start"], row["product_id"]): row["total_events"] for row in rows})
    lake.engine.release(duplicates)
    late, repeated = counts
    erased = _erased(lake, first)
    clock = ShopClock(settings.shop_time_zone)
    found = []
    for row in different:
        key = (row["window_start"], row["product_id"])
        few, many = late.get(key, 0), repeated.get(key, 0)
        ends = (row["window_start"], row["window_start"] + settings.window_duration)
        gone = sum(erased[day] for day in {clock.day_of(end) for end in ends})
        reason = _reason(row["streamed"] - row["batch"], few, many, gone)
        found.append(Difference(*key, row["streamed"], row["batch"], few, many, reason))
    return sorted(found, key=lambda difference: (difference.window_start, difference.product_id))


def _erased(lake: Lake, first: date) -> Counter[date]:
    """Return how many events of each day, from a first one on, were erased."""
    rows = lake.read(ERASED_RECORDS)
    F, _ = functions_of(rows)
    of_events = rows.where((F.col("erased_from") == EVENTS.name) & (F.col("event_date") >= F.lit(first)))
    counts = of_events.groupBy("event_date").agg(F.count(F.lit(1)).cast("long").alias("events"))
    return Counter({row["event_date"]: row["events"] for row in lake.engine.to_arrow(counts).to_pylist()})


def _reason(surplus: int, late: int, repeated: int, erased: int = 0) -> Reason:
    """Return the reason that the stream has more or fewer events.

    Args:
        surplus: how many more it has.
        late: how many of the batch's may have been late.
        repeated: how many duplicates the stream may have counted.
        erased: how many events of the window's days were erased.
    """
    if surplus < 0:
        return Reason.LATE if -surplus <= late else Reason.LOST
    # As many events, and others: one for another.
    if surplus <= repeated if surplus else min(late, repeated) > 0:
        return Reason.REPEATED
    is_excused = surplus <= repeated + erased if surplus else min(late, erased) > 0
    return Reason.ERASED if is_excused else Reason.UNEXPLAINED


def _arrivals(events: DataFrame, duplicates: DataFrame, delay: timedelta) -> DataFrame:
    """Put events and duplicates in the order of their arrival, and mark those that the stream can have taken otherwise.

    An event is late if it is no newer than the newest one before it, less the delay: Spark drops it then. Spark
    recognizes a duplicate until the time of the event is older than that by a delay more. Where one id, or one order
    line of a user or a visitor, came in several partitions, either record can be the first. A line that shares an id
    with an earlier duplicate can be a repetition of that for Spark, and is none for the batch.

    Returns:
        _COLUMNS, `is_event`, and `may_differ`: whether the stream can have dropped the event, or counted the
        duplicate.
    """
    F, Window = functions_of(events)
    together = as_view(
        events.select(*_COLUMNS, F.lit(True).alias("is_event")).unionByName(
            duplicates.select(*_COLUMNS, F.lit(False).alias("is_event"))
        )
    )
    is_line, columns = order_line(F)
    line = F.concat_ws("\n", *(column.cast("string") for column in columns))
    lines = ("user_line", "visitor_line")
    keys = ("event_id", *lines)
    timed = together.withColumn("at", F.unix_micros(counted_time(F)))
    for name, identity in zip(lines, identities(F), strict=True):
        of_one = F.when(is_line & identity.isNotNull(), F.concat_ws("\n", identity, line))
        timed = timed.withColumn(name, of_one)
    timed = as_view(timed)
    in_turn = Window.orderBy("kafka_time", *ITEM_KEY)
    before = in_turn.rowsBetween(Window.unboundedPreceding, -1)
    timed = as_view(timed.withColumn("turn", F.row_number().over(in_turn)))
    behind = as_view(timed.withColumn("newest", F.max("at").over(before)))
    for key in keys:
        groups = as_view(
            timed.where(F.col(key).isNotNull())
            .groupBy(key)
            .agg(
                F.min(F.when(~F.col("is_event"), F.col("turn"))).alias(f"{key}_repeated"),
                F.min("at").alias(f"{key}_first"),
                ((F.min("topic") < F.max("topic")) | (F.min("partition") < F.max("partition"))).alias(
                    f"{key}_spread"
                ),
            )
            .where(F.col(f"{key}_repeated").isNotNull())
        )
        behind = as_view(behind.join(groups, on=key, how="left"))
    for key in lines:
        twins = as_view(
            timed.where(F.col(key).isNotNull() & F.col("is_event"))
            .groupBy(key, "event_time")
            .agg(F.count(F.lit(1)).alias(f"{key}_twins"))
            .where(F.col(f"{key}_twins") > 1)
        )
        behind = as_view(behind.join(twins, on=[key, "event_time"], how="left"))

    def any_of(conditions: Iterable[Any]) -> Any:
        return reduce(or_, (F.coalesce(condition, F.lit(False)) for condition in conditions))

    wait = F.lit(delay // MICROSECOND)
    first = F.least(*(F.coalesce(F.col(f"{key}_first"), F.col("at")) for key in keys))
    is_late = F.col("at") <= F.col("newest") - wait
    is_forgotten = first <= F.col("newest") - wait - wait
    is_twin = any_of(F.col(f"{key}_twins") > 1 for key in lines)
    follows_duplicate = any_of(F.col(f"{key}_repeated") < F.col("turn") for key in lines)
    is_spread = any_of(F.col(f"{key}_spread") for key in keys)
    of_event = any_of([is_late, is_twin, follows_duplicate])
    may_differ = F.when(F.col("is_event"), of_event).otherwise(any_of([is_forgotten])) | is_spread
    return as_view(behind.select(*_COLUMNS, "is_event", may_differ.alias("may_differ")))


@dataclass(frozen=True)
class AlertReconciliation:
    """Numbers of alerts that follow from the windows and that there are, and the ids of those that differ."""

    expected: int
    actual: int
    wrong: list[str]


def reconcile_alerts(settings: Settings) -> AlertReconciliation:
    """Find all alerts again from one moment of the windows, by the rules that the stream found them with.

    `usual_views` and `unusualness` are left out: they rest on windows under the threshold too.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with snapshot(settings) as connection:
        progress = read_progress(connection)
        if progress is None:
            return AlertReconciliation(0, 0, [])
        rules = progress.alert_rules
        rows = connection.execute(
            "SELECT product_id, window_start, window_end, views, purchases, product_category, is_final "
            "FROM product_windows WHERE views > %s AND purchases < %s",
            (rules.views, rules.purchases),
        ).fetchall()
        kept = read_rows(connection, FLASH_SALE_ALERTS).to_pylist()
    expected = _by_id(
        alert._asdict()
        for product_id, found in windows_by_product(rows).items()
        for alert in find_alerts(product_id, found, rules)
    )
    actual = _by_id(kept)
    wrong = sorted(key for key in expected.keys() | actual.keys() if expected.get(key) != actual.get(key))
    return AlertReconciliation(len(expected), len(actual), wrong)


def _by_id(alerts: Iterable[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    names = [name for name in FLASH_SALE_ALERTS.column_names if name not in ("usual_views", "unusualness")]
    return {alert["alert_id"]: tuple(str(alert[name]) for name in names) for alert in alerts}
