"""Alerts as a function of a product's windows, and notifications as a function of alerts and earlier ones."""

from datetime import timedelta
from decimal import Decimal
from math import sqrt

import pytest

from clickstream_assets.streaming.alerts import (
    Alert,
    AlertRules,
    AlertState,
    Notified,
    Window,
    find_alerts,
    notifications,
    payload,
)
from clickstream_assets.streaming.alerts import NotificationKind as Kind
from clickstream_assets_tests.analytics.records import at

RULES = AlertRules(views=100, purchases=5, cooldown=timedelta(minutes=30), slide=timedelta(minutes=5))
COOLDOWN = RULES.cooldown


def window(start: str, views: int = 101, purchases: int = 0, category: str | None = None) -> Window:
    begin = at(f"2024-05-01 {start}")
    return Window(begin, begin + timedelta(minutes=10), views, purchases, category)


def alerts(*windows: Window, watermark: str | None = None) -> list[Alert]:
    until = at(f"2024-05-01 {watermark or '00:00'}")
    return find_alerts("p1", [w._replace(is_final=w.end <= until) for w in windows], RULES)


@pytest.mark.parametrize(
    ("views", "purchases", "is_alert"),
    [(100, 0, False), (101, 0, True), (101, 4, True), (101, 5, False), (1000, 6, False), (0, 0, False)],
)
def test_more_views_than_the_threshold_and_fewer_purchases_are_an_alert(
    views: int, purchases: int, is_alert: bool
):
    assert bool(alerts(window("10:00", views, purchases))) is is_alert


def test_overlapping_windows_are_one_alert_with_the_peak_of_them():
    (alert,) = alerts(window("10:00", 120, 1), window("10:05", 300, 3, "toys"), window("10:10", 130))
    assert (alert.window_start, alert.views, alert.purchases) == (at("2024-05-01 10:05"), 300, 3)
    assert alert.conversion_rate == Decimal("1.00")
    assert alert.product_category == "toys"
    assert alert.windows == 3
    assert (alert.first_window_start, alert.last_window_end) == (
        at("2024-05-01 10:00"),
        at("2024-05-01 10:20"),
    )


def test_of_peaks_that_are_equal_the_first_is_shown():
    (alert,) = alerts(window("10:05", 200, 2), window("10:00", 200, 1))
    assert (alert.window_start, alert.purchases) == (at("2024-05-01 10:00"), 1)


@pytest.mark.parametrize(("second", "episodes"), [("10:15", 1), ("10:40", 1), ("10:41", 2), ("12:00", 2)])
def test_what_follows_within_the_cooldown_is_the_same_alert(second: str, episodes: int):
    found = alerts(window("10:00"), window(second))
    assert len(found) == episodes
    assert len({alert.alert_id for alert in found}) == episodes


@pytest.mark.parametrize(
    ("watermark", "state"),
    [(None, AlertState.OPEN), ("10:09", AlertState.OPEN), ("10:10", AlertState.RESOLVED)],
)
def test_an_alert_is_resolved_when_its_last_window_is_closed(watermark: str | None, state: AlertState):
    (alert,) = alerts(window("10:00"), watermark=watermark)
    assert alert.state is state
    assert alert.resolved_at == (at("2024-05-01 10:10") if state is AlertState.RESOLVED else None)


@pytest.mark.parametrize(("watermark", "is_confirmed"), [("10:09", False), ("10:10", True), ("10:15", True)])
def test_an_alert_is_confirmed_when_its_first_window_is_closed(watermark: str, is_confirmed: bool):
    (alert,) = alerts(window("10:00"), window("10:05"), watermark=watermark)
    assert alert.is_confirmed is is_confirmed


def test_the_order_of_the_windows_does_not_matter():
    windows = [window("10:00"), window("10:05", 150), window("10:10", 90), window("11:30", 170)]
    assert alerts(*windows) == alerts(*reversed(windows))


def test_ids_differ_by_product_and_episode():
    first = alerts(window("10:00"))[0].alert_id
    assert first == alerts(window("10:00", 500), window("10:05"))[0].alert_id
    assert first != alerts(window("10:05"))[0].alert_id
    assert first != find_alerts("p2", [window("10:00")], RULES)[0].alert_id


def test_unusualness_counts_windows_without_views_as_zeros():
    # From 08:00 to 09:50 there are 23 windows that end before the episode; three of them have views.
    past = [window("08:00", 6), window("09:00", 8), window("09:50", 9)]
    (alert,) = alerts(*past, window("10:00", 101))
    views = [6, 8, 9] + [0] * 20
    mean = sum(views) / 23
    deviation = sqrt(sum((v - mean) ** 2 for v in views) / 22)
    assert alert.usual_views == pytest.approx(mean)
    assert alert.unusualness == pytest.approx((101 - mean) / deviation)


def test_a_steady_product_deviates_by_chance_at_least():
    steady = [window(f"{hour:02}:{minute:02}", 64) for hour in (8, 9) for minute in range(0, 60, 5)]
    (alert,) = alerts(*steady, window("10:00", 128))
    assert alert.usual_views == 64
    assert alert.unusualness == pytest.approx((128 - 64) / sqrt(64))


def test_windows_that_overlap_the_episode_are_no_past():
    past = [window("08:00", 10), window("09:55", 99)]
    (alert,) = alerts(*past, window("10:00"))
    assert alert.usual_views == pytest.approx(10 / 23)


def test_a_day_is_looked_back_and_no_further():
    old = Window(at("2024-04-30 09:00"), at("2024-04-30 09:10"), 90, 0)
    (alert,) = alerts(old, window("08:00", 23), window("10:00"))
    assert alert.usual_views == pytest.approx(1)


