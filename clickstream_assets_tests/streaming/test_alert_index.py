"""The alerts in Elasticsearch: equal to PostgreSQL's, whatever came in between."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import ElasticsearchError, ElasticsearchProblem
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.alert_index import _LOCK, ALERT_MAPPINGS, AlertIndex, update_alert_index
from clickstream_assets.streaming.checkpoint import PlannedBatch
from clickstream_assets_tests.databases import free_port, query, with_settings
from clickstream_assets_tests.streaming.streams import Shop, indexed_alerts
from clickstream_assets_tests.streaming.streams import views as events
from clickstream_assets_tests.streaming.test_store import (
    MINUTE,
    NOON,
    SCHEMA,
    Stream,
    new_stream,
    purchases,
    views,
)
from clickstream_assets_tests.topics import first


@pytest.fixture
def stream(servers: Settings, tmp_path: Path) -> Iterator[Stream]:
    with new_stream(servers, tmp_path) as own:
        yield own


@pytest.fixture
def index(stream: Stream) -> Iterator[AlertIndex]:
    index = AlertIndex(stream.shop.settings)
    yield index
    name = stream.shop.settings.elasticsearch_alerts_index
    index.client.options(ignore_status=404).indices.delete(index=name)
    index.client.options(ignore_status=404).indices.delete_index_template(name=name)
    index.close()


def states(stream: Stream) -> list[str]:
    """The states of the alerts in Elasticsearch, which has them as PostgreSQL has."""
    alerts = indexed_alerts(stream.shop.settings)
    assert alerts == stream.shop.alerts()
    return sorted(alert["state"] for alert in alerts)


def test_an_alert_is_there_as_it_is_now_and_once(stream: Stream, index: AlertIndex):
    assert index.update() == 0
    assert states(stream) == []
    assert stream.read(*views(NOON, 101)).alerts == 1
    assert [index.update(), index.update()] == [1, 0]
    assert states(stream) == ["open"]
    # The same batch once more, as after a crash.
    planned = PlannedBatch(None, {first(stream.shop.settings): 101})
    assert stream.store.record(0, planned, SCHEMA.empty_table()).alerts == 0
    assert index.update() == 0
    assert states(stream) == ["open"]
    # More views, another product, and then the first one's windows are closed.
    assert stream.read(*views(NOON + MINUTE, 30), *views(NOON + MINUTE, 101, "p2")).alerts == 2
    assert index.update() == 2
    stream.read((NOON + 40 * MINUTE, "p3", "view"))
    assert stream.read((NOON + 40 * MINUTE, "p3", "view")).alerts == 2
    assert index.update() == 2
    assert states(stream) == ["resolved", "resolved"]
    assert stream.read((NOON + 40 * MINUTE, "p3", "view")).alerts == 0


def test_an_alert_that_is_withdrawn_is_gone(stream: Stream, index: AlertIndex):
    stream.read(*views(NOON, 101), *views(NOON, 101, "p2"))
    index.update()
    assert stream.read(*purchases(NOON + 2 * MINUTE)).alerts == 1
    assert stream.kinds() == ["opened", "withdrawn"]
    assert index.update() == 1
    assert states(stream) == ["open"]
    # The last one, too.
    stream.read(*purchases(NOON + 2 * MINUTE, product="p2"))
    index.update()
    assert states(stream) == []


def test_alerts_that_other_thresholds_find_are_there(stream: Stream, index: AlertIndex):
    stream.read(*views(NOON, 101), *views(NOON, 60, "p2"))
    index.update()
    stream.restart(views_threshold=50)
    assert index.update() == 1
    assert states(stream) == ["open", "open"]
    stream.restart(views_threshold=100)
    index.update()
    assert states(stream) == ["open"]


def test_what_a_crash_left_is_made_good(stream: Stream, index: AlertIndex):
    stream.read(*views(NOON, 101), *views(NOON, 101, "p2"), *views(NOON, 101, "p3"))
    index.update()
    name = stream.shop.settings.elasticsearch_alerts_index
    first, second, _ = (alert["alert_id"] for alert in stream.shop.alerts())
    index.client.delete(index=name, id=first)
    index.client.index(index=name, id=second, document={"alert_id": second, "state": "resolved"})
    index.client.index(index=name, id="gone", document={"alert_id": "gone", "state": "open"})
    assert index.update() == 3
    assert states(stream) == ["open"] * 3


def test_an_index_that_is_lost_is_filled_again_with_its_mapping(stream: Stream, index: AlertIndex):
    stream.read(*views(NOON, 101), *views(NOON, 101, "p2"))
    index.update()
    name = stream.shop.settings.elasticsearch_alerts_index
    index.client.indices.delete(index=name)
    assert index.update() == 2
    assert states(stream) == ["open", "open"]
    mapping = index.client.indices.get_mapping(index=name)[name]["mappings"]
    assert mapping == ALERT_MAPPINGS | {"dynamic": "false"}


def test_alerts_wait_while_elasticsearch_is_away_and_the_tables_go_on(
    stream: Stream, index: AlertIndex, caplog: pytest.LogCaptureFixture
):
    settings = stream.shop.settings
    stream.read(*views(NOON, 101))
    index.update()
    away = with_settings(settings, elasticsearch_url=f"http://127.0.0.1:{free_port()}")
    stream.read(*views(NOON, 101, "p2"), *purchases(NOON))
    assert str(update_alert_index(away)).startswith(
        "Elasticsearch cannot be reached: no answer from ELASTICSEARCH_URL"
    )
    assert "the alerts in Elasticsearch wait: Elasticsearch cannot be reached" in caplog.text
    assert [alert["product_id"] for alert in stream.shop.alerts()] == ["p2"]
    assert [alert["product_id"] for alert in indexed_alerts(settings)] == ["p1"]
    assert update_alert_index(settings) is None
    assert states(stream) == ["open"]


def test_a_server_whose_disk_is_full_is_busy_and_gets_the_alerts_later(stream: Stream, index: AlertIndex):
    stream.read(*views(NOON, 101))
    index.update()
    stream.read(*views(NOON, 101, "p2"))
    name = stream.shop.settings.elasticsearch_alerts_index
    # What Elasticsearch does itself when its disk is nearly full.
    block = "index.blocks.read_only_allow_delete"
    index.client.indices.put_settings(index=name, settings={block: True})
    with pytest.raises(
        ElasticsearchError, match="did not take 1 of 1 alerts: cluster_block_exception"
    ) as caught:
        index.update()
    assert caught.value.problem is ElasticsearchProblem.BUSY
    index.client.indices.put_settings(index=name, settings={block: None})
    assert index.update() == 1
    assert states(stream) == ["open", "open"]


def test_an_index_of_somebody_elses_is_left_as_it_is(stream: Stream, index: AlertIndex):
    name = stream.shop.settings.elasticsearch_alerts_index
    index.client.index(index=name, id="theirs", document={"text": "kept"}, refresh=True)
    stream.read(*views(NOON, 101))
    with pytest.raises(
        ElasticsearchError, match=f"{name} that is not ours; set ELASTICSEARCH_ALERTS_INDEX"
    ) as caught:
        index.update()
    assert caught.value.problem is ElasticsearchProblem.IN_THE_WAY
    (kept,) = index.client.search(index=name)["hits"]["hits"]
    assert (kept["_id"], kept["_source"]) == ("theirs", {"text": "kept"})


def test_who_comes_second_writes_what_the_table_has_then(stream: Stream):
    settings = stream.shop.settings
    stream.read(*views(NOON, 101))
    second = threading.Thread(target=lambda: update_alert_index(settings))
    # Another process is in the middle of writing.
    with connect(settings) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        second.start()
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not query(settings, waiting):
            assert second.is_alive()
        stream.read(*purchases(NOON), *views(NOON, 101, "p2"))
    second.join()
    assert [alert["product_id"] for alert in indexed_alerts(settings)] == ["p2"]
    assert states(stream) == ["open"]


@pytest.mark.long
def test_a_run_ends_with_the_alerts_there_or_says_that_they_wait(shop: Shop):
    there = shop.settings.elasticsearch_url
    shop.send(events(NOON, 110, 2 * MINUTE))
    away = shop.run(elasticsearch_url=f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in str(away.alerts_wait)
    assert [alert["state"] for alert in shop.alerts()] == ["open"]
    # No record has come since.
    assert shop.run(elasticsearch_url=there).alerts_wait is None
    assert indexed_alerts(shop.settings) == shop.alerts()
    shop.stream(events(NOON + timedelta(hours=1), 120, 2 * MINUTE))
    assert sorted(alert["state"] for alert in shop.alerts()) == ["open", "resolved"]
    assert indexed_alerts(shop.settings) == shop.alerts()
