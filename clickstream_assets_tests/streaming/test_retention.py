"""Old windows and notifications go; what alerts rest on, what is new and what is still to be delivered stays."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.streaming import retention
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.query import lake_of
from clickstream_assets.streaming.reconciliation import reconcile_alerts
from clickstream_assets.streaming.retention import Deleted, delete_expired, update_old_copies
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.streaming.test_store import NOON, Stream, new_stream, views

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def stream(servers: Settings, tmp_path: Path) -> Iterator[Stream]:
    """An alert of p1 on 1 May with a day of past, windows of p2 on that day, and both again on 20 May."""
    with new_stream(servers, tmp_path) as own:
        quiet, later = NOON - 30 * HOUR, NOON + 19 * DAY
        own.read((quiet, "p1", "view"), (quiet, "p2", "view"))
        own.read((NOON - 3 * HOUR, "p1", "view"), (NOON, "p2", "view"))
        own.read(*views(NOON, 101))
        own.read((later, "p1", "view"), (later, "p2", "view"))
        # Events that move the watermark, and with it what is closed.
        own.read((later + HOUR, "p2", "view"))
        own.read((later + HOUR, "p2", "view"))
        query(own.shop.settings, "UPDATE alert_notifications SET delivered_at = now() RETURNING 1")
        yield own


def windows(settings: Settings, product: str) -> list[str]:
    """When the windows of a product start, by day and time."""
    rows = query(
        settings,
        "SELECT to_char(window_start AT TIME ZONE 'UTC', 'DD HH24:MI') FROM product_windows "
        f"WHERE product_id = '{product}' ORDER BY window_start",
    )
    return [str(start) for (start,) in rows]


KEPT = ["01 08:55", "01 09:00", "01 11:55", "01 12:00", "20 11:55", "20 12:00"]


def test_old_windows_go_and_those_that_an_alert_rests_on_stay(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
):
    settings = with_settings(stream.shop.settings, windows_retention_days=5)
    assert windows(settings, "p1") == ["30 05:55", "30 06:00", *KEPT]
    assert windows(settings, "p2")[:4] == ["30 05:55", "30 06:00", "01 11:55", "01 12:00"]
    # In several transactions.
    monkeypatch.setattr(retention, "ROWS_PER_TRANSACTION", 2)
    assert delete_expired(settings).windows == 6
    assert windows(settings, "p1") == KEPT
    assert [start[:2] for start in windows(settings, "p2")] == ["20"] * 4
    assert delete_expired(settings).windows == 0


def test_alerts_stay_as_they_are_also_when_they_are_found_again(stream: Stream):
    settings = with_settings(stream.shop.settings, windows_retention_days=5)
    kept = query(settings, "SELECT alert_id, views, usual_views, unusualness, state FROM flash_sale_alerts")
    assert len(kept) == 1
    assert kept[0][2] is not None
    delete_expired(with_settings(settings, notifications_retention_days=5))
    assert reconcile_alerts(settings).wrong == []
    # Other rules have all alerts found again; what was notified long ago is not notified again.
    stream.restart(alert_cooldown_minutes=31, windows_retention_days=5)
    again = query(settings, "SELECT alert_id, views, usual_views, unusualness, state FROM flash_sale_alerts")
    assert again == kept
    assert reconcile_alerts(settings).wrong == []
    assert query(settings, "SELECT FROM alert_notifications WHERE delivered_at IS NULL") == []


def test_the_lakes_copy_has_what_postgresql_has(stream: Stream):
    settings = with_settings(stream.shop.settings, windows_retention_days=5)
    lake = lake_of(settings)
    update_copies(settings, lake)
    batch = lake.snapshot(PRODUCT_WINDOWS).batch
    delete_expired(settings)
    assert update_old_copies(settings, lake) == 6
    assert update_old_copies(settings, lake) == 0
    assert lake.snapshot(PRODUCT_WINDOWS).batch == batch
    rows = lake.engine.to_arrow(lake.read(PRODUCT_WINDOWS)).to_pylist()
    kept = [(row["window_start"], row["product_id"], row["views"]) for row in rows]
    assert sorted(kept) == query(
        settings, "SELECT window_start, product_id, views FROM product_windows ORDER BY 1, 2"
    )
    # The copy goes on with what is new.
    stream.read((NOON + 19 * DAY + 2 * HOUR, "p3", "view"))
    update_copies(settings, lake)
    rows = lake.engine.to_arrow(lake.read(PRODUCT_WINDOWS)).to_pylist()
    assert len(rows) == len(kept) + 2
    assert lake.snapshot(FLASH_SALE_ALERTS).rows == 1


def test_what_was_notified_long_ago_goes_and_what_is_not_delivered_stays(stream: Stream):
    settings = with_settings(stream.shop.settings, windows_retention_days=0, notifications_retention_days=10)
    assert delete_expired(settings) == Deleted(notified_alerts=1)
    age = "UPDATE alert_notifications SET created_at = now() - interval '11 days', {} RETURNING 1"
    query(settings, age.format("delivered_at = NULL"))
    assert delete_expired(settings) == Deleted()
    query(settings, age.format("delivered_at = now() - interval '11 days'"))
    assert delete_expired(settings) == Deleted(notifications=2)


def test_events_of_long_ago_are_not_old_while_they_are_replayed(stream: Stream):
    # The events are years old by the clock, and all within the default of 90 days of event time.
    assert delete_expired(stream.shop.settings) == Deleted()


def test_without_retention_all_stays_and_the_newest_days_always(stream: Stream):
    keep_all = with_settings(stream.shop.settings, windows_retention_days=0, notifications_retention_days=0)
    assert delete_expired(keep_all) == Deleted()
    assert update_old_copies(keep_all, lake_of(keep_all)) == 0
    assert delete_expired(with_settings(keep_all, windows_retention_days=1)).windows == 6
    assert [start[:2] for start in windows(keep_all, "p2")] == ["20"] * 4
