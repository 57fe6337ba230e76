"""The sensor `new_records`, which asks for ingest runs: a test per transition."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Timer

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.defs.raw.sensors import new_records
from clickstream_assets.defs.resources import ComputeResource, KafkaResource, LakeResource, SettingsResource
from clickstream_assets.ingest.money import settings_of_money
from clickstream_assets.ingest.reach import settings_of_days
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Offsets, Topics
from clickstream_assets.streaming.query import lake_of
from clickstream_assets_tests.dagster_private import SensorExecutionData
from clickstream_assets_tests.databases import free_port
from clickstream_assets_tests.defs.history import (
    check_events,
    end_run,
    materialize,
    past_run,
    start_run,
    tick,
)
from clickstream_assets_tests.defs.pipeline import send

TOPIC = Settings.model_fields["kafka_topic"].default


class TopicWith(Topics):
    """A topic whose offsets are given, not asked for."""

    def __init__(self, settings: Settings, held: dict[str, list[int]]) -> None:
        super().__init__(settings)
        self._held = held

    def offsets(self) -> dict[TopicPartition, Offsets]:
        return {TopicPartition.parse(name): Offsets(low, high) for name, (low, high) in self._held.items()}


class KafkaWith(KafkaResource):
    """Kafka that holds these offsets, from and up to, per partition."""

    held: dict[str, list[int]]

    def get(self) -> TopicWith:
        # An inherited resource has, to mypy, the type of one that Dagster has not filled in yet.
        return TopicWith(self.settings.get(), self.held)  # type: ignore[union-attr]


def look(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    held: dict[int, tuple[int, int]] | dict[str, tuple[int, int]],
    cursor: str | None = None,
) -> SensorExecutionData:
    """One look of the sensor at topics that hold these offsets, by partition: of the one topic if none is named."""
    kafka = KafkaWith(
        settings=SettingsResource(),
        held={
            partition if isinstance(partition, str) else f"{TOPIC}/{partition}": list(range_)
            for partition, range_ in held.items()
        },
    )
    return tick(new_records, instance, definitions, cursor, {"kafka": kafka, "lake": lake_resource()})


def lake_resource() -> LakeResource:
    settings = SettingsResource()
    return LakeResource(settings=settings, compute=ComputeResource(settings=settings))


def ingested(
    instance: dg.DagsterInstance, offsets: dict[int, int], batch: int = 1, topic: str = TOPIC
) -> None:
    """A run has brought the topic in up to these offsets, and came to its end."""
    landed(offsets, batch, topic)
    classified(instance, batch)
    check_events(instance)
    materialize(instance, "rejected_counts")


def landed(offsets: dict[int, int], batch: int, topic: str = TOPIC) -> None:
    """A run has brought the topic into raw_events, and came no further."""
    marks = {f"topic:{topic}/{partition}": offset for partition, offset in offsets.items()}
    lake_of(load_settings()).mark(RAW_EVENTS, marks | {RAW_EVENTS.name: batch})


def classified(instance: dg.DagsterInstance, batch: int) -> None:
    """A run has brought this batch into events, and reported it."""
    lake_of(load_settings()).mark(EVENTS, {EVENTS.name: batch})
    materialize(instance, "events", batch=batch, dirty_days=[])


def asked_for(result: SensorExecutionData) -> int:
    """Return how many records the one requested run is said to find."""
    (request,) = result.run_requests or []
    assert request.partition_key is None
    assert request.asset_selection is None
    return int(request.tags["clickstream/waiting_records"])


def refused(result: SensorExecutionData) -> str:
    """Return why there is no run."""
    assert not result.run_requests
    assert result.skip_message
    return result.skip_message


def test_an_empty_topic_starts_nothing(instance: dg.DagsterInstance, definitions: dg.Definitions):
    assert refused(look(instance, definitions, {0: (0, 0), 1: (0, 0)})) == "no new records"


def test_a_topic_whose_records_all_expired_unread_starts_nothing(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    assert refused(look(instance, definitions, {0: (7, 7)})) == "no new records"


def test_all_waiting_records_are_one_run(instance: dg.DagsterInstance, definitions: dg.Definitions):
    assert asked_for(look(instance, definitions, {0: (0, 4), 1: (2, 5), 2: (0, 0)})) == 7


def test_what_has_been_ingested_is_not_asked_for_again(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4, 1: 5})
    assert refused(look(instance, definitions, {0: (0, 4), 1: (2, 5)})) == "no new records"


def test_records_beyond_the_last_run_are_asked_for(instance: dg.DagsterInstance, definitions: dg.Definitions):
    ingested(instance, {0: 4, 1: 5})
    assert asked_for(look(instance, definitions, {0: (0, 6), 1: (2, 6)})) == 3


def test_a_new_kafka_partition_is_not_overlooked(instance: dg.DagsterInstance, definitions: dg.Definitions):
    ingested(instance, {0: 4})
    assert asked_for(look(instance, definitions, {0: (0, 4), 1: (0, 2)})) == 2


@pytest.mark.parametrize("status", [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED])
def test_a_second_run_does_not_start_beside_one_that_is_under_way(
    instance: dg.DagsterInstance, definitions: dg.Definitions, status: DagsterRunStatus
):
    run = start_run(instance, "ingest", status)
    held = {0: (0, 4)}
    assert refused(look(instance, definitions, held)) == f"run {run.run_id} is under way"
    end_run(instance, run, DagsterRunStatus.SUCCESS)
    assert asked_for(look(instance, definitions, held)) == 4


def test_a_refresh_under_way_does_not_hold_up_ingestion(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    start_run(instance, "refresh")
    assert asked_for(look(instance, definitions, {0: (0, 4)})) == 4


def test_raw_records_of_a_run_that_was_killed_are_not_left_unclassified(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4}, batch=1)
    landed({0: 6}, batch=2)
    past_run(instance, "ingest", DagsterRunStatus.CANCELED)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0


def test_raw_records_of_a_first_run_that_was_killed_are_not_left_unclassified(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    landed({0: 6}, batch=1)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0


def test_events_of_a_run_that_was_killed_are_not_left_unchecked(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4}, batch=1)
    landed({0: 6}, batch=2)
    classified(instance, batch=2)
    check_events(instance, only="counts_close")
    past_run(instance, "ingest", DagsterRunStatus.CANCELED)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0


def test_events_of_a_run_that_was_killed_are_not_left_unreported(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4}, batch=1)
    landed({0: 6}, batch=2)
    lake_of(load_settings()).mark(EVENTS, {EVENTS.name: 2})
    past_run(instance, "ingest", DagsterRunStatus.CANCELED)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0


def test_records_of_a_run_that_was_killed_are_not_left_uncounted(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4}, batch=1)
    landed({0: 6}, batch=2)
    classified(instance, batch=2)
    check_events(instance)
    past_run(instance, "ingest", DagsterRunStatus.CANCELED)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0
    materialize(instance, "rejected_counts")
    assert refused(look(instance, definitions, {0: (0, 6)})) == "no new records"


def test_exchange_rates_and_settings_that_change_are_asked_for_though_no_record_comes(
    instance: dg.DagsterInstance, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    rates = tmp_path / "rates.csv"
    monkeypatch.setenv("EXCHANGE_RATES", str(rates))

    def reported() -> None:
        settings = load_settings()
        made_by = settings_of_days(settings) | settings_of_money(settings)
        materialize(instance, "events", batch=1, dirty_days=[], settings=made_by)
        check_events(instance)
        materialize(instance, "rejected_counts")

    ingested(instance, {0: 4})
    reported()
    held = {0: (0, 4)}
    assert refused(look(instance, definitions, held)) == "no new records"
    rates.write_text("date,currency,rate\n2024-05-01,JPY,0.0061\n")
    first, second = (look(instance, definitions, held) for _ in range(2))
    assert asked_for(first) == asked_for(second) == 0
    # Dagster starts no second run of a key.
    assert first.run_requests[0].run_key == second.run_requests[0].run_key is not None
    reported()
    assert refused(look(instance, definitions, held)) == "no new records"
    rates.write_text("date,currency,rate\n2024-05-01,JPY,0.0062\n")
    assert asked_for(look(instance, definitions, held)) == 0
    reported()
    monkeypatch.setenv("IDENTITY_MAX_USERS", "3")
    assert asked_for(look(instance, definitions, held)) == 0


def test_a_lake_that_was_put_back_is_caught_up_though_no_record_comes(
    instance: dg.DagsterInstance, definitions: dg.Definitions, tmp_path: Path
):
    lake = Path(load_settings().lake)
    landed({0: 4}, batch=1)
    classified(instance, batch=1)
    shutil.copytree(lake, tmp_path / "copy")
    ingested(instance, {0: 6}, batch=2)
    assert refused(look(instance, definitions, {0: (0, 6)})) == "no new records"
    shutil.rmtree(lake)
    shutil.copytree(tmp_path / "copy", lake)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 2
    shutil.rmtree(lake)
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 6


def test_dagsters_database_that_was_put_back_is_told_of_what_the_lake_has(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 6}, batch=2)
    before = dg.DagsterInstance.ephemeral()
    assert asked_for(look(before, definitions, {0: (0, 6)})) == 0
    materialize(before, "events", batch=1, dirty_days=[])
    check_events(before)
    assert asked_for(look(before, definitions, {0: (0, 6)})) == 0


def test_a_check_that_failed_is_not_repeated_for_nothing(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4})
    check_events(instance, passed=False, only="counts_close")
    assert refused(look(instance, definitions, {0: (0, 4)})) == "no new records"


def test_records_that_come_during_an_evaluation_are_asked_for_by_it(
    instance: dg.DagsterInstance, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "0.1")
    landed({0: 6}, batch=1)
    run = start_run(instance, "ingest")
    Timer(0.15, end_run, [instance, run, DagsterRunStatus.SUCCESS]).start()
    assert asked_for(look(instance, definitions, {0: (0, 6)})) == 0


def test_a_failing_run_is_not_started_in_every_tick(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    held = {0: (0, 4)}
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=5)
    assert refused(look(instance, definitions, held)).startswith("the last run failed; trying again in ")


def test_a_failed_run_is_tried_again_after_the_wait(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=11)
    assert asked_for(look(instance, definitions, {0: (0, 4)})) == 4


def test_after_two_failures_the_wait_is_twice_as_long(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    held = {0: (0, 4)}
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=60)
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=11)
    assert refused(look(instance, definitions, held)).startswith("the last run failed; trying again in ")


def test_the_wait_after_two_failures_ends(instance: dg.DagsterInstance, definitions: dg.Definitions):
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=60)
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=21)
    assert asked_for(look(instance, definitions, {0: (0, 4)})) == 4


@pytest.mark.parametrize("cursor", [None, "", "of another version"])
def test_a_lost_cursor_loses_and_repeats_nothing(
    instance: dg.DagsterInstance, definitions: dg.Definitions, cursor: str | None
):
    ingested(instance, {0: 4})
    assert refused(look(instance, definitions, {0: (0, 4)}, cursor)) == "no new records"
    result = look(instance, definitions, {0: (0, 6)}, cursor)
    assert asked_for(result) == 2
    assert result.cursor == cursor


def test_another_topic_does_not_wait_until_it_is_as_long_as_the_one_before(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 1000}, topic="the-topic-before")
    assert asked_for(look(instance, definitions, {0: (0, 4)})) == 4


def test_a_topic_that_was_made_anew_is_not_taken_for_ingested(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    # The run fails and says what to do; a skip would lose the records without a word.
    ingested(instance, {0: 1000})
    assert look(instance, definitions, {0: (0, 4)}).run_requests


def test_records_that_expired_unread_fail_a_run_and_do_not_go_unnoticed(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 3})
    assert asked_for(look(instance, definitions, {0: (10, 10)})) == 7


def test_records_that_expired_unread_are_not_asked_for_forever_where_losses_are_allowed(
    instance: dg.DagsterInstance, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ALLOW_DATA_LOSS", "true")
    ingested(instance, {0: 3})
    assert refused(look(instance, definitions, {0: (10, 10)})) == "no new records"
    assert asked_for(look(instance, definitions, {0: (10, 12)})) == 2


def look_at_kafka(instance: dg.DagsterInstance, definitions: dg.Definitions) -> SensorExecutionData:
    """One look of the sensor at the broker and topic of the settings."""
    kafka = KafkaResource(settings=SettingsResource())
    return tick(new_records, instance, definitions, resources={"kafka": kafka, "lake": lake_resource()})


def test_a_missing_topic_is_waited_for_and_named(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    kafka: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.kafka_bootstrap_servers)
    monkeypatch.setenv("KAFKA_TOPIC", "nobody-made-this")
    reason = refused(look_at_kafka(instance, definitions))
    assert "KAFKA_TOPIC='nobody-made-this'" in reason


def test_each_topic_is_compared_with_what_was_ingested_of_it(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    ingested(instance, {0: 4})
    assert asked_for(look(instance, definitions, {f"{TOPIC}/0": (0, 4), "web/0": (2, 5)})) == 3
    landed({0: 5}, batch=1, topic="web")
    assert refused(look(instance, definitions, {f"{TOPIC}/0": (0, 4), "web/0": (2, 5)})) == "no new records"
    assert refused(look(instance, definitions, {"web/0": (2, 5)})) == "no new records"


def test_a_missing_topic_that_keeps_others_back_is_an_error_and_no_quiet_skip(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    pipeline_env: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("KAFKA_TOPIC", f"{pipeline_env.kafka_topic},nobody-made-this=ga4")
    with pytest.raises(TopicError, match=r"has no topic nobody-made-this\. `clickstream prepare` makes it"):
        look_at_kafka(instance, definitions)
    monkeypatch.setenv("KAFKA_TOPIC", "nobody-made-this=ga4,nor-this")
    assert "has no topic nobody-made-this, nor-this" in refused(look_at_kafka(instance, definitions))


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_an_error_and_no_quiet_skip(
    instance: dg.DagsterInstance, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", address)
    monkeypatch.setenv("KAFKA_TIMEOUT_SECONDS", "0.5")
    with pytest.raises(TopicError, match=f"KAFKA_BOOTSTRAP_SERVERS={address}"):
        look_at_kafka(instance, definitions)


def test_a_real_topic_is_ingested_once(
    instance: dg.DagsterInstance, definitions: dg.Definitions, pipeline_env: Settings
):
    assert refused(look_at_kafka(instance, definitions)) == "no new records"
    send(pipeline_env, [b"a record"] * 5)
    assert asked_for(look_at_kafka(instance, definitions)) == 5

    definitions.resolve_job_def("ingest").execute_in_process(instance=instance)
    assert refused(look_at_kafka(instance, definitions)) == "no new records"

    send(pipeline_env, [b"a record"] * 2)
    assert asked_for(look_at_kafka(instance, definitions)) == 2
