"""Flash-sale alerts and their notifications: pure functions of a product's windows and of earlier notifications.

No clock, no database: the same windows give the same alerts, in whatever batches they came.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from math import sqrt
from typing import Any, NamedTuple, Self

from clickstream_assets.catalogue.units import percent
from clickstream_assets.settings import Settings

HISTORY = timedelta(hours=24)
LEAST_HISTORY = timedelta(hours=1)


class AlertState(StrEnum):
    """State of an alert: open while its last window is."""

    OPEN = "open"
    RESOLVED = "resolved"


class Window(NamedTuple):
    """A window of one product."""

    start: datetime
    end: datetime
    views: int
    purchases: int
    category: str | None = None
    is_final: bool = False


@dataclass(frozen=True)
class AlertRules:
    """Thresholds of a window that is alerted about, and the rule by which windows make an episode."""

    views: int
    purchases: int
    cooldown: timedelta
    slide: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the rules from the settings."""
        return cls(
            views=settings.views_threshold,
            purchases=settings.purchases_threshold,
            cooldown=timedelta(minutes=settings.alert_cooldown_minutes),
            slide=settings.slide_duration,
        )

    def matches(self, window: Window) -> bool:
        """Return whether a window has more views than the threshold, and fewer purchases."""
        return window.views > self.views and window.purchases < self.purchases


class Alert(NamedTuple):
    """An episode; the fields are the columns of FLASH_SALE_ALERTS."""

    window_start: datetime
    window_end: datetime
    product_id: str
    views: int
    purchases: int
    alert_id: str
    product_category: str | None
    state: AlertState
    conversion_rate: Decimal
    first_window_start: datetime
    last_window_end: datetime
    windows: int
    resolved_at: datetime | None
    usual_views: float | None
    unusualness: float | None
    is_confirmed: bool


def find_alerts(product_id: str, windows: Iterable[Window], rules: AlertRules) -> list[Alert]:
    """Find the episodes of a product, in order.

    A window over the threshold that starts no later than a cool-down after the end of the one before belongs to the
    same episode. An episode is open until its last window is final, and confirmed once its first one is: before that,
    purchases may yet refute all of it.

    Args:
        product_id: the product.
        windows: the windows of the episodes and of the 24 hours before them.
        rules: thresholds and cool-down.
    """
    in_order = sorted(windows)
    episodes: list[list[Window]] = []
    for window in in_order:
        if not rules.matches(window):
            continue
        if episodes and window.start <= episodes[-1][-1].end + rules.cooldown:
            episodes[-1].append(window)
        else:
            episodes.append([window])
    return [_alert(product_id, episode, in_order, rules) for episode in episodes]


def _alert(
    product_id: str,
    episode: Sequence[Window],
    windows: Sequence[Window],
    rules: AlertRules,
) -> Alert:
    first, last = episode[0].start, episode[-1].end
    # Of windows with the same views, the first.
    peak = max(episode, key=lambda window: window.views)
    is_over = episode[-1].is_final
    usual, unusualness = _usual_views(peak.views, first, windows, rules)
    return Alert(
        window_start=peak.start,
        window_end=peak.end,
        product_id=product_id,
        views=peak.views,
        purchases=peak.purchases,
        alert_id=alert_id(product_id, first),
        product_category=peak.category,
        state=AlertState.RESOLVED if is_over else AlertState.OPEN,
        conversion_rate=percent(peak.purchases, peak.views),
        first_window_start=first,
        last_window_end=last,
        windows=len(episode),
        resolved_at=last if is_over else None,
        usual_views=usual,
        unusualness=unusualness,
        is_confirmed=episode[0].is_final,
    )


def alert_id(product_id: str, first_window_start: datetime) -> str:
    """Return the id of the episode that begins with a product's window."""
    key = f"{product_id}\n{first_window_start.timestamp():.6f}"
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _usual_views(
    views: int, episode_start: datetime, windows: Sequence[Window], rules: AlertRules
) -> tuple[float | None, float | None]:
    """Return the product's usual views, and how many standard deviations `views` is above them.

    Usual is the mean over the windows that ended before the episode, within 24 hours and since the product was first
    seen in them; a window without a row had 0 views. The deviation is the sample's, but no less than chance alone
    gives: counts of independent events are Poisson, whose standard deviation is the root of the mean (NIST/SEMATECH
    e-Handbook of Statistical Methods, 6.3.3.1, counts control charts); a mean below 1 is taken for 1. Null with less
    than an hour of past.
    """
    past = [w for w in windows if w.start >= episode_start - HISTORY and w.end <= episode_start]
    if not past or episode_start - past[0].start < LEAST_HISTORY:
        return None, None
    length = past[0].end - past[0].start
    number = (episode_start - length - past[0].start) // rules.slide + 1
    mean = sum(w.views for w in past) / number
    squares = sum((w.views - mean) ** 2 for w in past) + (number - len(past)) * mean**2
    deviation = sqrt(squares / (number - 1)) if number > 1 else 0.0
    return mean, (views - mean) / max(deviation, sqrt(max(mean, 1.0)))


class NotificationKind(StrEnum):
    """Kind of a notification."""

    OPENED = "opened"
    UPDATED = "updated"
    """Open again within the cool-down, or known by another window now."""
    RESOLVED = "resolved"
    WITHDRAWN = "withdrawn"
    """There was no flash sale after all; `Withdrawal` says why."""


