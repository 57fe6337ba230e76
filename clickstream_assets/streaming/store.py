"""The stream's tables in PostgreSQL: windows, alerts and their notifications.

All changes of a batch are one transaction, which also notes the batch's number. A batch that is run again after a
crash finds its number and changes nothing.

Once no more records come, no watermark closes the last windows: `close_idle` does, by the clock. Should events come
for them after all, they are open again.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.types.json import Jsonb

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import to_json
from clickstream_assets.stores.postgres.connection import explained
from clickstream_assets.stores.postgres.publishing import copy_rows
from clickstream_assets.stores.postgres.statements import each, upsert
from clickstream_assets.streaming.alerts import (
    HISTORY,
    Alert,
    AlertRules,
    Notification,
    NotificationKind,
    Notified,
    Window,
    find_alerts,
    notifications,
    payload,
)
from clickstream_assets.streaming.checkpoint import REBUILD, CheckpointError, PlannedBatch
from clickstream_assets.streaming.progress import Progress, idle_until, read_progress, write_progress

_COLUMNS = PRODUCT_WINDOWS.column_names
_ALERT_COLUMNS = FLASH_SALE_ALERTS.column_names
assert list(Alert._fields) == _ALERT_COLUMNS
# More than the check of stream and batch looks back for a batch whose records the lake has.
_BATCHES_KEPT = timedelta(days=3)
_BATCHES_BETWEEN_DELETIONS = 1000


def windows_by_product(rows: Iterable[Sequence[Any]]) -> dict[str, list[Window]]:
    """Group rows of a product's id and the fields of a `Window`."""
    windows: dict[str, list[Window]] = defaultdict(list)
    for product_id, *fields in rows:
        windows[product_id].append(Window(*fields))
    return windows


class Changes(NamedTuple):
    """Changes of a batch: rows of windows and of alerts, notifications to send; and how many alerts are open then."""

    windows: int
    alerts: int
    notifications: int
    open_alerts: int


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
                progress = Progress(1, first_batch_id, first_batch_id, None, None, {}, self._rules)
                write_progress(self._connection, progress)
            elif progress.alert_rules != self._rules:
                progress = replace(progress.with_next_number(), alert_rules=self._rules)
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
            alerts, queued = self._close_windows(watermark, number)
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
            return Changes(changed, alerts, queued, self._open_alerts())

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
                alerts, queued = self._close_windows(until, now.batch_id)
                write_progress(self._connection, now)
                return Changes(0, alerts, queued, self._open_alerts())
        finally:
            self._is_writing.release()

    def refuse_older_tables(self, progress: Progress, done: int) -> None:
        """Check that the tables have the last batch, by Spark's number, that the checkpoint says is done.

        Raises:
            CheckpointError: they have not.
        """
        number = progress.base_batch_id + 1 + done
        if number > progress.batch_id:
            raise CheckpointError(
                f"{self._tables} holds the stream up to batch {progress.batch_id}, and its checkpoint up to batch "
                f"{number}: the database is of an earlier time, as from a backup. Run {REBUILD}"
            )

    @property
    def _tables(self) -> str:
        return f"POSTGRES_DB={self._settings.postgres_db}"

    def _refuse_other_ages(self, progress: Progress, number: int, planned: PlannedBatch) -> None:
        """Check that the next batch follows the tables' last one, and that one they have read no further than they."""
        self.refuse_older_tables(progress, number - progress.base_batch_id - 2)
        beyond = {p: offset for p, offset in planned.offsets.items() if offset > progress.offsets.get(p, 0)}
        if number <= progress.batch_id and beyond:
            raise CheckpointError(
                f"{self._tables} holds the stream up to batch {progress.batch_id}, but not up to offsets {beyond}, "
                f"which batch {number} of its checkpoint reads: the checkpoint is of an earlier time, as from a "
                f"backup. Run {REBUILD}"
            )

    def _close_windows(self, until: datetime | None, batch_id: int) -> tuple[int, int]:
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
            (progress.batch_id, progress.watermark, json.dumps(to_json(progress.offsets))),
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
        columns = each("{}", _COLUMNS)
        copy_statement = sql.SQL("COPY pg_temp.staged_windows ({}) FROM STDIN (FORMAT csv)").format(columns)
        count = copy_rows(self._connection, copy_statement, PRODUCT_WINDOWS, complete)
        assignments = each(
            "{0} = excluded.{0}", (name for name in _COLUMNS if name not in PRODUCT_WINDOWS.key)
        )
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
        return windows_by_product(rows)

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
            notified[product_id].append(Notified(notified_id, alert_id, NotificationKind(kind), *fields))
        return notified

    def _replace_alerts(self, scope: tuple[list[str], list[datetime]], alerts: list[Alert]) -> int:
        """Make these the alerts of the scope, and return how many rows that changed."""
        deleted = self._connection.execute(
            "DELETE FROM flash_sale_alerts USING unnest(%s::text[], %s::timestamptz[]) AS scope (id_of_product, since) "
            "WHERE product_id = id_of_product AND first_window_start >= since AND alert_id <> ALL(%s)",
            (*scope, [alert.alert_id for alert in alerts]),
        )
        differs = sql.SQL(" WHERE ({}) IS DISTINCT FROM ({})").format(
            each("kept.{}", _ALERT_COLUMNS), each("excluded.{}", _ALERT_COLUMNS)
        )
        statement = upsert("flash_sale_alerts", "alert_id", _ALERT_COLUMNS) + differs
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, alerts)
            written = cursor.rowcount if alerts else 0
        return deleted.rowcount + written

    def _put_into_outbox(self, due: Iterable[tuple[str, Notification]]) -> None:
        """Note the notifications of products, and put each into the outbox, once per sink."""
        for product_id, notification in due:
            noted = notification.noted
            values = {**noted._asdict(), "product_id": product_id}
            statement = upsert("notified_alerts", "notified_id", values)
            self._connection.execute(statement, list(values.values()))
            body = Jsonb(payload(notification, product_id))
            for sink in () if notification.is_silent else self._sinks:
                self._connection.execute(
                    "INSERT INTO alert_notifications (notified_id, sequence, kind, sink, payload) "
                    "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (notified_id, sequence, sink) DO NOTHING",
                    (noted.notified_id, noted.sequence, noted.kind, sink, body),
                )
