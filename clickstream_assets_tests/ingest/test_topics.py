"""Several topics, each in its dialect, into one lake: every record once, by its topic."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS, REJECTED_EVENTS
from clickstream_assets.engine import DuckDBEngine, SparkEngine
from clickstream_assets.ingest.classification import misclassified_records
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicNotFoundError
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import DataLossError, Topics
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingest.dialects.writers import WRITERS, happenings, own
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import delete_records, make_anew, new_topic, send

HERE = Path(__file__).parent
CALL = (
    b'{"type":"track","event":"Product Viewed","properties":{"product_id":"%s"},"context":{"sessionId":"s"},'
    b'"timestamp":"2024-05-01T12:00:00Z"%s}'
)
VIEW = b'{"event_type":"view","user_id":"u","product_id":"p","timestamp":"2024-05-01T12:00:00Z"}'
# Its shape says nothing: its topic has to.
SHAPELESS = CALL % (b"shapeless", b"")


def in_dialects(kafka: Settings, tmp_path: Path, *dialects: str, partitions: int = 2) -> Settings:
    """Settings of an own topic and of one for each dialect, and a lake."""
    base = new_topic(kafka).kafka_topic
    named = ",".join((base, *(f"{base}-{dialect}={dialect}" for dialect in dialects)))
    settings = with_settings(
        kafka, kafka_topic=named, kafka_topic_partitions=partitions, lake_path=str(tmp_path / "lake")
    )
    ensure_topics(settings)
    return settings


def send_to(settings: Settings, dialect: str, values: Iterable[bytes], partition: int = 0) -> None:
    """Send to a dialect's topic."""
    send(settings, {partition: values}, topic=f"{settings.first_topic}-{dialect}")


def rows(ingestion: Ingestion, table: Any) -> list[dict[str, Any]]:
    return ingestion.contents()[table.name]


def by_topic(ingestion: Ingestion, table: Any) -> Counter[str]:
    """How many rows are of each topic, by the dialect that its name ends in."""
    ends = (row["topic"].split("-")[2:] for row in rows(ingestion, table))
    return Counter(end[0] if end else "first" for end in ends)


