"""Delivery of what there is to tell of alerts: from the outbox `alert_notifications` to a console or a webhook.

Each message of the outbox goes to its sink at least once, and those of one alert in their order. A webhook gets a
POST with the message as JSON and these headers:

- `Idempotency-Key`: names the message; it is the same however often the message is sent.
- `Clickstream-Timestamp`: when it was sent, in seconds since 1970.
- `Clickstream-Signature`, if ALERT_WEBHOOK_SECRET is set: `v1=` and the hexadecimal HMAC-SHA256, under that secret,
  of the timestamp, a full stop and the body. A receiver computes it anew, compares in constant time, and refuses
  timestamps that are minutes old.

Any 2xx answer means that it was taken. 408, 429, 5xx and no answer in time are tried again later; every other answer
is final.
"""

from __future__ import annotations

import hmac
import logging
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TextIO, TypeAlias

import msgspec
import psycopg
import urllib3

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.streaming.alerts import Withdrawal

FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=15)

_WIDTH = 72
_log = logging.getLogger(__name__)


class DeliveryError(RuntimeError):
    """A message was not taken.

    Attributes:
        is_final: Whether sending it again would be of no use.
    """

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Notification(NamedTuple):
    """A message of the outbox, for one sink."""

    id: int
    told_id: str
    sequence: int
    kind: str
    sink: str
    payload: dict[str, Any]
    attempts: int

    @property
    def idempotency_key(self) -> str:
        """What a receiver knows it by when it comes twice."""
        return f"{self.told_id}-{self.sequence}"


Sink: TypeAlias = Callable[[Notification], None]
"""Gives a message to somebody; raises `DeliveryError` if they do not take it."""


def deliver_pending(settings: Settings, seconds: float = 10, console: TextIO | None = None) -> int:
    """Deliver what is due, in order; safe to call from several processes at once.

    A sink that does not take a message is left alone for the rest of the call, and tried again by later ones after
    5 seconds and then ever longer, up to a quarter of an hour. After ALERT_DELIVERY_ATTEMPTS attempts the message
    has failed, and stays in the outbox as such.

    Args:
        settings: name the database, the webhook and its limits.
        seconds: nothing is begun after this long, so that a caller can rely on its time.
        console: where the console's messages go (default: standard output).

    Returns:
        How many messages were delivered.

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
            # The row is locked while it is sent, so that nobody else sends it too.
            with connection.transaction():
                notification = _next_due(connection, list(sinks))
                if notification is None:
                    break
                try:
                    sinks[notification.sink](notification)
                except DeliveryError as error:
                    _note_failure(connection, notification, error, settings.alert_delivery_attempts)
                    if not error.is_final:
                        del sinks[notification.sink]
                else:
                    connection.execute(
                        "UPDATE alert_notifications SET delivered_at = now(), attempts = attempts + 1, "
                        "last_error = NULL WHERE id = %s",
                        [notification.id],
                    )
                    delivered += 1
    return delivered


def _next_due(connection: psycopg.Connection, sinks: list[str]) -> Notification | None:
    """Lock and return the oldest message that is due; one waits for those of the same alert before it."""
    row = connection.execute(
        "SELECT id, told_id, sequence, kind, sink, payload, attempts FROM alert_notifications AS message "
        "WHERE delivered_at IS NULL AND failed_at IS NULL AND next_attempt_at <= now() AND sink = ANY(%s) "
        "AND NOT EXISTS (SELECT FROM alert_notifications AS earlier WHERE earlier.told_id = message.told_id "
        "AND earlier.sink = message.sink AND earlier.sequence < message.sequence "
        "AND earlier.delivered_at IS NULL AND earlier.failed_at IS NULL) "
        "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        [sinks],
    ).fetchone()
    return Notification(*row) if row else None


def _note_failure(
    connection: psycopg.Connection, notification: Notification, error: DeliveryError, most_attempts: int
) -> None:
    attempts = notification.attempts + 1
    has_failed = error.is_final or attempts >= most_attempts
    # The exponent is bounded, as an interval of years is none any more.
    wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 16), LONGEST_WAIT)
    connection.execute(
        "UPDATE alert_notifications SET attempts = %s, last_error = %s, next_attempt_at = now() + %s, "
        "failed_at = CASE WHEN %s THEN now() END WHERE id = %s",
        [attempts, str(error), wait, has_failed, notification.id],
    )
    _log.warning(
        "notification %d for the %s was not taken (attempt %d): %s; %s",
        notification.id,
        notification.sink,
        attempts,
        error,
        "given up" if has_failed else f"next attempt in {wait.total_seconds():.0f} s",
    )


@contextmanager
def _sinks(settings: Settings, console: TextIO) -> Iterator[dict[str, Sink]]:
    """The sinks that there are, by the name that messages have them under."""
    sinks: dict[str, Sink] = {"console": partial(_show, console)}
    if settings.alert_webhook_url is None:
        yield sinks
        return
    with urllib3.PoolManager(timeout=settings.alert_webhook_timeout_seconds, retries=False) as http:
        yield {**sinks, "webhook": partial(_post, http, settings)}


def _post(http: urllib3.PoolManager, settings: Settings, notification: Notification) -> None:
    assert settings.alert_webhook_url
    body = msgspec.json.encode(notification.payload)
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "clickstream-assets",
        "Idempotency-Key": notification.idempotency_key,
        "Clickstream-Timestamp": timestamp,
    }
    if settings.alert_webhook_secret:
        headers["Clickstream-Signature"] = sign(
            settings.alert_webhook_secret.get_secret_value(), timestamp, body
        )
    try:
        # The body of the answer is nobody's business, and could be endless.
        answer = http.request(
            "POST",
            settings.alert_webhook_url,
            body=body,
            headers=headers,
            redirect=False,
            preload_content=False,
        )
    except urllib3.exceptions.LocationValueError as error:
        raise DeliveryError(f"ALERT_WEBHOOK_URL cannot be used: {error}", is_final=True) from error
    except urllib3.exceptions.HTTPError as error:
        # Not its text: that has the address, and with it what the operator keeps secret in there.
        raise DeliveryError(f"no answer ({type(error).__name__})", is_final=False) from error
    # Closed rather than given back, as what it still has to say was not read.
    answer.close()
    if not 200 <= answer.status < 300:
        is_final = answer.status < 500 and answer.status not in (408, 429)
        raise DeliveryError(f"HTTP {answer.status}", is_final=is_final)


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a webhook's request, as the module's text describes it."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()
    return f"v1={digest}"


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


def _show(console: TextIO, notification: Notification) -> None:
    try:
        console.write(box(notification.kind, notification.payload))
        console.flush()
    except OSError as error:
        raise DeliveryError(f"the console cannot be written to: {error}", is_final=False) from error


def box(kind: str, payload: dict[str, Any]) -> str:
    """Draw a message for people."""
    lines = {"Product": payload["product_id"]}
    if payload.get("product_category"):
        lines["Category"] = payload["product_category"]
    if kind == "withdrawn":
        lines["Since"] = _minute(payload["first_window_start"])
        # A message of an earlier version says no reason.
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
    """The text without what a terminal would act on: ids come from outside."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
