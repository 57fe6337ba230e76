"""The stream's tables in PostgreSQL: windows, alerts, their notifications, and how far the stream has come.

All changes of a batch are one transaction, which also notes the batch's number. A batch that is run again after a
crash finds its number and changes nothing.

Once no more records come, no watermark closes the last windows: `close_idle` does, by the clock. Should events come
for them after all, they are open again.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.types.json import Jsonb

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.publishing import copy_rows
from clickstream_assets.streaming.alerts import (
    HISTORY,
    Alert,
    AlertRules,
    Kind,
    Notification,
    Notified,
    Window,
    find_alerts,
    notifications,
    payload,
)
from clickstream_assets.streaming.checkpoint import REBUILD, CheckpointError, PlannedBatch
from clickstream_assets.streaming.windows import QUERY

_COLUMNS = PRODUCT_WINDOWS.column_names
_ALERT_COLUMNS = FLASH_SALE_ALERTS.column_names
assert list(Alert._fields) == _ALERT_COLUMNS
# More than the check of stream and batch looks back for a batch whose records the lake has.
_BATCHES_KEPT = timedelta(days=3)
_BATCHES_BETWEEN_DELETIONS = 1000
_OVERWRITE = "{0} = excluded.{0}"


@dataclass(frozen=True)
class Progress:
    """Progress of the stream.

    Batches are numbered from `base_batch_id` on. Other changes of the tables (a rebuild, other rules, windows closed
    by the clock) take a number too, and raise it: a number is never used twice.
    """

    generation: int
    """Number of times that it was begun anew, each with a checkpoint of its own."""
    base_batch_id: int
    batch_id: int
    """The last batch that is in the tables."""
    watermark: datetime | None
    floor: datetime | None
    """Windows that end by then were rebuilt from the lake, and the stream does not change them."""
    topic: str
    offsets: dict[int, int]
    """Per partition, up to where the tables hold the topic; before the first batch, where to begin."""
    rules: AlertRules | None
    """Rules by which the alerts were found."""
    idle_until: datetime | None = None
    """Windows that end by then were closed because no more records came; None since some have."""

    @property
    def has_begun(self) -> bool:
        """True once a batch of this generation is in the tables."""
        return self.batch_id > self.base_batch_id

    @property
    def closed_until(self) -> datetime | None:
        """Windows that end by then are not changed by any event to come."""
        return max(filter(None, (self.watermark, self.floor)), default=None)

    def with_next_number(self) -> Progress:
        """Take the next number for a change that is no batch; the batches to come are numbered after it."""
        return replace(self, base_batch_id=self.base_batch_id + 1, batch_id=self.batch_id + 1)


class Changes(NamedTuple):
    """Changes of a batch: rows of windows and of alerts, notifications to send; and how many alerts are open then."""

    windows: int
    alerts: int
    notifications: int
    open_alerts: int


def read_progress(connection: psycopg.Connection, *, for_update: bool = False) -> Progress | None:
    """Read the stream's progress; None before its first start."""
    row = connection.execute(
        "SELECT generation, base_batch_id, batch_id, watermark, floor, topic, offsets, alert_rules, idle_until "
        f"FROM stream_progress WHERE query = %s{' FOR UPDATE' if for_update else ''}",
        (QUERY,),
    ).fetchone()
    if row is None:
        return None
    generation, base_batch_id, batch_id, watermark, floor, topic, offsets, rules, idle_until = row
    return Progress(
        generation=generation,
        base_batch_id=base_batch_id,
        batch_id=batch_id,
        watermark=watermark,
        floor=floor,
        topic=topic,
        offsets={int(partition): offset for partition, offset in offsets.items()},
        rules=AlertRules.from_json(rules) if rules else None,
        idle_until=idle_until,
    )


def progress_of(settings: Settings) -> Progress | None:
    """Read the stream's progress on a connection of its own.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        return read_progress(connection)


def write_progress(connection: psycopg.Connection, progress: Progress) -> None:
    """Write the stream's progress."""
    values = {
        "query": QUERY,
        "generation": progress.generation,
        "base_batch_id": progress.base_batch_id,
        "batch_id": progress.batch_id,
        "watermark": progress.watermark,
        "floor": progress.floor,
        "topic": progress.topic,
        "offsets": json.dumps(progress.offsets),
        "alert_rules": json.dumps(progress.rules.to_json() if progress.rules else {}),
        "idle_until": progress.idle_until,
    }
    connection.execute(
        sql.SQL(
            "INSERT INTO stream_progress AS kept ({}, updated_at) VALUES ({}, now()) ON CONFLICT (query) DO UPDATE "
            "SET {}, read_at = CASE WHEN kept.offsets = excluded.offsets THEN kept.read_at ELSE now() END"
        ).format(_each("{}", values), _placeholders(values), _each(_OVERWRITE, [*values, "updated_at"])),
        list(values.values()),
    )