def test_each_topic_is_read_in_its_dialect_whatever_its_records_look_like(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = in_dialects(kafka, tmp_path, "segment", "own")
    told = CALL % (b"told", b',"anonymousId":"a"')
    send(settings, {0: [VIEW, told, SHAPELESS]})
    send_to(settings, "segment", [SHAPELESS, VIEW])
    send_to(settings, "own", [VIEW, told])
    ingestion = Ingestion.of(settings, duckdb_engine)
    landing, _ = ingestion.run()
    assert (landing.records, landing.batch) == (7, 1)
    assert {str(partition): offset for partition, offset in landing.offsets.items() if offset} == {
        f"{settings.first_topic}/0": 3,
        f"{settings.first_topic}-own/0": 2,
        f"{settings.first_topic}-segment/0": 2,
    }
    assert by_topic(ingestion, REJECTED_EVENTS) == {"first": 1, "segment": 1, "own": 1}
    assert {(row["field"], row["rule"]) for row in rows(ingestion, REJECTED_EVENTS)} == {
        ("event_type", "missing")
    }
    assert [row["product_id"] for row in rows(ingestion, EVENTS)] == ["p", "told", "shapeless"]
    assert ingestion.misclassified() == {}
    # A topic without a dialect follows EVENT_DIALECT, and one with its own does not.
    changed = Ingestion.of(with_settings(settings, event_dialect="segment"), duckdb_engine)
    send(settings, {0: [SHAPELESS.replace(b"T12", b"T13")]})
    send_to(settings, "own", [SHAPELESS.replace(b"T12", b"T14")])
    changed.run()
    assert by_topic(changed, EVENTS) == {"first": 3, "segment": 1}
    assert by_topic(changed, REJECTED_EVENTS) == {"first": 1, "segment": 1, "own": 2}


def test_a_topic_that_is_added_begins_at_its_beginning_and_one_that_is_taken_away_stays(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = in_dialects(kafka, tmp_path, "ga4", "segment")
    first, ga4, segment = settings.kafka_topic.split(",")
    sent = list(happenings(2, 6))
    send(settings, {0: map(own, sent)})
    send_to(settings, "ga4", map(WRITERS["ga4"], sent), partition=1)
    alone = Ingestion.of(with_settings(settings, kafka_topic=first), duckdb_engine)
    assert alone.run()[0].records == 6
    both = Ingestion.of(with_settings(settings, kafka_topic=f"{first},{ga4}"), duckdb_engine)
    assert both.run()[0].records == 6
    assert both.run()[0].records == 0
    # It is gone from Kafka, too; one that comes in its place is nobody's successor.
    admin = AdminClient({"bootstrap.servers": kafka.kafka_bootstrap_servers})
    name = ga4.partition("=")[0]
    admin.delete_topics([name])[name].result()
    send(settings, {0: map(own, happenings(3, 2))})
    send_to(settings, "segment", map(WRITERS["segment"], sent))
    others = Ingestion.of(with_settings(settings, kafka_topic=f"{segment},{first}"), duckdb_engine)
    landing, _ = others.run()
    assert (landing.records, {partition.topic for partition in landing.offsets}) == (
        8,
        {first, segment.partition("=")[0]},
    )
    assert by_topic(others, RAW_EVENTS) == {"first": 8, "ga4": 6, "segment": 6}
    assert by_topic(others, REJECTED_EVENTS) == {}
    assert misclassified_records(others.lake, landing.batch, first_batch=1) == []
    # It is named again, and is not there.
    missing = Ingestion.of(with_settings(settings, kafka_topic=f"{first},{ga4}"), duckdb_engine)
    with pytest.raises(TopicNotFoundError, match=rf"no topic {name}\. `clickstream prepare`") as caught:
        missing.land()
    assert caught.value.others_are_there


def test_what_is_lost_of_one_topic_is_said_with_its_name_and_nothing_is_read(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = in_dialects(kafka, tmp_path, "ga4")
    other = f"{settings.first_topic}-ga4"
    ingestion = Ingestion.of(settings, duckdb_engine)
    for topic in settings.topics:
        send(settings, {0: [b"x"] * 5}, topic=topic)
    ingestion.land()
    for topic in settings.topics:
        send(settings, {0: [b"x"] * 5}, topic=topic)
    delete_records(settings, other, 0, 8)
    versions = ingestion.versions()
    with pytest.raises(DataLossError, match=f"never ingested: 3 of partition 0 of topic {other}"):
        ingestion.land()
    assert ingestion.versions() == versions
    allowed = Ingestion.of(with_settings(settings, allow_data_loss=True), duckdb_engine)
    landing = allowed.land()
    assert (landing.records, landing.lost) == (7, 3)

    assert None not in Topics(settings).ids().values()
    for topic in settings.topics:
        make_anew(settings, partitions=2, topic=topic)
        send(settings, {0: [b"y"] * 20}, topic=topic)
        with pytest.raises(DataLossError, match=f"'{topic}' is another topic than the one that was ingested"):
            Ingestion.of(with_settings(settings, kafka_topic=f"{topic}"), duckdb_engine).land()
    with pytest.raises(DataLossError, match="is another topic than the one that was ingested"):
        allowed.land()


def test_a_large_topic_and_a_small_one_share_a_commit(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = with_settings(
        in_dialects(kafka, tmp_path, "ga4"), ingest_batch_records=10, ingest_run_records=10
    )
    send(settings, {0: [b"x"] * 100})
    send_to(settings, "ga4", [b"x"] * 4)
    send_to(settings, "ga4", [b"x"] * 100, partition=1)
    ingestion = Ingestion.of(settings, duckdb_engine)
    landing = ingestion.land()
    assert (landing.records, landing.batch) == (10, 1)
    assert sorted(landing.offsets.values()) == [3, 3, 4]


@pytest.mark.long
def test_every_dialect_of_a_topic_of_its_own_is_the_same_on_spark(
    kafka: Settings, duckdb_engine: DuckDBEngine, spark_engine: SparkEngine, tmp_path: Path
):
    dialects = ("segment", "ga4", "shopify", "snowplow")
    settings = in_dialects(kafka, tmp_path, *dialects, partitions=1)
    send(settings, {0: map(own, happenings(1, 10))})
    for seed, dialect in enumerate(dialects, start=2):
        real = (HERE / "dialects" / f"{dialect}.jsonl").read_bytes().splitlines()
        sent = [happened for happened in happenings(seed, 40) if dialect != "shopify" or says(happened)]
        written = map(WRITERS[dialect], sent)
        send_to(settings, dialect, [*written, b"{}", b"\x00avro-bytes", *real])
    send_to(settings, "snowplow", map(WRITERS["snowplow_tsv"], happenings(6, 20)))
    by_duckdb = Ingestion.of(settings, duckdb_engine)
    by_duckdb.run()
    by_spark = Ingestion.of(with_settings(settings, lake_path=str(tmp_path / "spark")), spark_engine)
    landing, _ = by_spark.run()
    assert landing.batch == 1
    assert by_spark.run()[0].records == 0
    contents = Ingestion.of(by_spark.settings, duckdb_engine).contents()
    assert contents == by_duckdb.contents()
    assert misclassified_records(by_duckdb.lake, landing.batch, first_batch=1) == []
    assert min(by_topic(by_duckdb, EVENTS)[name] for name in ("first", *dialects)) >= 10
    assert by_topic(by_duckdb, REJECTED_EVENTS).keys() == set(dialects)


def says(happened: dict[str, Any]) -> bool:
    """Return whether Shopify's pixel has such an event."""
    return happened["event_type"] not in ("click", "add_to_wishlist", "refund", "identify")
