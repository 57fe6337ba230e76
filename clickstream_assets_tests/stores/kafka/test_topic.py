"""Which offsets are read next, and that exactly those are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource
from hypothesis import given
from hypothesis import strategies as st

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicError, TopicNotFoundError
from clickstream_assets.stores.kafka.partition import (
    TopicPartition,
    from_json,
    from_topics,
    to_json,
    to_topics,
)
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import (
    DataLossError,
    OffsetRange,
    Offsets,
    TimestampError,
    Topics,
    deleted_records,
    plan_ranges,
)
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.databases import free_port, with_settings
from clickstream_assets_tests.topics import Transactions, first, keyed, new_topic, send

OFFSETS = st.builds(
    lambda low, size: Offsets(low, low + size),
    st.integers(0, 50),
    st.one_of(st.integers(0, 20), st.integers(0, 2_000)),
)


PARTITIONS = st.builds(TopicPartition, st.sampled_from(["app", "web"]), st.integers(0, 5))
APP, WEB, WEB_1, WEB_3 = (
    TopicPartition(*place) for place in (("app", 0), ("web", 0), ("web", 1), ("web", 3))
)


@st.composite
def topics(draw: st.DrawFn) -> tuple[dict[TopicPartition, int], dict[TopicPartition, Offsets]]:
    """How far partitions were ingested, none of them less than Kafka still has; and what Kafka has."""
    available = draw(st.dictionaries(PARTITIONS, OFFSETS, max_size=8))
    ingested = {p: draw(st.integers(o.low, o.high)) for p, o in available.items() if draw(st.booleans())}
    return ingested, available


@given(topics(), st.integers(0, 500))
def test_planned_ranges_follow_what_was_ingested_and_keep_the_limit(topic, limit):
    ingested, available = topic
    ranges = plan_ranges(ingested, available, limit)
    waiting = {p: o.high - ingested.get(p, o.low) for p, o in available.items()}
    assert sum(len(r) for r in ranges) == min(limit, sum(waiting.values()))
    assert len({r.partition for r in ranges}) == len(ranges)
    for planned in ranges:
        offsets = available[planned.partition]
        assert planned.start == ingested.get(planned.partition, offsets.low)
        assert planned.start < planned.end <= offsets.high


@given(topics(), st.integers(1, 500))
def test_every_partition_is_read_to_its_end_without_overlap(topic, limit):
    ingested, available = topic
    done = dict(ingested)
    read = dict.fromkeys(available, 0)
    while True:
        ranges = plan_ranges(done, available, limit)
        if not ranges:
            break
        for planned in ranges:
            read[planned.partition] += len(planned)
            done[planned.partition] = planned.end
    assert read == {p: o.high - ingested.get(p, o.low) for p, o in available.items()}


def test_a_large_partition_does_not_hold_up_the_small_ones_of_its_topic_or_another():
    available = {WEB: Offsets(0, 1_000_000), WEB_1: Offsets(5, 8), APP: Offsets(0, 0), WEB_3: Offsets(0, 40)}
    ranges = plan_ranges({}, available, 100)
    assert ranges == [OffsetRange(WEB, 0, 57), OffsetRange(WEB_1, 5, 8), OffsetRange(WEB_3, 0, 40)]
    available[APP] = Offsets(0, 1_000_000)
    ranges = plan_ranges({}, available, 102)
    assert ranges == [
        OffsetRange(APP, 0, 33),
        OffsetRange(WEB, 0, 33),
        OffsetRange(WEB_1, 5, 8),
        OffsetRange(WEB_3, 0, 33),
    ]


def test_records_deleted_before_they_were_ingested_are_an_error_that_counts_them():
    available = {APP: Offsets(1_500, 2_000), WEB: Offsets(0, 10), WEB_1: Offsets(7, 9)}
    lost = r"1,400 of partition 0 of topic app, 2 of partition 1 of topic web\..*ALLOW_DATA_LOSS"
    with pytest.raises(DataLossError, match=lost):
        plan_ranges({APP: 100, WEB: 10, WEB_1: 5}, available, 100)


def test_a_partition_that_was_never_read_starts_at_its_lowest_offset_and_has_lost_nothing():
    available = {WEB: Offsets(1_500, 1_510)}
    assert plan_ranges({}, available, 100) == [OffsetRange(WEB, 1_500, 1_510)]
    assert deleted_records({APP: 3}, available) == {}


def test_with_data_loss_allowed_reading_goes_on_after_what_was_deleted():
    available = {APP: Offsets(20, 30), WEB: Offsets(50, 60)}
    ingested = {APP: 10, WEB: 20}
    assert deleted_records(ingested, available) == {APP: 10, WEB: 30}
    assert plan_ranges(ingested, available, 1, allow_data_loss=True) == [OffsetRange(WEB, 50, 51)]
    assert plan_ranges(ingested | {WEB: 51}, available, 100, allow_data_loss=True) == [
        OffsetRange(APP, 20, 30),
        OffsetRange(WEB, 51, 60),
    ]


@pytest.mark.parametrize("allow_data_loss", [False, True])
def test_a_topic_made_anew_is_never_read_on(allow_data_loss):
    with pytest.raises(
        DataLossError, match=r"topic web ends at offset 3, before offset 1,000.*KAFKA_TOPIC.*LAKE_PATH"
    ):
        plan_ranges({WEB: 1_000}, {APP: Offsets(0, 3), WEB: Offsets(0, 3)}, 100, allow_data_loss)


def test_a_partition_is_written_as_it_is_read():
    partition = TopicPartition("a.b-c_d", 12)
    assert str(partition) == repr(partition) == "a.b-c_d/12"
    offsets = {TopicPartition("web", 10): 3, TopicPartition("web", 9): 2, partition: 1}
    assert to_json(offsets) == {"a.b-c_d/12": 1, "web/9": 2, "web/10": 3}
    assert from_json(to_json(offsets)) == offsets
    assert to_topics(offsets) == {"a.b-c_d": {"12": 1}, "web": {"9": 2, "10": 3}}
    assert from_topics(to_topics(offsets)) == offsets


def read(engine: Engine, settings: Settings, ranges: list[OffsetRange]) -> pa.Table:
    records = conform(engine.to_arrow(Topics(settings).read(engine, ranges, 7)), RAW_EVENTS)
    return records.sort_by([("partition", "ascending"), ("offset", "ascending")])


@pytest.fixture(params=[10**6, 1], ids=["in one process", "in several"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickstream_assets.stores.kafka.topic._PARALLEL_RECORDS", request.param)


@pytest.mark.usefixtures("processes")
def test_exactly_the_ranges_are_read(kafka: Settings, duckdb_engine: DuckDBEngine):
    settings = new_topic(kafka, partitions=3)
    # More than one chunk of the consumer, so that partitions end at different times.
    sizes = {0: 40_000, 1: 300, 2: 20}
    send(settings, {p: [b"%d:%d" % (p, n) for n in range(size)] for p, size in sizes.items()}, key=b"k")
    assert Topics(settings).offsets() == {first(settings, p): Offsets(0, size) for p, size in sizes.items()}

    bounds = {0: (10, 39_000), 1: (299, 300), 2: (0, 5)}
    ranges = [OffsetRange(partition, *ends) for partition, ends in keyed(settings, bounds).items()]
    records = read(duckdb_engine, settings, ranges)

    expected = [(r.partition.partition, offset) for r in ranges for offset in range(r.start, r.end)]
    assert list(zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True)) == expected
    assert records["value"].to_pylist() == [b"%d:%d" % place for place in expected]
    assert set(records["key"].to_pylist()) == {b"k"}
    assert set(records["topic"].to_pylist()) == {settings.kafka_topic}
    assert set(records["batch"].to_pylist()) == {7}


@pytest.mark.usefixtures("processes")
def test_what_has_no_room_is_left_from_the_end_of_a_range(kafka: Settings, duckdb_engine: DuckDBEngine):
    settings = with_settings(new_topic(kafka, partitions=3), ingest_batch_bytes=2_000_000)
    send(settings, {p: [os.urandom(100_000) for _ in range(20)] for p in range(3)})
    records = read(duckdb_engine, settings, [OffsetRange(first(settings, p), 2, 18) for p in range(3)])
    assert 20 <= records.num_rows <= 22
    for partition in range(3):
        offsets = records.filter(pc.field("partition") == partition)["offset"].to_pylist()
        assert offsets == list(range(2, 2 + len(offsets)))


def test_an_empty_topic_has_nothing_to_read(kafka: Settings):
    settings = new_topic(kafka, partitions=2)
    available = Topics(settings).offsets()
    assert available == keyed(settings, {0: Offsets(0, 0), 1: Offsets(0, 0)})
    assert plan_ranges({}, available, 100) == []


def test_a_missing_topic_is_an_error_of_its_own(kafka: Settings):
    settings = with_settings(kafka, kafka_topic=f"missing-{uuid4().hex}")
    with pytest.raises(TopicNotFoundError, match=f"KAFKA_TOPIC='{settings.kafka_topic}'.*simulate"):
        Topics(settings).offsets()


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_named_with_the_fix():
    servers = f"127.0.0.1:{free_port()}"
    settings = Settings(_env_file=None, kafka_bootstrap_servers=servers, kafka_timeout_seconds=0.5)
    with pytest.raises(
        TopicError,
        match=rf"No Kafka broker answered at KAFKA_BOOTSTRAP_SERVERS={servers} within 0.5 s.*stack up",
    ):
        Topics(settings).offsets()


@pytest.mark.slow
def test_a_read_from_a_broker_that_is_not_there_ends(duckdb_engine: DuckDBEngine):
    servers = f"127.0.0.1:{free_port()}"
    settings = Settings(_env_file=None, kafka_bootstrap_servers=servers, kafka_timeout_seconds=0.5)
    with pytest.raises(TopicError, match=f"KAFKA_BOOTSTRAP_SERVERS={servers}: partitions app/0, web/3 gave"):
        Topics(settings).read(duckdb_engine, [OffsetRange(WEB_3, 0, 1), OffsetRange(APP, 0, 1)], 1)


@pytest.mark.usefixtures("processes")
def test_offsets_that_kafka_does_not_have_are_an_error(kafka: Settings, duckdb_engine: DuckDBEngine):
    settings = new_topic(kafka, partitions=2)
    send(settings, {0: [b"a"], 1: [b"b"]})
    with pytest.raises(TopicError, match=f"reading topic {settings.kafka_topic}"):
        Topics(settings).read(
            duckdb_engine, [OffsetRange(first(settings, 0), 50, 60), OffsetRange(first(settings, 1), 0, 1)], 1
        )


@pytest.fixture(scope="module")
def mixed_topic(kafka: Settings) -> Settings:
    """Offsets 0 to 3 tombstone, empty, text, 5 MB; 4 to 6 committed, 7 its marker; 8 and 9 aborted, 10 the marker."""
    settings = new_topic(kafka)
    send(settings, {0: [None, b"", b"\x00\xff"]})
    send(settings, {0: [os.urandom(5_000_000)]}, key=b"\x00large")
    transactions = Transactions(settings)
    transactions.commit(b"c1", b"c2", b"c3")
    transactions.begin(b"a1", b"a2")
    transactions.abort()
    return settings


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (0, 4, [0, 1, 2, 3]),
        (1, 2, [1]),
        (4, 8, [4, 5, 6]),
        (6, 9, [6]),
        (7, 8, []),
        (7, 11, []),
        (9, 10, []),
        (0, 11, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_markers_and_aborted_records_are_passed_over(
    mixed_topic: Settings, duckdb_engine: DuckDBEngine, start, end, shown
):
    records = read(duckdb_engine, mixed_topic, [OffsetRange(first(mixed_topic, 0), start, end)])
    assert records["offset"].to_pylist() == shown


def test_an_open_transaction_is_not_there_yet(kafka: Settings, duckdb_engine: DuckDBEngine):
    settings = new_topic(kafka)
    send(settings, {0: [b"plain"]})
    transactions = Transactions(settings)
    transactions.begin(b"open")
    assert Topics(settings).offsets() == {first(settings): Offsets(0, 1)}
    transactions.abort()
    assert Topics(settings).offsets() == {first(settings): Offsets(0, 3)}
    assert read(duckdb_engine, settings, [OffsetRange(first(settings, 0), 0, 3)])["value"].to_pylist() == [
        b"plain"
    ]


def test_both_engines_read_the_same_rows(
    mixed_topic: Settings, duckdb_engine: DuckDBEngine, spark_engine: SparkEngine
):
    by_duckdb = read(duckdb_engine, mixed_topic, [OffsetRange(first(mixed_topic, 0), 0, 11)])
    assert by_duckdb["value"].to_pylist()[:3] == [None, b"", b"\x00\xff"]
    assert by_duckdb["key"].to_pylist() == [None, None, None, b"\x00large", None, None, None]
    assert len(by_duckdb["value"][3].as_py()) == 5_000_000
    assert read(spark_engine, mixed_topic, [OffsetRange(first(mixed_topic, 0), 0, 11)]) == by_duckdb
    assert read(spark_engine, mixed_topic, [OffsetRange(first(mixed_topic, 0), 7, 11)]).num_rows == 0


# As brokers before 4.0 have it: they take any timestamp from a sender.
ANY_TIMESTAMP = {"message.timestamp.after.max.ms": str(2**63 - 1)}


@pytest.mark.parametrize(
    ("timestamp", "is_believed"),
    [
        pytest.param(lambda now: now, True, id="now"),
        pytest.param(lambda now: now - 400 * 86_400_000, True, id="long ago"),
        pytest.param(lambda now: now // 1000, False, id="seconds"),
        pytest.param(lambda now: now * 1000, False, id="microseconds"),
        pytest.param(lambda now: now + 3 * 86_400_000, False, id="three days ahead"),
        pytest.param(lambda now: now * 1_000_000, False, id="nanoseconds"),
    ],
)
def test_a_record_came_at_the_latest_when_it_was_read_and_says_what_kafka_says(
    kafka: Settings, engine: Engine, timestamp: Callable[[int], int], is_believed: bool
):
    began = time.time_ns() // 1_000_000
    sent = timestamp(began)
    settings = new_topic(kafka, config=ANY_TIMESTAMP)
    send(settings, {0: [b"one"]}, sent_at=sent)
    if sent > began * 1000 and isinstance(engine, SparkEngine):
        # Its own reader of Kafka gives nobody a chance.
        with (
            pytest.raises(TimestampError, match=f"{settings.kafka_topic}.*COMPUTE_ENGINE=duckdb"),
            Topics(settings).explained(),
        ):
            read(engine, settings, [OffsetRange(first(settings, 0), 0, 1)])
        return
    (row,) = read(engine, settings, [OffsetRange(first(settings, 0), 0, 1)]).to_pylist()
    came = int(row["kafka_time"].timestamp() * 1000)
    if is_believed:
        assert (came, row["kafka_timestamp"]) == (sent, None)
    else:
        assert began - 1 <= came <= time.time_ns() // 1_000_000
        assert row["kafka_timestamp"] == sent


def test_a_topic_that_is_made_keeps_records_for_as_long_as_the_broker_says(kafka: Settings):
    settings = with_settings(kafka, kafka_topic=f"events-{uuid4().hex}")
    assert settings.kafka_topic in ensure_topics(settings)
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.kafka_topic)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    (configuration,) = [asked.result(60) for asked in admin.describe_configs([resource]).values()]
    for name in ("retention.ms", "retention.bytes", "segment.ms", "cleanup.policy"):
        assert configuration[name].source != ConfigSource.DYNAMIC_TOPIC_CONFIG.value, name
    # What the topic does say for itself.
    said = configuration["message.timestamp.after.max.ms"]
    assert said.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