def idle_until(connection: psycopg.Connection, settings: Settings) -> datetime | None:
    """Return up to when windows are to be closed because no record was read for STREAM_IDLE_SECONDS.

    None while records are read, and where no such window is open.
    """
    if not settings.stream_idle_seconds:
        return None
    idle = timedelta(seconds=settings.stream_idle_seconds)
    row = connection.execute(
        "SELECT until FROM stream_progress, LATERAL (SELECT now() - %s - %s) AS late (until) "
        "WHERE query = %s AND read_at < now() - %s "
        "AND EXISTS (SELECT FROM product_windows WHERE NOT is_final AND window_end <= until)",
        (idle, settings.watermark_delay, QUERY, idle),
    ).fetchone()
    return row[0] if row else None


def is_idle(settings: Settings) -> bool:
    """Return whether there are windows that `WindowStore.close_idle` would close.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        return idle_until(connection, settings) is not None


def _each(template: str, columns: Iterable[str]) -> sql.Composed:
    """Return the columns as a comma-separated list, each as the template has it."""
    return sql.SQL(", ").join(sql.SQL(template).format(sql.Identifier(name)) for name in columns)


def _placeholders(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Placeholder() for _ in columns)


class WindowStore:
    """The tables of windows and alerts, written on the owner's connection.

    Args:
        connection: in autocommit; what `ownership` gives.
        settings: thresholds, and where notifications go.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._rules = AlertRules.of(settings)
        self._sinks = ("console", "webhook") if settings.alert_webhook_url else ("console",)
        # A batch is recorded in a thread of Spark's, and the connection has one transaction at a time.
        self._is_writing = threading.Lock()

    def progress(self, first_batch_id: int) -> Progress:
        """Read the stream's progress, and find the alerts anew if they were found by other rules.

        A first start is noted, with batches numbered after `first_batch_id`.
        """
        with self._transaction():
            progress = read_progress(self._connection, for_update=True)
            if progress is None:
                topic = self._settings.kafka_topic
                progress = Progress(1, first_batch_id, first_batch_id, None, None, topic, {}, self._rules)
                write_progress(self._connection, progress)
            elif progress.rules != self._rules:
                progress = replace(progress.with_next_number(), rules=self._rules)
                self._bring_alerts_up_to_date(self._all_times(), is_recount=True)
                write_progress(self._connection, progress)
        return progress

    def record(self, batch_id: int, planned: PlannedBatch, rows: pa.Table) -> Changes:
        """Record a batch, once.

        Args:
            batch_id: Spark's number of the batch.
            planned: its watermark, and up to where it read.
            rows: the windows that it changed: PRODUCT_WINDOWS without `is_final` and `batch_id`.

        Raises:
            CheckpointError: the tables and the checkpoint are not of the same age; nothing was changed.
            PostgresError: the connection broke; nothing was changed, or everything was.
        """
        with self._transaction():
            progress = read_progress(self._connection, for_update=True)
            assert progress is not None
            number = progress.base_batch_id + 1 + batch_id
            self._refuse_other_ages(progress, number, planned)
            if progress.batch_id >= number:
                return Changes(0, 0, 0, self._open_alerts())
            changed = self._put(rows, number, progress.closed_until)
            watermark = max(filter(None, (planned.watermark, progress.watermark)), default=None)
            alerts, sent = self._close(watermark, number)
            offsets = progress.offsets | planned.offsets
            now = replace(
                progress,
                batch_id=number,
                watermark=watermark,
                offsets=offsets,
                idle_until=progress.idle_until if offsets == progress.offsets else None,
            )
            write_progress(self._connection, now)
            self._keep_batch(now)
            return Changes(changed, alerts, sent, self._open_alerts())

    def close_idle(self) -> Changes | None:
        """Close windows that are over by the clock, and resolve their alerts, if no record was read for long.

        For STREAM_IDLE_SECONDS; the caller has seen that there are none to read. None where there is nothing to
        close, or while a batch is being recorded.
        """
        if not self._is_writing.acquire(blocking=False):
            return None
        try:
            with explained(self._settings), self._connection.transaction():
                progress = read_progress(self._connection, for_update=True)
                until = idle_until(self._connection, self._settings)
                if progress is None or until is None:
                    return None
                now = replace(progress.with_next_number(), idle_until=until)
                self._stage()
                alerts, sent = self._close(until, now.batch_id)
                write_progress(self._connection, now)
                return Changes(0, alerts, sent, self._open_alerts())
        finally:
            self._is_writing.release()

    def _refuse_other_ages(self, progress: Progress, number: int, planned: PlannedBatch) -> None:
        """Check that the next batch follows the tables' last one, and that one they have read no further than they."""
        tables = f"POSTGRES_DB={self._settings.postgres_db}"
        if number > progress.batch_id + 1:
            raise CheckpointError(
                f"{tables} holds the stream up to batch {progress.batch_id}, and its checkpoint goes on with batch "
                f"{number}: the database is of an earlier time, as from a backup. Run {REBUILD}"
            )
        beyond = {p: offset for p, offset in planned.offsets.items() if offset > progress.offsets.get(p, 0)}
        if number <= progress.batch_id and beyond:
            raise CheckpointError(
                f"{tables} holds the stream up to batch {progress.batch_id}, but not up to offsets {beyond} of "
                f"{progress.topic}, which batch {number} of its checkpoint reads: the checkpoint is of an earlier "
                f"time, as from a backup. Run {REBUILD}"
            )

    def _close(self, until: datetime | None, batch_id: int) -> tuple[int, int]:
        """Close the windows that end by a time, and bring the alerts up to date.

        Returns:
            The number of alerts that changed, and of notifications.
        """
        if until:
            self._connection.execute(
                "UPDATE product_windows SET is_final = true, batch_id = %s "
                "WHERE NOT is_final AND window_end <= %s",
                (batch_id, until),
            )
        return self._bring_alerts_up_to_date(self._affected(until))

    def _keep_batch(self, progress: Progress) -> None:
        self._connection.execute(
            "INSERT INTO stream_batches (batch_id, watermark, offsets) VALUES (%s, %s, %s)",
            (progress.batch_id, progress.watermark, json.dumps(progress.offsets)),
        )
        if progress.batch_id % _BATCHES_BETWEEN_DELETIONS == 0:
            self._connection.execute(
                "DELETE FROM stream_batches WHERE recorded_at < now() - %s", (_BATCHES_KEPT,)
            )

    def _open_alerts(self) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM flash_sale_alerts WHERE state = 'open'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def rebuild(self, progress: Progress, rows: pa.Table, keeps: bool) -> tuple[int, int]:
        """Replace all windows by others that were computed anew, and find all alerts again.

        Args:
            progress: of the new generation; its `floor` is up to where the rows are final.
            rows: as for `record`.
            keeps: keep open windows of which the stream knows more events; only if they are of the same length.

        Returns:
            The number of windows and of alerts.
        """
        with self._transaction():
            if keeps:
                self._connection.execute(
                    "DELETE FROM product_windows WHERE %s::timestamptz IS NULL OR window_end <= %s",
                    (progress.floor, progress.floor),
                )
                self._connection.execute(
                    "UPDATE product_windows SET is_final = false, batch_id = %s", (progress.batch_id,)
                )
            else:
                self._connection.execute("DELETE FROM product_windows")
            self._put(rows, progress.batch_id, None)
            self._connection.execute(
                "UPDATE product_windows SET is_final = true WHERE window_end <= %s", (progress.floor,)
            )
            # Alerts of later windows may come again with the events that the stream has yet to read.
            self._bring_alerts_up_to_date(self._all_times(), is_recount=True, settled=progress.floor)
            self._connection.execute("DELETE FROM stream_batches")
            write_progress(self._connection, progress)
            counts = self._connection.execute(
                "SELECT (SELECT count(*) FROM product_windows), (SELECT count(*) FROM flash_sale_alerts)"
            ).fetchone()
        assert counts is not None
        return counts[0], counts[1]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._is_writing, explained(self._settings), self._connection.transaction():
            yield

    def _stage(self) -> None:
        # Kept for the connection: a table per batch would leave its traces in the catalogue with each.
        self._connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS staged_windows (LIKE product_windows) ON COMMIT DELETE ROWS"
        )

    def _put(self, rows: pa.Table, batch_id: int, closed_until: datetime | None) -> int:
        """Insert or update windows that end after a time, and return their number.

        A window that the clock closed is open again.
        """
        self._stage()
        complete = rows.append_column(
            "is_final", pa.array([False] * rows.num_rows, pa.bool_())
        ).append_column("batch_id", pa.array([batch_id] * rows.num_rows, pa.int64()))
        columns = _each("{}", _COLUMNS)
        copy_statement = sql.SQL("COPY pg_temp.staged_windows ({}) FROM STDIN (FORMAT csv)").format(columns)
        count = copy_rows(self._connection, copy_statement, PRODUCT_WINDOWS, complete)
        assignments = _each(_OVERWRITE, (name for name in _COLUMNS if name not in PRODUCT_WINDOWS.key))
        # A window never loses events. A row with fewer comes only from a stream that reads a part of the topic again
        # after a rebuild, and has not come to its end.
        self._connection.execute(
            sql.SQL(
                "INSERT INTO product_windows AS kept ({columns}) SELECT {columns} FROM pg_temp.staged_windows "
                "WHERE {closed}::timestamptz IS NULL OR window_end > {closed} "
                "ON CONFLICT (window_start, product_id) DO UPDATE SET {assignments} "
                "WHERE excluded.total_events >= kept.total_events"
            ).format(columns=columns, assignments=assignments, closed=closed_until)
        )
        return count

    def _all_times(self) -> dict[str, datetime]:
        """Return all products with a window over the threshold or an alert, and the first time of one."""
        rows = self._connection.execute(
            "SELECT product_id, min(since) FROM ("
            "SELECT product_id, window_start AS since FROM product_windows "
            "WHERE views > %s AND purchases < %s "
            "UNION ALL SELECT product_id, first_window_start FROM flash_sale_alerts "
            "UNION ALL SELECT product_id, first_window_start FROM notified_alerts) AS all_times GROUP BY 1",
            (self._rules.views, self._rules.purchases),
        ).fetchall()
        return dict(rows)

    def _affected(self, closed_until: datetime | None) -> dict[str, datetime]:
        """Return the products whose alerts can have changed, and since when.

        These have a changed window over the threshold, or an alert that a changed window can belong to or precede, or
        an alert whose first or last window is closed by now.
        """
        rules = self._rules
        rows = self._connection.execute(
            """
            WITH changed AS (
                SELECT product_id, min(window_start) AS since, bool_or(views > %(views)s AND purchases < %(purchases)s)
                    AS is_over
                FROM pg_temp.staged_windows GROUP BY product_id
            ), times AS (
                SELECT product_id, since FROM changed WHERE is_over
                UNION ALL
                SELECT product_id, least(since, first_window_start)
                FROM changed JOIN flash_sale_alerts USING (product_id)
                WHERE last_window_end + %(cooldown)s >= since
                UNION ALL
                SELECT product_id, first_window_start FROM flash_sale_alerts
                WHERE state = 'open' AND (last_window_end <= %(closed)s OR NOT is_confirmed
                    AND first_window_start + (window_end - window_start) <= %(closed)s)
                UNION ALL
                SELECT product_id, first_window_start FROM notified_alerts
                WHERE kind IN ('opened', 'updated') AND last_window_end <= %(closed)s
            )
            SELECT product_id, min(since) FROM times GROUP BY product_id
            """,
            {
                "views": rules.views,
                "purchases": rules.purchases,
                "cooldown": rules.cooldown,
                "closed": closed_until,
            },
        ).fetchall()
        return dict(rows)

    def _bring_alerts_up_to_date(
        self, since: Mapping[str, datetime], *, is_recount: bool = False, settled: datetime | None = None
    ) -> tuple[int, int]:
        """Find the alerts of products since a time again, and note what is to be notified.

        `is_recount` and `settled` are those of `notifications`.

        Returns:
            The number of alerts that are new, changed or gone, and of notifications.
        """
        if not since:
            return 0, 0
        scope = (list(since), list(since.values()))
        windows = self._windows(scope)
        notified = self._notified(scope)
        alerts: dict[str, list[Alert]] = {
            product_id: [
                alert
                for alert in find_alerts(product_id, windows[product_id], self._rules)
                if alert.first_window_start >= start
            ]
            for product_id, start in since.items()
        }
        changed = self._replace_alerts(scope, [alert for found in alerts.values() for alert in found])
        due = [
            (product_id, notification)
            for product_id, found in alerts.items()
            for notification in notifications(
                found, notified[product_id], self._rules.cooldown, is_recount=is_recount, settled=settled
            )
        ]
        self._put_into_outbox(due)
        self._connection.execute(
            "UPDATE notified_alerts AS notified SET first_window_start = alert.first_window_start, "
            "last_window_end = alert.last_window_end FROM flash_sale_alerts AS alert "
            "WHERE alert.alert_id = notified.alert_id AND notified.product_id = ANY(%s) AND kind <> 'withdrawn' "
            "AND notified.last_window_end <> alert.last_window_end",
            (scope[0],),
        )
        return changed, sum(not notification.is_silent for _, notification in due)

    def _windows(self, scope: tuple[list[str], list[datetime]]) -> dict[str, list[Window]]:
        rows = self._connection.execute(
            "SELECT product_id, window_start, window_end, views, purchases, product_category, is_final "
            "FROM unnest(%s::text[], %s::timestamptz[]) AS scope (product_id, since) "
            "JOIN product_windows USING (product_id) WHERE window_start >= since - %s",
            (*scope, HISTORY + self._settings.window_duration),
        )
        windows: dict[str, list[Window]] = defaultdict(list)
        for product_id, *fields in rows:
            windows[product_id].append(Window(*fields))
        return windows

    def _notified(self, scope: tuple[list[str], list[datetime]]) -> dict[str, list[Notified]]:
        rows = self._connection.execute(
            "SELECT product_id, notified_id, alert_id, kind, sequence, first_window_start, last_window_end "
            "FROM unnest(%s::text[], %s::timestamptz[]) AS scope (product_id, since) "
            "JOIN notified_alerts USING (product_id) WHERE first_window_start >= since "
            "OR (kind = 'withdrawn' AND last_window_end >= since - %s) ORDER BY first_window_start",
            (*scope, self._rules.cooldown),
        )
        notified: dict[str, list[Notified]] = defaultdict(list)
        for product_id, notified_id, alert_id, kind, *fields in rows:
            notified[product_id].append(Notified(notified_id, alert_id, Kind(kind), *fields))
        return notified

    def _replace_alerts(self, scope: tuple[list[str], list[datetime]], alerts: list[Alert]) -> int:
        """Make these the alerts of the scope, and return how many rows that changed."""
        deleted = self._connection.execute(
            "DELETE FROM flash_sale_alerts USING unnest(%s::text[], %s::timestamptz[]) AS scope (id_of_product, since) "
            "WHERE product_id = id_of_product AND first_window_start >= since AND alert_id <> ALL(%s)",
            (*scope, [alert.alert_id for alert in alerts]),
        )
        values = [name for name in _ALERT_COLUMNS if name not in FLASH_SALE_ALERTS.key]
        statement = sql.SQL(
            "INSERT INTO flash_sale_alerts AS kept ({columns}) VALUES ({placeholders}) "
            "ON CONFLICT (alert_id) DO UPDATE SET {assignments} WHERE ({old}) IS DISTINCT FROM ({new})"
        ).format(
            columns=_each("{}", _ALERT_COLUMNS),
            placeholders=_placeholders(_ALERT_COLUMNS),
            assignments=_each(_OVERWRITE, values),
            old=_each("kept.{}", values),
            new=_each("excluded.{}", values),
        )
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, alerts)
            written = cursor.rowcount if alerts else 0
        return deleted.rowcount + written

    def _put_into_outbox(self, due: Iterable[tuple[str, Notification]]) -> None:
        """Note the notifications of products, and put each into the outbox, once per sink."""
        for product_id, notification in due:
            noted = notification.noted
            values = {**noted._asdict(), "product_id": product_id}
            self._connection.execute(
                sql.SQL(
                    "INSERT INTO notified_alerts ({}) VALUES ({}) ON CONFLICT (notified_id) DO UPDATE SET {}"
                ).format(_each("{}", values), _placeholders(values), _each(_OVERWRITE, values)),
                list(values.values()),
            )
            body = Jsonb(payload(notification, product_id))
            for sink in () if notification.is_silent else self._sinks:
                self._connection.execute(
                    "INSERT INTO alert_notifications (notified_id, sequence, kind, sink, payload) "
                    "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (notified_id, sequence, sink) DO NOTHING",
                    (noted.notified_id, noted.sequence, noted.kind, sink, body),
                )
