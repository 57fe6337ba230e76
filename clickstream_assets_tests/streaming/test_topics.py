"""Several topics, each in its dialect, through the streams."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.engine import SparkEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import DataLossError
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.process import run_live_events
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.rebuild import rebuild
from clickstream_assets.streaming.reconciliation import reconcile
from clickstream_assets.streaming.source import configured
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingest.dialects.writers import WRITERS, happenings
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop
from clickstream_assets_tests.streaming.test_cases import counted, documents, rows
from clickstream_assets_tests.topics import delete_records, send

DIALECTS = ("segment", "ga4", "snowplow")


@pytest.fixture
def shop(servers: Settings, spark_engine: SparkEngine, tmp_path: Path) -> Iterator[Shop]:
    """A stream of four topics, three of them in a dialect each."""
    options = {"live_events_retention_days": 0, "kafka_topic_partitions": 1}
    with new_shop(servers, tmp_path, spark_engine.session, **options) as shop:
        base = shop.settings.kafka_topic
        named = ",".join((base, *(f"{base}-{dialect}={dialect}" for dialect in DIALECTS)))
        shop.settings = with_settings(shop.settings, kafka_topic=named)
        yield shop


@pytest.mark.long
def test_topics_in_their_dialects_are_counted_as_the_batch_counts_them(shop: Shop, spark_engine: SparkEngine):
    ensure_topics(shop.settings)
    base = shop.settings.first_topic
    all_topics, without_the_last = (
        shop.settings.kafka_topic,
        shop.settings.kafka_topic.rpartition(",")[0],
    )
    last = list(happenings(9, 40))
    shop.settings = with_settings(shop.settings, kafka_topic=without_the_last)
    for seed, dialect in enumerate(DIALECTS[:-1]):
        sent = (WRITERS[dialect](happened) for happened in happenings(seed, 60))
        send(shop.settings, {0: sent}, topic=f"{base}-{dialect}")
    # A record of another tracker is none of this topic's dialect.
    send(shop.settings, {0: [WRITERS["ga4"](last[0])]}, topic=f"{base}-segment")
    # Of an own event, and by its time it closes the windows of all topics.
    shop.stream([click(at("2024-05-02 12:00"), 1)])
    progress = progress_of(shop.settings)
    assert progress
    assert progress.offsets == {
        TopicPartition(base, 0): 1,
        TopicPartition(f"{base}-ga4", 0): 60,
        TopicPartition(f"{base}-segment", 0): 61,
    }
    shop.ingest()
    result = reconcile(shop.settings, shop.lake, days=60)
    assert (result.waiting, result.differences) == (None, [])
    assert result.compared > 20
    run_live_events(shop.settings, lambda: configured(spark_engine.session, shop.settings))
    assert_live_events_are_the_batchs(shop)

    # A topic more: what the stream has counted so far is taken from the lake.
    shop.settings = with_settings(shop.settings, kafka_topic=all_topics)
    send(shop.settings, {0: map(WRITERS["snowplow"], last)}, topic=f"{base}-snowplow")
    names = re.escape(",".join(sorted(shop.settings.topics)))
    with pytest.raises(CheckpointError, match=rf"KAFKA_TOPIC is '{names}' and was .*--rebuild"):
        shop.run()
    before = counted(shop)
    shop.ingest()
    with ownership(shop.settings, "test") as connection:
        rebuilt = rebuild(shop.settings, shop.lake, connection)
    assert (rebuilt.lost, rebuilt.offsets[TopicPartition(f"{base}-snowplow", 0)]) == (0, 40)
    after = counted(shop)
    assert sum(counts[3] for counts in after.values()) > sum(counts[3] for counts in before.values())
    shop.stream([click(at("2024-05-02 12:00") + timedelta(hours=1), 2)])
    assert counted(shop).keys() == after.keys()
    shop.ingest()
    assert reconcile(shop.settings, shop.lake, days=60).differences == []

    send(shop.settings, {0: map(WRITERS["ga4"], last)}, topic=f"{base}-ga4")
    delete_records(shop.settings, f"{base}-ga4", 0, 70)
    with pytest.raises(
        DataLossError, match=f"no longer has records of {base}-ga4 that the stream has not read"
    ):
        shop.run()


def assert_live_events_are_the_batchs(shop: Shop) -> None:
    live = documents(shop)
    of_batch: dict[str, dict[str, Any]] = {row["event_id"]: row for row in rows(shop, EVENTS)}
    assert len(of_batch) > 100
    assert live.keys() >= of_batch.keys()
    compared = (
        "topic",
        "event_type",
        "user_id",
        "anonymous_id",
        "product_id",
        "price",
        "quantity",
        "order_id",
    )
    for event_id, row in of_batch.items():
        document = live[event_id]
        assert {name: document.get(name) for name in compared} == {name: row[name] for name in compared}
