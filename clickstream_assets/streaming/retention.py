"""Deletes old windows, and what was notified long ago: in PostgreSQL, then windows in the lake's copy.

Windows that an alert rests on stay with it: those of its episode, and those of the time before that its usual views
come from. So alerts are still a function of the windows that there are, whenever they are found again.
"""

from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

import psycopg
from psycopg import sql

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.streaming.alerts import HISTORY
from clickstream_assets.streaming.lake_copies import read_rows, snapshot
from clickstream_assets.streaming.store import read_progress

# The reconciliation of stream and batch looks back two days.
LEAST_DAYS = 3
# The stream waits for each of these transactions.
ROWS_PER_TRANSACTION = 20_000


class Deleted(NamedTuple):
    """Numbers of rows that were deleted from PostgreSQL."""

    windows: int = 0
    notifications: int = 0
    notified_alerts: int = 0


def delete_expired(settings: Settings) -> Deleted:
    """Delete windows past WINDOWS_RETENTION_DAYS, and what was notified before NOTIFICATIONS_RETENTION_DAYS.

    Windows and alerts are as old as the stream's event time says, so those of old events that are replayed stay.
    Messages that are still to be delivered stay. Can be interrupted and repeated at any time.

    Raises:
        PostgresError: the database cannot be reached.
    """
    deleted = Deleted()
    if not (settings.windows_retention_days or settings.notifications_retention_days):
        return deleted
    with explained(settings), connect(settings, autocommit=True) as connection:
        if before := _expiry(connection, settings.windows_retention_days):
            chunk = ROWS_PER_TRANSACTION
            while chunk == ROWS_PER_TRANSACTION:
                chunk = _delete_windows(connection, settings, before)
                deleted = deleted._replace(windows=deleted.windows + chunk)
        if days := settings.notifications_retention_days:
            delivered = connection.execute(
                "DELETE FROM alert_notifications WHERE coalesce(delivered_at, failed_at) < now() - %s",
                [timedelta(days=days)],
            )
            deleted = deleted._replace(notifications=delivered.rowcount)
        if before := _expiry(connection, settings.notifications_retention_days):
            notified = connection.execute(
                "DELETE FROM notified_alerts WHERE kind IN ('resolved', 'withdrawn') AND last_window_end < %s",
                [before],
            )
            deleted = deleted._replace(notified_alerts=notified.rowcount)
    return deleted


def _expiry(connection: psycopg.Connection, days: int) -> datetime | None:
    """Return the midnight before which event time is further back than some days; None where all is kept."""
    progress = read_progress(connection)
    if not days or progress is None or progress.watermark is None:
        return None
    newest = min(progress.watermark, datetime.now(UTC)).astimezone(UTC).date()
    return datetime.combine(newest - timedelta(days=max(days, LEAST_DAYS)), time(), UTC)


def _delete_windows(connection: psycopg.Connection, settings: Settings, before: datetime) -> int:
    with connection.transaction():
        # The lock of whoever records a batch: no alert can come to rest on what is being deleted.
        read_progress(connection, for_update=True)
        return connection.execute(
            "DELETE FROM product_windows WHERE (window_start, product_id) IN ("
            "SELECT window_start, product_id FROM product_windows AS old "
            "WHERE window_start < %s AND is_final AND NOT EXISTS ("
            "SELECT FROM flash_sale_alerts AS alert WHERE alert.product_id = old.product_id "
            "AND old.window_start >= alert.first_window_start - %s AND old.window_end <= alert.last_window_end) "
            "LIMIT %s)",
            (before, HISTORY + settings.window_duration, ROWS_PER_TRANSACTION),
        ).rowcount


def update_old_copies(settings: Settings, lake: Lake) -> int:
    """Bring the days of the lake's `product_windows` that are past WINDOWS_RETENTION_DAYS up to PostgreSQL's.

    Returns:
        How many rows fewer the lake has.

    Raises:
        PostgresError: the database cannot be reached.
        LakeConflictError: the stream updated the copy meanwhile; nothing was changed.
    """
    if not settings.windows_retention_days:
        return 0
    with snapshot(settings) as connection:
        before = _expiry(connection, settings.windows_retention_days)
        copied = lake.snapshot(PRODUCT_WINDOWS).rows_by("window_date")
        old = {day: rows for day, rows in copied.items() if before and day < before.date()}
        if not old:
            return 0
        of_days = sql.SQL("window_date BETWEEN {} AND {}").format(min(old), max(old))
        rows = read_rows(connection, PRODUCT_WINDOWS, of_days)
    surplus = sum(old.values()) - rows.num_rows
    if surplus:
        kept = lake.engine.from_arrow(rows)
        lake.replace(PRODUCT_WINDOWS, kept, days=(min(old), max(old)))
        lake.engine.release(kept)
    return surplus