def test_less_than_an_hour_of_past_gives_no_usual_views():
    (alert,) = alerts(window("09:05", 50), window("10:00"))
    assert (alert.usual_views, alert.unusualness) == (None, None)


def notified(alert: Alert, kind: Kind, sequence: int = 1, notified_id: str | None = None) -> Notified:
    return Notified(
        notified_id or alert.alert_id,
        alert.alert_id,
        kind,
        sequence,
        alert.first_window_start,
        alert.last_window_end,
    )


(OPEN,) = alerts(window("10:00"), window("10:05"))
(RESOLVED,) = alerts(window("10:00"), window("10:05"), watermark="10:15")
(CONFIRMED,) = alerts(window("10:00"), window("10:05"), watermark="10:10")
(MOVED,) = alerts(window("10:05"))
(IN_COOLDOWN,) = alerts(window("10:45"))
(AFTER_COOLDOWN,) = alerts(window("10:46"))


@pytest.mark.parametrize(
    ("now", "before", "kinds"),
    [
        ([OPEN], [], [(OPEN.alert_id, Kind.OPENED, 1)]),
        ([RESOLVED], [], [(OPEN.alert_id, Kind.OPENED, 1), (OPEN.alert_id, Kind.RESOLVED, 2)]),
        ([OPEN], [notified(OPEN, Kind.OPENED)], []),
        ([RESOLVED], [notified(OPEN, Kind.OPENED)], [(OPEN.alert_id, Kind.RESOLVED, 2)]),
        ([RESOLVED], [notified(OPEN, Kind.RESOLVED, 2)], []),
        ([OPEN], [notified(OPEN, Kind.RESOLVED, 2)], [(OPEN.alert_id, Kind.UPDATED, 3)]),
        ([], [notified(OPEN, Kind.OPENED)], [(OPEN.alert_id, Kind.WITHDRAWN, 2)]),
        ([], [notified(OPEN, Kind.WITHDRAWN, 2)], []),
        ([OPEN], [notified(OPEN, Kind.WITHDRAWN, 2)], []),
        ([IN_COOLDOWN], [notified(OPEN, Kind.WITHDRAWN, 2)], []),
        ([CONFIRMED], [notified(OPEN, Kind.WITHDRAWN, 2)], [(OPEN.alert_id, Kind.OPENED, 3)]),
        ([AFTER_COOLDOWN], [notified(OPEN, Kind.WITHDRAWN, 2)], [(AFTER_COOLDOWN.alert_id, Kind.OPENED, 1)]),
        ([MOVED], [notified(OPEN, Kind.OPENED)], [(OPEN.alert_id, Kind.UPDATED, 2)]),
        ([MOVED], [notified(MOVED, Kind.UPDATED, 2, OPEN.alert_id)], []),
    ],
    ids=[
        "new",
        "new and over",
        "the same",
        "over",
        "still over",
        "open again",
        "gone",
        "still gone",
        "back",
        "back in the next window",
        "back and confirmed",
        "back after the cool-down",
        "begins elsewhere",
        "known to begin elsewhere",
    ],
)
def test_notifications_follow_from_the_alerts_and_from_earlier_notifications(
    now: list[Alert], before: list[Notified], kinds: list[tuple[str, Kind, int]]
):
    found = notifications(now, before, COOLDOWN)
    assert [(n.noted.notified_id, n.noted.kind, n.noted.sequence) for n in found] == kinds


def test_what_may_come_again_is_not_withdrawn():
    before = [notified(OPEN, Kind.OPENED)]
    assert notifications([], before, COOLDOWN, settled=at("2024-05-01 10:14")) == []
    (withdrawal,) = notifications([], before, COOLDOWN, settled=at("2024-05-01 10:15"))
    assert withdrawal.noted.kind is Kind.WITHDRAWN


@pytest.mark.parametrize(
    ("now", "before", "kinds"),
    [
        ([OPEN], [], [(Kind.OPENED, False)]),
        ([RESOLVED], [], [(Kind.OPENED, True), (Kind.RESOLVED, True)]),
        ([RESOLVED], [notified(OPEN, Kind.OPENED)], [(Kind.RESOLVED, False)]),
        ([], [notified(OPEN, Kind.OPENED)], [(Kind.WITHDRAWN, False)]),
        ([], [notified(OPEN, Kind.RESOLVED)], [(Kind.WITHDRAWN, True)]),
    ],
    ids=["open", "over", "over by now", "gone", "over and gone"],
)
def test_a_recount_notifies_nobody_of_alerts_that_were_over(
    now: list[Alert], before: list[Notified], kinds: list[tuple[Kind, bool]]
):
    found = notifications(now, before, COOLDOWN, is_recount=True)
    assert [(n.noted.kind, n.is_silent) for n in found] == kinds


def test_receivers_know_an_alert_by_the_id_of_its_first_notification():
    (update,) = notifications([MOVED], [notified(OPEN, Kind.OPENED)], COOLDOWN)
    sent = payload(update, "p1")
    assert (sent["alert_id"], sent["kind"], sent["sequence"]) == (OPEN.alert_id, "updated", 2)
    assert sent["first_window_start"] == "2024-05-01T10:05:00+00:00"
    (withdrawal,) = notifications([], [notified(OPEN, Kind.OPENED)], COOLDOWN)
    assert payload(withdrawal, "p1") == {
        "alert_id": OPEN.alert_id,
        "product_id": "p1",
        "kind": "withdrawn",
        "sequence": 2,
        "first_window_start": "2024-05-01T10:00:00+00:00",
        "last_window_end": "2024-05-01T10:15:00+00:00",
        "reason": "sold",
    }
    (recounted,) = notifications([], [notified(OPEN, Kind.OPENED)], COOLDOWN, is_recount=True)
    assert payload(recounted, "p1")["reason"] == "recounted"
