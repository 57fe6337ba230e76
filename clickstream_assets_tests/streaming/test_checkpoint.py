"""Checkpoints that a stream goes on from, and those that it refuses."""

import re
import shutil
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import DataLossError
from clickstream_assets.streaming.checkpoint import Checkpoint, CheckpointError, PlannedBatch
from clickstream_assets.streaming.query import checkpoint_of
from clickstream_assets.streaming.windows import fingerprint
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.streaming.streams import Shop, click
from clickstream_assets_tests.topics import first, make_anew

NOON = at("2024-05-01 12:00")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, checkpoint_path=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"window_duration": "20 minutes"},
            "WINDOW_DURATION is '1200 seconds' and was '600 seconds'",
        ),
        ({"slide_duration": "1 minute"}, "SLIDE_DURATION is '60 seconds' and was '300 seconds'"),
        ({"watermark_delay": "1 hour"}, "WATERMARK_DELAY is '3600 seconds' and was '600 seconds'"),
        ({"stream_shuffle_partitions": 8}, "STREAM_SHUFFLE_PARTITIONS is 8 and was 1"),
        (
            {"kafka_topic": "web=segment,clickstream-events"},
            "KAFKA_TOPIC is 'clickstream-events,web' and was 'clickstream-events'",
        ),
    ],
)
def test_another_query_is_refused_with_what_changed_and_what_to_do(
    settings: Settings, changes: dict[str, Any], says: str
):
    checkpoint_of(settings, 1).open({})
    checkpoint_of(settings, 1).open({})
    with pytest.raises(CheckpointError, match=re.escape(says)) as caught:
        checkpoint_of(with_settings(settings, **changes), 1).open({})
    assert "`clickstream stream --rebuild`" in str(caught.value)


def test_a_topic_more_or_less_is_said_once_and_one_made_anew_by_its_id(settings: Settings):
    ids: dict[str, UUID | None] = {"clickstream-events": UUID(int=1), "web": UUID(int=2)}
    both = with_settings(settings, kafka_topic="clickstream-events,web=segment")
    checkpoint_of(both, 1).open(ids)
    checkpoint_of(with_settings(both, kafka_topic="web=ga4,clickstream-events"), 1).open(ids)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_of(settings, 1).open({"clickstream-events": UUID(int=1)})
    assert "KAFKA_TOPIC is 'clickstream-events' and was 'clickstream-events,web'. Run" in str(caught.value)
    with pytest.raises(DataLossError, match="'web' is another topic than the one that the stream of"):
        checkpoint_of(both, 1).open(ids | {"web": UUID(int=3)})


def test_thresholds_and_dialects_can_be_changed_at_any_time(settings: Settings):
    changed = with_settings(settings, views_threshold=7, alert_cooldown_minutes=1, stream_batch_records=9)
    changed = with_settings(changed, kafka_topic="clickstream-events=own")
    assert fingerprint(changed) == fingerprint(settings)


def test_a_new_format_of_the_state_is_refused(settings: Settings):
    Checkpoint(settings, "q", {"FORMAT": 1}).open({})
    with pytest.raises(CheckpointError, match="FORMAT is 2 and was 1"):
        Checkpoint(settings, "q", {"FORMAT": 2}).open({})


def test_a_checkpoint_of_an_unknown_query_is_refused(settings: Settings, tmp_path: Path):
    (tmp_path / "q" / "offsets").mkdir(parents=True)
    (tmp_path / "q" / "offsets" / "0").write_text("v1\n")
    with pytest.raises(CheckpointError, match=r"without query\.json"):
        Checkpoint(settings, "q", {}).open({})


def test_what_spark_planned_is_read_from_its_log(settings: Settings, tmp_path: Path):
    checkpoint = Checkpoint(settings, "q", {})
    assert not checkpoint.has_begun
    (tmp_path / "q" / "offsets").mkdir(parents=True)
    log = tmp_path / "q" / "offsets" / "3"
    log.write_text('v1\n{"batchWatermarkMs":1714564800000,"conf":{}}\n{"clicks":{"1":5,"0":7},"web":{"0":2}}')
    assert checkpoint.has_begun
    assert checkpoint.planned_batch(3) == PlannedBatch(
        NOON, {TopicPartition("clicks", 0): 7, TopicPartition("clicks", 1): 5, TopicPartition("web", 0): 2}
    )
    log.write_text('v1\n{"batchWatermarkMs":0}\n-')
    assert checkpoint.planned_batch(3) == PlannedBatch(None, {})


@pytest.mark.long
def test_spark_plans_and_commits_batches_where_they_are_read_from(shop: Shop):
    shop.stream([click(NOON, 0), click(NOON + timedelta(minutes=30), 1)])
    shop.stream([click(NOON + timedelta(minutes=31), 2)])
    checkpoint = checkpoint_of(shop.settings, 1)
    plans = [checkpoint.planned_batch(number) for number in checkpoint.planned_batch_ids()]
    assert plans[0] == PlannedBatch(None, {first(shop.settings): 2})
    assert plans[-1] == PlannedBatch(NOON + timedelta(minutes=21), {first(shop.settings): 3})
    assert checkpoint.committed_offsets() == {first(shop.settings): 3}


def test_a_stream_does_not_go_on_in_a_topic_that_was_made_anew(shop: Shop):
    shop.stream([click(NOON, 0)])
    make_anew(shop.settings)
    shop.send(click(NOON, number) for number in range(1, 4))
    with pytest.raises(DataLossError, match=r"is another topic than the one that the stream of .*--rebuild"):
        shop.run()


def test_a_stream_starts_neither_without_its_state_nor_without_its_tables(shop: Shop):
    for number in range(3):
        shop.stream([click(NOON + timedelta(minutes=number), number)])
    with fresh_database(shop.settings) as empty:
        other = Shop(empty, shop.spark)
        with pytest.raises(CheckpointError, match=r"has none of the windows.*--rebuild"):
            other.run()
    assert shop.settings.checkpoint_path
    shutil.rmtree(shop.settings.checkpoint_path)
    with pytest.raises(CheckpointError, match=r"state of the stream is not in .*--rebuild"):
        shop.run()


def test_new_checkpoints_are_for_their_owner_alone(tmp_path: Path):
    settings = Settings(_env_file=None, checkpoint_path=str(tmp_path / "new"))
    checkpoint_of(settings, 1).open({})
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
