"""From a real topic to the lake: every record once, in one table, whatever the batches are."""

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import deltalake
import msgspec
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS, REJECTED_EVENTS, Table
from clickstream_assets.engine import DataFrame, DuckDBEngine, SparkEngine, functions_of
from clickstream_assets.ingest import classification
from clickstream_assets.ingest.classification import (
    CLASSIFIED_TABLES,
    counts_by_hour,
    land_records,
    misclassified_records,
)
from clickstream_assets.ingest.parsing import parse_batches
from clickstream_assets.ingest.reach import dirty_days
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import DataLossError, Offsets, Topics
from clickstream_assets.stores.lake import Lake, LakeStorageError
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingestion import Contents, Ingestion, made_counts, simulate
from clickstream_assets_tests.topics import Transactions, delete_records, keyed, make_anew, new_topic, send


@pytest.fixture
def shop(kafka: Settings, tmp_path: Path) -> Settings:
    """Settings of a topic of three partitions and a lake, both of the test alone."""
    settings = new_topic(kafka, partitions=3)
    return with_settings(settings, lake_path=str(tmp_path / "lake"))


def event(user: str, time: str, **fields: Any) -> bytes:
    return msgspec.json.encode(
        {"event_type": "view", "user_id": user, "product_id": "p", "timestamp": time} | fields
    )


def test_tables_hold_what_the_simulator_made(shop: Settings, duckdb_engine: DuckDBEngine):
    made = simulate(shop, events=3_000, share=0.01)
    ingestion = Ingestion.of(shop, duckdb_engine)
    landing, classified = ingestion.run()

    assert min(made.duplicates, made.conflicts, made.rejected, made.late) > 10
    assert ingestion.counts() == made_counts(made)
    assert (landing.records, landing.batch, landing.lost) == (made.sent, 1, 0)
    assert sum(landing.offsets.values()) == made.sent
    assert classified["events"] == made.events
    assert classified["same_event"] + classified["same_order_line"] == made.duplicates
    assert classified["other_payload"] == made.conflicts
    assert classified["rejected"] == made.rejected

    events = duckdb_engine.to_arrow(ingestion.lake.read(EVENTS)).to_pylist()
    assert len({row["event_id"] for row in events}) == made.events
    assert len({row["user_id"] for row in events}) == made.users
    assert len({row["user_id"] for row in events if row["event_type"] == "purchase"}) == made.buyers
    types = {name: sum(row["event_type"] == name for row in events) for name in made.by_type}
    assert types == made.by_type
    assert ingestion.misclassified() == {}


