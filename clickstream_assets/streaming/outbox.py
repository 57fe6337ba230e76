"""Delivery of notifications: from the outbox `alert_notifications` to a console or a webhook.

Each notification goes to its sink at least once, and those of one alert in their order. A webhook gets a POST with the
notification as JSON, as `stores/webhook.py` says; its `webhook-id` stays the same however often it is sent, and with
ALERT_WEBHOOK_SECRET it is signed.

Any 2xx answer means that it was taken. 408, 429, 5xx and no answer in time are tried again later; every other answer
is final.
"""

import logging
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TextIO, TypeAlias

import psycopg

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.webhook import DeliveryError, poster
from clickstream_assets.streaming import waits
from clickstream_assets.streaming.alerts import Withdrawal

_WIDTH = 72
_log = logging.getLogger(__name__)


class Pending(NamedTuple):
    """A notification of the outbox, for one sink."""

    id: int
    notified_id: str
    sequence: int
    kind: str
    sink: str
    payload: dict[str, Any]
    attempts: int


Sink: TypeAlias = Callable[[Pending], None]
"""Sends a notification; raises `DeliveryError` if it is not taken."""


def deliver_pending(settings: Settings, seconds: float = 10, console: TextIO | None = None) -> int:
    """Deliver what is due, in order; safe to call from several processes at once.

    A sink that does not take a notification is left alone for the rest of the call, and tried again by later ones
    after `waits.DELIVERY`. After ALERT_DELIVERY_ATTEMPTS attempts the notification has failed, and stays in the
    outbox as such.

    Args:
        settings: name the database, the webhook and how often to try.
        seconds: nothing is begun after this long, so that a caller can rely on its time.
        console: where the console's notifications go (default: standard output).

    Returns:
        The number of notifications that were delivered.

    Raises:
        PostgresError: the database cannot be reached.
    """
    delivered = 0
    deadline = time.monotonic() + seconds
    with (
        _sinks(settings, console or sys.stdout) as sinks,
        explained(settings),
        connect(settings) as connection,
    ):
        while sinks and time.monotonic() < deadline:
            # The row is locked while the notification is sent, so that nobody else sends it too.
            with connection.transaction():
                notification = _next_due(connection, list(sinks))
                if notification is None:
                    break
                try:
                    sinks[notification.sink](notification)
                except DeliveryError as error:
                    _note_failure(connection, notification, error, settings.alert_delivery_attempts)
                    if error.retryable:
                        del sinks[notification.sink]
                else:
                    connection.execute(
                        "UPDATE alert_notifications SET delivered_at = now(), attempts = attempts + 1, "
                        "last_error = NULL WHERE id = %s",
                        [notification.id],
                    )
                    delivered += 1
    return delivered


def _next_due(connection: psycopg.Connection, sinks: list[str]) -> Pending | None:
    """Lock and return the oldest notification that is due; one waits for those of the same alert before it."""
    row = connection.execute(
        "SELECT id, notified_id, sequence, kind, sink, payload, attempts FROM alert_notifications AS due "
        "WHERE delivered_at IS NULL AND failed_at IS NULL AND next_attempt_at <= now() AND sink = ANY(%s) "
        "AND NOT EXISTS (SELECT FROM alert_notifications AS earlier WHERE earlier.notified_id = due.notified_id "
        "AND earlier.sink = due.sink AND earlier.sequence < due.sequence "
        "AND earlier.delivered_at IS NULL AND earlier.failed_at IS NULL) "
        "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        [sinks],
    ).fetchone()
    return Pending(*row) if row else None


def _note_failure(
    connection: psycopg.Connection, notification: Pending, error: DeliveryError, most_attempts: int
) -> None:
    attempts = notification.attempts + 1
    has_failed = not error.retryable or attempts >= most_attempts
    wait = waits.wait_after(attempts, waits.DELIVERY)
    connection.execute(
        "UPDATE alert_notifications SET attempts = %s, last_error = %s, next_attempt_at = now() + %s, "
        "failed_at = CASE WHEN %s THEN now() END WHERE id = %s",
        [attempts, str(error), timedelta(seconds=wait), has_failed, notification.id],
    )
    _log.warning(
        "notification %d for the %s was not taken (attempt %d): %s; %s",
        notification.id,
        notification.sink,
        attempts,
        error,
        "given up" if has_failed else f"next attempt in {wait:.0f} s",
    )


@contextmanager
def _sinks(settings: Settings, console: TextIO) -> Iterator[dict[str, Sink]]:
    """Open the sinks, by the names that notifications have them under."""
    sinks: dict[str, Sink] = {"console": partial(_show, console)}
    url = settings.alert_webhook_url
    if url is None:
        yield sinks
        return
    with poster(settings.alert_webhook_timeout_seconds) as webhook:

        def post(notification: Pending) -> None:
            name = f"{notification.notified_id}-{notification.sequence}"
            secret = settings.alert_webhook_secret
            webhook.post(url.get_secret_value(), name, notification.payload, secret, "ALERT_WEBHOOK_URL")

        yield {**sinks, "webhook": post}


_TITLES = {
    "opened": "FLASH SALE OPPORTUNITY",
    "updated": "FLASH SALE OPPORTUNITY, UPDATED",
    "resolved": "FLASH SALE OPPORTUNITY IS OVER",
    "withdrawn": "FLASH SALE OPPORTUNITY IS WITHDRAWN",
}

_WITHDRAWALS = {
    Withdrawal.SOLD: "it sold before its windows were closed",
    Withdrawal.RECOUNTED: "counted anew, its windows are not over the thresholds",
}


def _show(console: TextIO, notification: Pending) -> None:
    try:
        console.write(box(notification.kind, notification.payload))
        console.flush()
    except OSError as error:
        raise DeliveryError(f"the console cannot be written to: {error}", retryable=True) from error


def box(kind: str, payload: dict[str, Any]) -> str:
    """Draw a notification for people."""
    lines = {"Product": payload["product_id"]}
    if payload.get("product_category"):
        lines["Category"] = payload["product_category"]
    if kind == "withdrawn":
        lines["Since"] = _minute(payload["first_window_start"])
        # A notification of an earlier version says no reason.
        if payload.get("reason"):
            lines["Why"] = _WITHDRAWALS[payload["reason"]]
    else:
        lines["Window"] = f"{_minute(payload['window_start'])} to {_minute(payload['window_end'])}"
        lines["Views"] = f"{payload['views']:,}"
        lines["Purchases"] = f"{payload['purchases']:,}"
        if payload.get("usual_views") is not None:
            lines["Usual views"] = f"{payload['usual_views']:,.1f}"
    rows = [
        f"{name + ':' if number == 0 else '':<13}{part}"
        for name, value in lines.items()
        for number, part in enumerate(textwrap.wrap(_printable(value), _WIDTH - 17) or [""])
    ]
    rule = "+" + "-" * (_WIDTH - 2) + "+"
    framed = [f"| {row:<{_WIDTH - 4}} |" for row in [_TITLES[kind], *rows]]
    return "\n".join([rule, framed[0], rule, *framed[1:], rule, ""])


def _minute(time_text: str) -> str:
    return f"{datetime.fromisoformat(time_text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _printable(text: str) -> str:
    """Return the text without characters that a terminal would act on: ids come from outside."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
