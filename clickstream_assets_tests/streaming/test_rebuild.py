"""`clickstream stream --rebuild`: the same windows and alerts as before, and a stream that misses nothing."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.engine import SparkEngine
from clickstream_assets.ingest.classification import land_records
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import DataLossError, Topics
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.rebuild import Rebuilt, rebuild
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.streaming.streams import Rows, Shop, click, indexed_alerts, new_shop, views
from clickstream_assets_tests.topics import delete_records, keyed, make_anew, new_topic

NOON = at("2024-05-01 12:00")
MINUTE = timedelta(minutes=1)
USERS = "distinct_users"
"""Estimated by the stream and counted by the rebuild."""


def rebuilt(shop: Shop) -> Rebuilt:
    with ownership(shop.settings, "test") as connection:
        return rebuild(shop.settings, shop.lake, connection)


def without_users(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if name != USERS} for row in rows]


def traffic(shop: Shop) -> None:
    """An alert that is over, one that is open, and windows of both kinds."""
    shop.send(views(NOON, 110, 2 * MINUTE))
    shop.send(click(NOON + i * MINUTE, 1000 + i, product_id="p2") for i in range(60))
    shop.send(views(NOON + 57 * MINUTE, 120, 2 * MINUTE))


def test_a_rebuild_brings_back_what_was_there_and_the_stream_goes_on(shop: Shop):
    traffic(shop)
    shop.run()
    shop.ingest()
    windows, alerts, sent = shop.windows(), shop.alerts(), shop.notifications()
    assert [alert["state"] for alert in alerts].count("open") == 1
    assert sent == [("p1", "opened"), ("p1", "opened"), ("p1", "resolved")]

    result = rebuilt(shop)
    assert (result.windows, result.alerts, result.lost) == (len(windows), 2, 0)
    assert without_users(shop.windows()) == without_users(windows)
    assert shop.alerts() == alerts
    assert shop.copy(PRODUCT_WINDOWS) == shop.windows()
    assert indexed_alerts(shop.settings) == alerts

    # What came meanwhile is read, and what was open is read again without being counted twice.
    shop.stream(views(NOON + 60 * MINUTE, 30, MINUTE, prefix="more"))
    shop.stream([click(NOON + 120 * MINUTE, 5000, product_id="p3")])
    assert shop.notifications() == [*sent, ("p1", "resolved")]
    assert shop.copy(FLASH_SALE_ALERTS) == shop.alerts()
    assert indexed_alerts(shop.settings) == shop.alerts()

    after = without_users(shop.windows())
    shop.ingest()
    rebuilt(shop)
    assert without_users(shop.windows()) == after


@pytest.mark.long
def test_a_stream_that_has_lost_its_state_goes_on_after_a_rebuild(shop: Shop):
    traffic(shop)
    shop.run()
    shop.ingest()
    windows = shop.windows()
    assert shop.settings.checkpoint_path
    shutil.rmtree(shop.settings.checkpoint_path)
    rebuilt(shop)
    shop.run()
    assert without_users(shop.windows()) == without_users(windows)
    assert [path.name for path in Path(shop.settings.checkpoint_path).iterdir()] == ["product_windows-2"]


@pytest.mark.long
def test_events_that_the_lake_does_not_have_yet_are_not_lost(shop: Shop):
    shop.send(views(NOON, 40, MINUTE))
    shop.ingest()
    shop.stream(views(NOON + 2 * MINUTE, 70, MINUTE))
    windows, sent = shop.windows(), shop.notifications()
    assert sent == [("p1", "opened")]
    rebuilt(shop)
    # The stream knows more of the open windows than the lake.
    assert without_users(shop.windows()) == without_users(windows)
    shop.run(stream_batch_records=30)
    assert without_users(shop.windows()) == without_users(windows)
    assert shop.notifications() == sent


@pytest.mark.long
def test_windows_of_another_length_come_with_a_rebuild(shop: Shop):
    traffic(shop)
    shop.run()
    shop.ingest()
    with pytest.raises(CheckpointError, match="WINDOW_DURATION"):
        shop.run(window_duration="20 minutes")
    rebuilt(shop)
    shop.run()
    assert {row["window_end"] - row["window_start"] for row in shop.windows()} == {20 * MINUTE}
    assert {row["window_end"] - row["window_start"] for row in shop.alerts()} == {20 * MINUTE}
    assert indexed_alerts(shop.settings) == shop.alerts()
    assert shop.copy(PRODUCT_WINDOWS) == shop.windows()


@pytest.mark.long
def test_what_kafka_no_longer_has_is_taken_from_the_lake(shop: Shop):
    shop.send(views(NOON, 40, MINUTE))
    shop.send([click(NOON + 12 * MINUTE, 1, product_id="p2")])
    shop.ingest()
    delete_records(shop.settings, shop.settings.kafka_topic, 0, 30)
    result = rebuilt(shop)
    assert (result.lost, result.floor) == (30, NOON + 10 * MINUTE)
    shop.run()
    counts = {(row["window_start"], row["product_id"]): row["views"] for row in shop.windows()}
    assert counts[NOON, "p1"] == counts[NOON - 5 * MINUTE, "p1"] == 40
    progress = progress_of(shop.settings)
    assert progress
    assert progress.floor == NOON + 10 * MINUTE


@pytest.mark.long
def test_windows_of_a_topic_that_is_read_no_more_are_as_the_lake_has_them(shop: Shop):
    shop.send(views(NOON, 40, MINUTE))
    shop.ingest()
    shop.settings = with_settings(shop.settings, kafka_topic=new_topic(shop.settings).kafka_topic)
    result = rebuilt(shop)
    assert (result.lost, result.floor, result.offsets) == (40, NOON + 10 * MINUTE, {})
    shop.send(views(NOON + 2 * MINUTE, 10, MINUTE, prefix="late"))
    shop.stream(views(NOON + 30 * MINUTE, 20, MINUTE, prefix="more"))
    counts = {row["window_start"]: row["views"] for row in shop.windows()}
    assert [counts[NOON + minutes * MINUTE] for minutes in (-5, 0, 25, 30)] == [40, 40, 20, 20]


def test_a_rebuild_does_not_begin_in_the_middle_of_a_topic_that_was_made_anew(shop: Shop):
    shop.send([click(NOON, number) for number in range(3)])
    shop.ingest()
    before = shop.windows()
    make_anew(shop.settings)
    shop.send([click(NOON, number) for number in range(3, 9)])
    with pytest.raises(DataLossError, match="is another topic than the one that was ingested"):
        rebuilt(shop)
    assert shop.windows() == before
    shop.settings = with_settings(shop.settings, lake_path=f"{shop.settings.lake_path}-of-the-new")
    shop.ingest()
    assert rebuilt(shop).windows


def test_a_rebuild_without_events_begins_with_the_first_record(shop: Shop):
    shop.send([click(NOON, 1)])
    assert rebuilt(shop) == Rebuilt(0, 0, None, {}, 0)
    shop.run()
    assert len(shop.windows()) == 2


@pytest.mark.long
def test_a_new_database_is_filled_by_a_rebuild(shop: Shop):
    traffic(shop)
    shop.run()
    shop.ingest()
    windows = shop.windows()
    with fresh_database(shop.settings) as empty:
        other = Shop(with_settings(empty), shop.spark)
        rebuilt(other)
        other.run()
        assert without_users(other.windows()) == without_users(windows)
        assert other.copy(PRODUCT_WINDOWS) == other.windows()
        # The one that is over is not notified.
        assert other.notifications() == [("p1", "opened")]


@pytest.mark.long
def test_records_that_the_lake_has_not_classified_yet_are_not_lost(
    servers: Settings, spark_engine: SparkEngine, tmp_path: Path
):
    with new_shop(servers, tmp_path, spark_engine.session, partitions=2) as shop:
        # The second partition has no event in an open window, but records that are only raw.
        shop.send([click(NOON - 60 * MINUTE, 1)], partition=1)
        shop.send(views(NOON, 40, MINUTE))
        shop.ingest()
        shop.send((click(NOON + MINUTE, 100 + i, user_id=f"v{i}") for i in range(20)), partition=1)
        land_records(shop.lake, Topics(shop.settings), shop.settings)
        assert rebuilt(shop).offsets == keyed(shop.settings, {0: 0, 1: 1})
        shop.run()
        counts = {row["window_start"]: row["views"] for row in shop.windows()}
        assert counts[NOON] == 60