_OPEN = (NotificationKind.OPENED, NotificationKind.UPDATED)


class Withdrawal(StrEnum):
    """Reason that an alert is withdrawn for."""

    SOLD = "sold"
    """Its windows were not closed yet, and further purchases in them reached the threshold."""
    RECOUNTED = "recounted"
    """Its windows were counted anew, or other thresholds hold now."""


class Notified(NamedTuple):
    """The last notification of an alert; `notified_id` is the id under which receivers know it."""

    notified_id: str
    alert_id: str
    kind: NotificationKind
    sequence: int
    first_window_start: datetime
    last_window_end: datetime

    def concerns(self, alert: Alert, cooldown: timedelta) -> bool:
        """Return whether an alert is at most a cool-down apart, and so the same episode."""
        return (
            alert.first_window_start <= self.last_window_end + cooldown
            and self.first_window_start <= alert.last_window_end + cooldown
        )


class Notification(NamedTuple):
    """A notification to send, as it is noted afterwards, and the alert as it is now: None where it was withdrawn."""

    noted: Notified
    alert: Alert | None
    withdrawal: Withdrawal | None = None
    is_silent: bool = False
    """True if it is only noted, so that it is not sent later."""


def notifications(
    alerts: Iterable[Alert],
    notified: Iterable[Notified],
    cooldown: timedelta,
    *,
    is_recount: bool = False,
    settled: datetime | None = None,
) -> list[Notification]:
    """Return the notifications after which receivers know a product's alerts as they are.

    Late events can move the beginning of an episode, and its id with it. To receivers it stays the same flash sale:
    they get an update under the id they know.

    A product that is viewed much and sells steadily is over the threshold early in each of its windows, until the
    purchases have come. After a withdrawal, an alert within the cool-down is therefore notified only once confirmed.

    Args:
        alerts: the product's alerts from some time on.
        notified: of its alerts since that time, and of those withdrawn not longer than a cool-down before.
        cooldown: alerts no further apart are the same episode.
        is_recount: windows were counted anew, or the rules are others: nothing new has happened, so an alert that was
            over before and is over now is only noted.
        settled: withdraw only alerts that ended by then (default: any); later ones may yet come again.
    """
    notified = list(notified)
    known = {last.notified_id: last for last in notified if last.kind is not NotificationKind.WITHDRAWN}
    withdrawn = [last for last in notified if last.kind is NotificationKind.WITHDRAWN]
    result: list[Notification] = []
    unknown: list[Alert] = []

    def notify(alert: Alert, before: Notified | None, *kinds: NotificationKind) -> None:
        notified_id, sequence = (before.notified_id, before.sequence) if before else (alert.alert_id, 0)
        is_over = alert.state is AlertState.RESOLVED and (before is None or before.kind not in _OPEN)
        times = (alert.first_window_start, alert.last_window_end)
        for number, kind in enumerate(kinds, start=sequence + 1):
            noted = Notified(notified_id, alert.alert_id, kind, number, *times)
            result.append(Notification(noted, alert, is_silent=is_recount and is_over))

    by_alert = {last.alert_id: last for last in known.values()}
    for alert in alerts:
        last = by_alert.get(alert.alert_id)
        if last is None:
            unknown.append(alert)
            continue
        del known[last.notified_id]
        if alert.state is AlertState.RESOLVED and last.kind is not NotificationKind.RESOLVED:
            notify(alert, last, NotificationKind.RESOLVED)
        elif alert.state is AlertState.OPEN and last.kind is NotificationKind.RESOLVED:
            notify(alert, last, NotificationKind.UPDATED)
    # An id that was withdrawn before goes on with its sequence.
    withdrawn_ids = {last.notified_id: last for last in withdrawn}
    for alert in unknown:
        ended = [NotificationKind.RESOLVED] if alert.state is AlertState.RESOLVED else []
        moved = next((last for last in known.values() if last.concerns(alert, cooldown)), None)
        if moved:
            del known[moved.notified_id]
            notify(alert, moved, NotificationKind.UPDATED, *ended)
        elif alert.is_confirmed or not any(last.concerns(alert, cooldown) for last in withdrawn):
            notify(alert, withdrawn_ids.get(alert.alert_id), NotificationKind.OPENED, *ended)
    withdrawal = Withdrawal.RECOUNTED if is_recount else Withdrawal.SOLD
    for last in known.values():
        if settled is None or last.last_window_end <= settled:
            noted = last._replace(kind=NotificationKind.WITHDRAWN, sequence=last.sequence + 1)
            result.append(Notification(noted, None, withdrawal, is_recount and last.kind not in _OPEN))
    return result


def payload(notification: Notification, product_id: str) -> dict[str, Any]:
    """Return the JSON fields of a notification: the alert as it is now, under the id that receivers know."""
    noted, alert = notification.noted, notification.alert
    if alert is None:
        fields: dict[str, Any] = {
            "product_id": product_id,
            "first_window_start": noted.first_window_start,
            "last_window_end": noted.last_window_end,
            "reason": notification.withdrawal,
        }
    else:
        fields = alert._asdict()
    fields |= {"alert_id": noted.notified_id, "kind": noted.kind, "sequence": noted.sequence}
    return {name: json_value(value) for name, value in fields.items()}


def json_value(value: Any) -> Any:
    """Return a column's value as JSON has it: a time in ISO 8601, a decimal as a number."""
    if isinstance(value, datetime):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
