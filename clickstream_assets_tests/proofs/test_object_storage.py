"""A lake on object storage, by a real server of S3's interface: the same tables, whatever happens to it on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from clickstream_assets import catalogue
from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.query import checkpoint_of
from clickstream_assets_tests.analytics.records import at, event, event_table
from clickstream_assets_tests.appending import APPENDED
from clickstream_assets_tests.conftest import FOR_A_FEW_ROWS
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingestion import Contents, Ingestion, ingestion_environment, simulate
from clickstream_assets_tests.object_storage import BUCKET, ObjectStorage, object_storage
from clickstream_assets_tests.streaming.streams import new_shop, views
from clickstream_assets_tests.topics import new_topic

pytestmark = [pytest.mark.long, pytest.mark.server]

INGEST = [sys.executable, "-m", "clickstream_assets_tests.ingestion"]
RUN = [sys.executable, "-m", "clickstream_assets_tests.whole_run"]
APPEND = [sys.executable, "-m", "clickstream_assets_tests.appending"]
STREAM = [str(Path(sys.executable).with_name("clickstream")), "stream", "--once"]
ON_DUCKDB = {"COMPUTE_ENGINE": "duckdb"}
ON_SPARK = {
    "COMPUTE_ENGINE": "spark",
    "SPARK_MASTER": "local[2]",
    "SPARK_SHUFFLE_PARTITIONS": "2",
    "SPARK_CONFIG": json.dumps(FOR_A_FEW_ROWS),
}
# What each engine trains by a library of its own.
TRAINED = {catalogue.USER_FACTORS, catalogue.ITEM_FACTORS, catalogue.MODEL_EVALUATION}
# What a run takes, and when it was.
NOT_OF_THE_DATA = {"seconds", "made_at", "trained_at", "made_from", "files", "generated_at"}
FILE_READ = re.compile(r"\| GET \| \S*/(event_date=[^/ ]*)/")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    with object_storage(tmp_path_factory.mktemp("s3")) as storage:
        yield storage


@pytest.fixture(scope="module")
def shop(kafka: Settings, s3: ObjectStorage) -> Settings:
    """A topic with every kind of record, for two batches."""
    settings = new_topic(kafka, partitions=2)
    made = simulate(settings, events=240, share=0.05)
    return with_settings(settings, ingest_batch_records=made.sent * 2 // 3)


@pytest.fixture(scope="module")
def undisturbed(
    shop: Settings, duckdb_engine: DuckDBEngine, tmp_path_factory: pytest.TempPathFactory
) -> Contents:
    """The tables of a lake in a folder."""
    folder = tmp_path_factory.mktemp("folder")
    ingestion = Ingestion.of(with_settings(shop, lake_path=str(folder / "lake")), duckdb_engine)
    ingestion.run()
    return ingestion.contents()


def on_s3(settings: Settings, engine: DuckDBEngine, lake: str) -> Ingestion:
    return Ingestion.of(with_settings(settings, lake_path=f"s3a://{BUCKET}/{lake}"), engine)


def rows(lake: Lake, table: catalogue.Table) -> list[dict[str, object]]:
    names = [name for name in table.column_names if name not in NOT_OF_THE_DATA]
    found = lake.engine.to_arrow(lake.read(table).select(*names)).to_pylist()
    if table is catalogue.DAILY_REPORT:
        for row in found:
            row["report"] = json.loads(row["report"]) | {"generated_at": None}
    return sorted(found, key=repr)


def carried_out(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1800, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def assert_equal_tables(one: str, other: str, engine: DuckDBEngine, without: set[catalogue.Table]) -> None:
    """Compare all tables of two lakes, but for some."""
    expected, found = (Lake(lake, engine) for lake in (one, other))
    in_lake = [table for table in catalogue.TABLES.values() if table.in_lake and expected.exists(table)]
    assert {EVENTS, catalogue.CARTS, catalogue.DAILY_REPORT} <= set(in_lake)
    for table in in_lake:
        if table not in without:
            assert rows(found, table) == rows(expected, table), table.name


def test_a_whole_run_ends_in_the_tables_of_a_lake_in_a_folder(
    pipeline_env: Settings, s3: ObjectStorage, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    simulate(pipeline_env, events=2_000, share=0.02)
    lakes = (str(tmp_path / "lake"), f"s3a://{BUCKET}/whole")
    for lake in lakes:
        carried_out([*RUN, "2024-05-01", "2024-05-03"], ON_DUCKDB | {"LAKE_PATH": lake})
    assert_equal_tables(*lakes, duckdb_engine, without=set())


@pytest.mark.spark
def test_a_day_on_spark_ends_in_the_tables_of_duckdb(
    pipeline_env: Settings, s3: ObjectStorage, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    simulate(pipeline_env, events=400, share=0.05)
    lakes = (str(tmp_path / "lake"), f"s3a://{BUCKET}/day-on-spark")
    for lake, engine in zip(lakes, (ON_DUCKDB, ON_SPARK), strict=True):
        carried_out([*RUN, "2024-05-01", "2024-05-01"], engine | {"LAKE_PATH": lake})
    assert_equal_tables(*lakes, duckdb_engine, without=TRAINED)


@pytest.mark.spark
def test_writers_of_both_engines_at_once_lose_and_double_nothing(
    s3: ObjectStorage, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    lake = Lake(f"s3a://{BUCKET}/both", duckdb_engine)
    lake.snapshot(APPENDED)
    writers = {"spark-1": ON_SPARK, "spark-2": ON_SPARK, "duckdb-1": ON_DUCKDB, "duckdb-2": ON_DUCKDB}
    processes = [
        subprocess.Popen(
            [*APPEND, name, "10", str(tmp_path), str(len(writers))],
            env=os.environ | engine | {"LAKE_PATH": f"s3a://{BUCKET}/both"},
            stderr=subprocess.PIPE,
        )
        for name, engine in writers.items()
    ]
    for process in processes:
        _, error = process.communicate(timeout=1800)
        assert process.returncode == 0, error[-4000:].decode()
    expected = [{"writer": name, "number": number} for name in writers for number in range(1, 11)]
    assert rows(lake, APPENDED) == sorted(expected, key=repr)
    assert lake.version(APPENDED) == 40


@pytest.mark.spark
def test_a_spark_writer_that_is_killed_before_its_commit_leaves_no_row(
    s3: ObjectStorage, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    command = [*APPEND, "killed", "2", str(tmp_path), "1", "dies"]
    environment = os.environ | ON_SPARK | {"LAKE_PATH": f"s3a://{BUCKET}/killed"}
    process = subprocess.run(command, env=environment, timeout=900, check=False)
    assert process.returncode == -signal.SIGKILL
    lake = Lake(f"s3a://{BUCKET}/killed", duckdb_engine)
    assert rows(lake, APPENDED) == [{"writer": "killed", "number": 1}]
    folder = s3.folder / BUCKET / "killed" / APPENDED.name
    files = list(folder.rglob("*.parquet"))
    assert len(files) == 2
    for file in files:
        os.utime(file, (0, 0))
    lake.maintain(APPENDED, timedelta(hours=1))
    assert len(list(folder.rglob("*.parquet"))) == 1
    assert rows(lake, APPENDED) == [{"writer": "killed", "number": 1}]


@pytest.mark.spark
def test_a_stream_goes_on_from_checkpoints_on_object_storage(
    servers: Settings, s3: ObjectStorage, tmp_path: Path
):
    start = at("2024-05-01 12:00")
    with new_shop(servers, tmp_path) as shop:
        shop.settings = with_settings(
            shop.settings, checkpoint_path=f"s3a://{BUCKET}/checkpoints", lake_path=f"s3a://{BUCKET}/streamed"
        )
        environment = shop.environment() | {"SPARK_CONFIG": json.dumps(FOR_A_FEW_ROWS)}
        # The second part falls into windows of the first: their counts are in the state alone.
        for sent, prefix in ((30, "a"), (30, "b")):
            shop.send(views(start, sent, timedelta(minutes=4), prefix=prefix))
            carried_out(STREAM, environment)
        assert checkpoint_of(shop.settings, 1).committed_offsets() == {
            TopicPartition(shop.settings.kafka_topic, 0): 60
        }
        counted = {row["window_start"]: row["views"] for row in shop.windows()}
        assert counted == {start - timedelta(minutes=5): 60, start: 60}


@pytest.mark.parametrize(
    ("table", "moment"),
    [(RAW_EVENTS, "before"), (RAW_EVENTS, "after"), (EVENTS, "before"), (EVENTS, "after")],
)
def test_an_ingest_that_is_killed_at_a_write_is_made_good_by_the_next(
    shop: Settings, duckdb_engine: DuckDBEngine, undisturbed: Contents, table: catalogue.Table, moment: str
):
    ingestion = on_s3(shop, duckdb_engine, f"killed-{moment}-{table.name}")
    command = [*INGEST, table.name, moment, "2"]
    process = subprocess.run(command, env=ingestion_environment(ingestion.settings), timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL
    assert (ingestion.lake.snapshot(table).batch == 2) == (moment == "after")
    ingestion.run()
    assert ingestion.contents() == undisturbed
    assert ingestion.misclassified() == {}


def test_files_without_a_commit_are_read_by_nobody_and_deleted(
    shop: Settings, s3: ObjectStorage, duckdb_engine: DuckDBEngine, undisturbed: Contents
):
    ingestion = on_s3(shop, duckdb_engine, "orphans")
    ingestion.run()
    folder = s3.folder / BUCKET / "orphans" / RAW_EVENTS.name
    (file, *_) = folder.rglob("*.parquet")
    orphan = file.with_name("part-of-a-killed-run.parquet")
    orphan.write_bytes(file.read_bytes())
    assert ingestion.contents() == undisturbed
    os.utime(orphan, (0, 0))
    ingestion.lake.maintain(RAW_EVENTS, timedelta(hours=1))
    assert not orphan.exists()
    assert ingestion.contents() == undisturbed


def test_several_ingests_at_once_bring_in_each_record_once(
    shop: Settings, duckdb_engine: DuckDBEngine, undisturbed: Contents
):
    ingestion = on_s3(shop, duckdb_engine, "at-once")
    processes = [
        subprocess.Popen(INGEST, env=ingestion_environment(ingestion.settings), stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, error = process.communicate(timeout=300)
        # Who comes second is told so, and tries again.
        assert process.returncode == 0 or b"LakeConflictError" in error, error[-2000:]
    ingestion.run()
    assert ingestion.contents() == undisturbed
    assert ingestion.misclassified() == {}


def test_only_files_of_the_days_that_are_asked_for_are_read(s3: ObjectStorage, duckdb_engine: DuckDBEngine):
    lake = Lake(f"s3a://{BUCKET}/days", duckdb_engine)
    days = [date(2024, 5, day) for day in range(1, 9)]
    for batch, day in enumerate(days, start=1):
        events = event_table([event("view", f"{day} 10:00") | {"batch": batch}])
        lake.append_batch(EVENTS, duckdb_engine.from_arrow(events), batch)
    before = len(s3.requests())
    read = lake.read(EVENTS, days=days[2:4]).select("event_id")
    assert duckdb_engine.to_arrow(read).num_rows == 2
    files = {found[1] for line in s3.requests()[before:] if (found := FILE_READ.search(line))}
    assert files == {f"event_date={day}" for day in days[2:4]}