def test_small_batches_end_in_the_same_tables_and_running_again_changes_nothing(
    shop: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    made = simulate(shop, events=35, share=0.12)
    assert min(made.duplicates, made.conflicts, made.rejected) > 0
    at_once = Ingestion.of(shop, duckdb_engine)
    at_once.run()
    small = with_settings(shop, ingest_batch_records=12, lake_path=str(tmp_path / "small"))
    in_batches = Ingestion.of(small, duckdb_engine)
    landing, classified = in_batches.run()

    assert landing.batch == -(-made.sent // 12) > 2
    assert classified.total() == made.sent
    assert in_batches.counts() == at_once.counts() == made_counts(made)
    assert in_batches.contents() == at_once.contents()
    assert in_batches.misclassified() == {}

    versions = in_batches.versions()
    again, classified = in_batches.run()
    assert (again.records, again.offsets) == (0, landing.offsets)
    assert classified.total() == 0
    assert in_batches.versions() == versions


@dataclass
class HalfDone:
    """An ingest of four batches, before any is classified, and the contents that it must end in."""

    ingestion: Ingestion
    contents: Contents

    def assert_that_the_next_run_ends_in_it(self) -> None:
        self.ingestion.classify()
        assert self.ingestion.contents() == self.contents
        assert self.ingestion.misclassified() == {}


@pytest.fixture
def half_done(shop: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path) -> HalfDone:
    made = simulate(shop, events=35, share=0.12)
    small = with_settings(shop, ingest_batch_records=-(-made.sent // 4))
    ingestion = Ingestion.of(small, duckdb_engine)
    assert ingestion.land().batch == 4
    undisturbed = Ingestion.of(with_settings(small, lake_path=str(tmp_path / "other")), duckdb_engine)
    undisturbed.run()
    return HalfDone(ingestion, undisturbed.contents())


@pytest.mark.long
def test_a_batch_that_cannot_be_parsed_does_not_keep_those_before_it_from_being_classified(
    half_done: HalfDone, monkeypatch: pytest.MonkeyPatch
):
    def parse_up_to_two(batches: Iterator[pa.RecordBatch], **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.column("batch")[0].as_py() == 3:
                raise MemoryError("a batch too many")
            yield from parse_batches(iter([batch]), **options)

    ingestion = half_done.ingestion
    with monkeypatch.context() as patched:
        patched.setattr(classification, "parse_batches", parse_up_to_two)
        with pytest.raises(MemoryError, match="a batch too many"):
            ingestion.classify()
    # The third was being parsed while the second was classified.
    assert ingestion.lake.snapshot(EVENTS).batch == 2
    half_done.assert_that_the_next_run_ends_in_it()


def test_a_batch_that_cannot_be_classified_is_classified_by_the_next_run_and_the_one_after_it_too(
    half_done: HalfDone, monkeypatch: pytest.MonkeyPatch
):
    append = Lake.append_batch

    def append_but_one(lake: Lake, table: Table, df: DataFrame, batch: int, **options: Any) -> None:
        if (table, batch) == (EVENTS, 2):
            raise LakeStorageError("no space left")
        append(lake, table, df, batch, **options)

    ingestion = half_done.ingestion
    with monkeypatch.context() as patched:
        patched.setattr(Lake, "append_batch", append_but_one)
        with pytest.raises(LakeStorageError, match="no space left"):
            ingestion.classify()
    assert ingestion.lake.snapshot(EVENTS).batch == 1
    # The third, which was being parsed, is nobody's, and its thread has come to its end.
    for thread in threading.enumerate():
        if thread.name.startswith("map_arrow"):
            thread.join(timeout=30)
            assert not thread.is_alive()
    half_done.assert_that_the_next_run_ends_in_it()


def test_a_run_takes_no_more_than_it_may_and_the_next_goes_on(shop: Settings, duckdb_engine: DuckDBEngine):
    send(shop, {p: [b"x"] * 10 for p in range(3)})
    ingestion = Ingestion.of(
        with_settings(shop, ingest_batch_records=4, ingest_run_records=13), duckdb_engine
    )
    landings = [ingestion.land() for _ in range(4)]
    assert [landing.records for landing in landings] == [13, 13, 4, 0]
    assert landings[-1].offsets == keyed(shop, {0: 10, 1: 10, 2: 10})


def test_a_batch_of_large_records_ends_where_it_has_its_bytes(shop: Settings, duckdb_engine: DuckDBEngine):
    values = {p: [bytes([p, n]) * 150_000 for n in range(4)] for p in range(3)}
    send(shop, values)
    ingestion = Ingestion.of(with_settings(shop, ingest_batch_bytes=700_000), duckdb_engine)
    landing = ingestion.land()
    # A first one of as yet unknown size, then as many as there is room for, and the one that fills it.
    assert (landing.records, landing.batch, landing.offsets) == (
        12,
        4,
        keyed(shop, dict.fromkeys(range(3), 4)),
    )
    rows = ingestion.contents()[RAW_EVENTS.name]
    assert [row["value"] for row in rows] == [value for p in range(3) for value in values[p]]


def test_records_that_arrive_meanwhile_are_left_to_the_next_run(shop: Settings, duckdb_engine: DuckDBEngine):
    class BusyTopic(Topics):
        def offsets(self) -> dict[TopicPartition, Offsets]:
            available = super().offsets()
            send(shop, {0: [b"later"]})
            return available

    send(shop, {0: [b"a", b"b"]})
    ingestion = Ingestion.of(shop, duckdb_engine)
    one_by_one = with_settings(shop, ingest_batch_records=1)
    assert land_records(ingestion.lake, BusyTopic(shop), one_by_one).records == 2
    assert ingestion.land().records == 1


@pytest.fixture(scope="module")
def two_hours(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path_factory: pytest.TempPathFactory
) -> Ingestion:
    """Four events and a rejected record an hour, each hour a batch: 9 and 10 o'clock."""
    lake_path = str(tmp_path_factory.mktemp("two_hours") / "lake")
    ingestion = Ingestion.of(with_settings(new_topic(kafka), lake_path=lake_path), duckdb_engine)
    for hour in (9, 10):
        events = [event("u", f"2024-05-01T0{minute}:00:00Z", n=hour) for minute in range(4)]
        arrival = datetime(2024, 5, 1, hour, 59, 59, 999_000, tzinfo=UTC)
        send(ingestion.settings, {0: [*events, b"broken"]}, sent_at=arrival)
        ingestion.run()
    return ingestion


@pytest.fixture
def copy_of_two_hours(two_hours: Ingestion, tmp_path: Path) -> Ingestion:
    """Records of two hours in a lake that a test may damage."""
    lake_path = shutil.copytree(two_hours.settings.lake, tmp_path / "lake")
    return Ingestion.of(with_settings(two_hours.settings, lake_path=str(lake_path)), two_hours.lake.engine)


def hours_of(ingestion: Ingestion, batch: int = 2) -> dict[int, tuple[int, ...]]:
    hours = counts_by_hour(ingestion.lake, batch)
    names = [table.name for table in (RAW_EVENTS, *CLASSIFIED_TABLES)]
    return {hour["hour"].hour: tuple(hour[name] for name in names) for hour in hours}


def test_records_are_counted_by_the_hour_of_their_arrival(two_hours: Ingestion):
    assert hours_of(two_hours) == dict.fromkeys((9, 10), (5, 4, 0, 0, 1, 0))
    assert hours_of(two_hours, batch=1) == {9: (5, 4, 0, 0, 1, 0)}
    (first,) = counts_by_hour(two_hours.lake, 1)
    assert first["hour"] == datetime(2024, 5, 1, 9, tzinfo=UTC)
    assert misclassified_records(two_hours.lake, 1) == []
    assert misclassified_records(two_hours.lake, 2) == []


def lose(ingestion: Ingestion, table: Table, offset: int) -> None:
    deltalake.DeltaTable(ingestion.lake.path(table)).delete(f"offset = {offset}")


def double(ingestion: Ingestion, table: Table, offset: int) -> None:
    rows = ingestion.lake.read(table)
    F, _ = functions_of(rows)
    copy = ingestion.lake.engine.to_arrow(rows.where(F.col("offset") == offset))
    deltalake.write_deltalake(ingestion.lake.path(table), copy, mode="append")


def test_a_lost_record_is_found(copy_of_two_hours: Ingestion):
    lose(copy_of_two_hours, EVENTS, 7)
    assert hours_of(copy_of_two_hours) == {9: (5, 4, 0, 0, 1, 0), 10: (5, 3, 0, 0, 1, 0)}
    topic = copy_of_two_hours.settings.kafka_topic
    assert misclassified_records(copy_of_two_hours.lake, 2) == [
        {"topic": topic, "partition": 0, "offset": 7, "tables": 0}
    ]


def test_all_batches_are_looked_at_a_range_after_the_other(
    copy_of_two_hours: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(classification, "ROWS_AT_ONCE", 5)
    for offset in (1, 7):
        lose(copy_of_two_hours, EVENTS, offset)
    wrong = misclassified_records(copy_of_two_hours.lake, 2, first_batch=1)
    assert [(row["offset"], row["tables"]) for row in wrong] == [(1, 0), (7, 0)]
    (first,) = misclassified_records(copy_of_two_hours.lake, 2, limit=1, first_batch=1)
    assert first["offset"] == 1


def test_a_doubled_record_is_found(copy_of_two_hours: Ingestion):
    double(copy_of_two_hours, REJECTED_EVENTS, 9)
    assert hours_of(copy_of_two_hours)[10] == (5, 4, 0, 0, 2, 0)
    (wrong,) = misclassified_records(copy_of_two_hours.lake, 2)
    assert (wrong["offset"], wrong["tables"]) == (9, 2)


def test_a_lost_record_that_a_doubled_one_makes_up_for_is_found(copy_of_two_hours: Ingestion):
    double(copy_of_two_hours, EVENTS, 5)
    lose(copy_of_two_hours, EVENTS, 6)
    assert hours_of(copy_of_two_hours)[10] == (5, 4, 0, 0, 1, 0)
    wrong = misclassified_records(copy_of_two_hours.lake, 2)
    assert sorted((row["offset"], row["tables"]) for row in wrong) == [(5, 2), (6, 0)]


def test_rejected_records_keep_their_bytes(shop: Settings, duckdb_engine: DuckDBEngine):
    large = os.urandom(5_000_000)
    nul = event("u", "2024-05-01T00:00:00Z", event_type="cart", product_id={"a": "\x00"})
    bad = [None, b"", b"\xff\x00", b"[1]", event("u", "yesterday"), nul, large]
    send(shop, {1: [event("u", "2024-05-01T00:00:00Z"), *bad]}, key=b"\x00\xff")
    ingestion = Ingestion.of(shop, duckdb_engine)
    ingestion.run()

    rows = ingestion.contents()
    assert [row["value"] for row in rows[RAW_EVENTS.name]][1:] == bad
    rejected = rows[REJECTED_EVENTS.name]
    assert [(row["offset"], row["value"]) for row in rejected] == list(enumerate(bad, 1))
    assert {row["key"] for row in rejected} == {b"\x00\xff"}
    assert [(row["field"], row["rule"]) for row in rejected] == [
        (None, "tombstone"),
        (None, "not_json"),
        (None, "not_json"),
        (None, "not_an_object"),
        ("timestamp", "not_iso_8601"),
        ("product_id", "wrong_type"),
        (None, "too_large"),
    ]
    assert rejected[4]["rejected_value"] == "yesterday"
    assert "\x00" not in rejected[5]["rejected_value"]
    assert len(rows[EVENTS.name]) == 1


def test_records_that_retention_deleted_fail_the_run_unless_that_is_allowed(
    shop: Settings, duckdb_engine: DuckDBEngine
):
    ingestion = Ingestion.of(shop, duckdb_engine)
    send(shop, {p: [b"x"] * 10 for p in range(3)})
    # Before the first run nothing was promised yet.
    delete_records(shop, shop.kafka_topic, 2, 4)
    assert ingestion.land().offsets == keyed(shop, {0: 10, 1: 10, 2: 10})
    send(shop, {p: [b"x"] * 10 for p in range(3)})
    delete_records(shop, shop.kafka_topic, 0, 15)
    delete_records(shop, shop.kafka_topic, 1, 13)
    delete_records(shop, shop.kafka_topic, 2, 10)

    versions = ingestion.versions()
    with pytest.raises(DataLossError, match=r"5 of partition 0 of topic .*, 3 of partition 1 of topic"):
        ingestion.land()
    assert ingestion.versions() == versions

    allowed = Ingestion.of(with_settings(shop, allow_data_loss=True, ingest_batch_records=2), duckdb_engine)
    landing = allowed.land()
    assert (landing.lost, landing.records) == (8, 22)
    assert landing.offsets == keyed(shop, {0: 20, 1: 20, 2: 20})
    assert ingestion.land().lost == 0


def test_a_topic_that_was_made_anew_is_refused(shop: Settings, duckdb_engine: DuckDBEngine):
    send(shop, {0: [b"x"] * 3})
    ingestion = Ingestion.of(shop, duckdb_engine)
    ingestion.land()
    emptied = keyed(shop, {0: Offsets(0, 1)})

    class NewTopic(Topics):
        def offsets(self) -> dict[TopicPartition, Offsets]:
            return emptied

    with pytest.raises(DataLossError, match="deleted and made anew"):
        land_records(ingestion.lake, NewTopic(shop), shop)


def test_a_topic_that_was_made_anew_and_has_become_longer_is_refused(
    shop: Settings, duckdb_engine: DuckDBEngine
):
    send(shop, {0: [b"x"] * 3})
    ingestion = Ingestion.of(shop, duckdb_engine)
    ingestion.land()
    make_anew(shop, partitions=3)
    send(shop, {0: [b"y"] * 10, 1: [b"y"]})
    versions = ingestion.versions()
    for allow_data_loss in (False, True):
        # Its records have the keys of those that are there.
        settings = with_settings(shop, allow_data_loss=allow_data_loss)
        with pytest.raises(DataLossError, match="is another topic than the one that was ingested"):
            Ingestion.of(settings, duckdb_engine).land()
    assert ingestion.versions() == versions


def test_a_topic_may_be_called_as_the_table_is(kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path):
    settings = with_settings(kafka, kafka_topic=RAW_EVENTS.name, lake_path=str(tmp_path / "lake"))
    ensure_topics(settings)
    ingestion = Ingestion.of(settings, duckdb_engine)
    before = sum(ingestion.land().offsets.values())
    for number in range(1, 4):
        send(settings, {0: [b"x"]})
        landing = ingestion.land()
        assert (landing.records, landing.batch, sum(landing.offsets.values())) == (1, number, before + number)


def test_first_records_of_a_partition_that_retention_deleted_are_missed(
    shop: Settings, duckdb_engine: DuckDBEngine
):
    ingestion = Ingestion.of(shop, duckdb_engine)
    send(shop, {0: [b"x"]})
    assert ingestion.land().offsets == keyed(shop, {0: 1, 1: 0, 2: 0})
    send(shop, {1: [b"x"] * 10})
    delete_records(shop, shop.kafka_topic, 1, 4)
    with pytest.raises(DataLossError, match="4 of partition 1"):
        ingestion.land()
    landing = Ingestion.of(with_settings(shop, allow_data_loss=True), duckdb_engine).land()
    assert (landing.lost, landing.records, landing.offsets) == (4, 6, keyed(shop, {0: 1, 1: 10, 2: 0}))


@pytest.mark.parametrize("batch_records", [1, pytest.param(100, marks=pytest.mark.long)])
def test_a_topic_that_ends_in_transaction_markers_is_read_to_its_end_once(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, batch_records
):
    settings = new_topic(kafka)
    ingestion = Ingestion.of(
        with_settings(settings, lake_path=str(tmp_path / "lake"), ingest_batch_records=batch_records),
        duckdb_engine,
    )
    transactions = Transactions(settings)
    transactions.commit(*(event("u", f"2024-05-01T00:0{n}:00Z") for n in range(3)))
    transactions.begin(event("aborted", "2024-05-01T00:00:00Z"), b"aborted")
    transactions.abort()
    landing = ingestion.land()
    assert (landing.records, landing.offsets) == (3, keyed(settings, {0: 7}))

    version = ingestion.lake.snapshot(RAW_EVENTS).version
    landing = ingestion.land()
    assert (landing.records, landing.offsets) == (0, keyed(settings, {0: 7}))
    assert ingestion.lake.snapshot(RAW_EVENTS).version == version

    transactions.begin(b"open")
    assert ingestion.land().offsets == keyed(settings, {0: 7})
    transactions.abort()
    transactions.commit(event("u", "2024-05-01T00:09:00Z"))
    landing = ingestion.land()
    assert (landing.records, landing.offsets) == (1, keyed(settings, {0: 11}))
    assert [row["offset"] for row in ingestion.contents()[RAW_EVENTS.name]] == [0, 1, 2, 9]


def test_two_topics_share_a_lake(shop: Settings, kafka: Settings, duckdb_engine: DuckDBEngine):
    other = with_settings(new_topic(kafka), lake_path=shop.lake)
    first, second = (Ingestion.of(settings, duckdb_engine) for settings in (shop, other))
    send(shop, {0: [event("u", "2024-05-01T00:00:00Z", event_id="same")], 1: [b"x"]})
    send(
        other, {0: [event("u", "2024-05-01T00:00:00Z", event_id="same"), event("v", "2024-05-01T00:00:00Z")]}
    )
    assert first.run()[0].offsets == keyed(shop, {0: 1, 1: 1, 2: 0})
    assert second.run()[0].offsets == keyed(other, {0: 2})
    assert first.run()[0].records == 0
    assert list(first.counts().values()) == [4, 2, 1, 0, 1]
    assert first.lake.snapshot(RAW_EVENTS).rows_by("topic") == {shop.kafka_topic: 2, other.kafka_topic: 2}
    assert first.misclassified() == {}


def test_dirty_days_are_those_whose_sessions_new_events_can_change(
    shop: Settings, duckdb_engine: DuckDBEngine
):
    ingestion = Ingestion.of(shop, duckdb_engine)

    def ingest(*events: bytes) -> list[date]:
        before = ingestion.lake.snapshot(EVENTS).batch
        send(shop, {0: events})
        ingestion.run()
        return dirty_days(ingestion.lake, before, settings)

    settings = with_settings(shop, session_gap_minutes=30, funnel_window_minutes=30, attribution_days=30)
    assert dirty_days(ingestion.lake, 0, settings) == []
    first = [event("u", "2024-04-30T23:50:00Z"), event("v", "2024-05-05T12:00:00Z")]
    assert ingest(*first) == [date(2024, 4, 30), date(2024, 5, 5)]
    # Nobody else was active around this day.
    assert ingest(event("v", "2024-05-09T12:00:00Z")) == [date(2024, 5, 9)]
    # The session of the evening before may go on past midnight.
    assert ingest(event("u", "2024-05-01T00:10:00Z"))[:2] == [date(2024, 4, 30), date(2024, 5, 1)]
    assert ingest(b"rejected", event("u", "2024-05-01T00:10:00Z")) == []
    assert dirty_days(ingestion.lake, 0, settings)[0] == date(2024, 4, 30)
    assert dirty_days(ingestion.lake, ingestion.lake.snapshot(EVENTS).batch, settings) == []


def test_spark_ends_in_the_tables_of_duckdb(
    shop: Settings, duckdb_engine: DuckDBEngine, spark_engine: SparkEngine, tmp_path: Path
):
    made = simulate(shop, events=300, share=0.03)
    assert min(made.duplicates, made.conflicts, made.rejected) > 2
    by_duckdb = Ingestion.of(shop, duckdb_engine)
    by_duckdb.run()
    shared = with_settings(shop, lake_path=str(tmp_path / "shared"))
    Ingestion.of(with_settings(shared, ingest_run_records=made.sent // 2), duckdb_engine).run()
    by_spark = Ingestion.of(shared, spark_engine)
    landing, classified = by_spark.run()
    assert (landing.records, classified.total()) == (made.sent - made.sent // 2,) * 2
    versions = by_spark.versions()
    assert by_spark.run()[0].records == 0
    assert by_spark.versions() == versions

    by_both = Ingestion.of(shared, duckdb_engine)
    assert by_both.counts() == made_counts(made)
    assert by_both.contents() == by_duckdb.contents()
    assert by_both.misclassified() == {}
