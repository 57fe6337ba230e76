"""A lake on object storage, by a real server of S3's interface: the same tables, whatever happens to it on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from clickstream_assets import catalogue
from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, LakeStorageError
from clickstream_assets_tests.analytics.records import event, event_table
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingestion import Contents, Ingestion, ingestion_environment, simulate
from clickstream_assets_tests.object_storage import BUCKET, ObjectStorage, object_storage
from clickstream_assets_tests.topics import new_topic

pytestmark = [pytest.mark.long, pytest.mark.server]

INGEST = [sys.executable, "-m", "clickstream_assets_tests.ingestion"]
RUN = [sys.executable, "-m", "clickstream_assets_tests.whole_run", "2024-05-01", "2024-05-03"]
# What a run takes, and when it was.
NOT_OF_THE_DATA = {"seconds", "made_at", "made_from", "files"}
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
    found = lake.engine.to_arrow(lake.read(table).select(*names))
    return sorted(found.to_pylist(), key=repr)


def test_a_whole_run_ends_in_the_tables_of_a_lake_in_a_folder(
    pipeline_env: Settings, s3: ObjectStorage, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    simulate(pipeline_env, events=2_000, share=0.02)
    lakes = [str(tmp_path / "lake"), f"s3a://{BUCKET}/whole"]
    for lake in lakes:
        environment = os.environ | {"COMPUTE_ENGINE": "duckdb", "LAKE_PATH": lake}
        done = subprocess.run(RUN, capture_output=True, text=True, timeout=900, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    folder, storage = (Lake(lake, duckdb_engine) for lake in lakes)
    in_lake = [table for table in catalogue.TABLES.values() if table.in_lake and folder.exists(table)]
    assert {EVENTS, catalogue.CARTS, catalogue.DAILY_REPORT} <= set(in_lake)
    for table in in_lake:
        assert rows(storage, table) == rows(folder, table), table.name


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


def test_a_server_that_is_gone_is_named_and_what_it_interrupted_goes_on(
    shop: Settings, s3: ObjectStorage, duckdb_engine: DuckDBEngine, undisturbed: Contents
):
    ingestion = on_s3(shop, duckdb_engine, "gone")
    ingestion.land()
    s3.stop()
    try:
        with pytest.raises(LakeStorageError, match=f"LAKE_PATH=s3a://{BUCKET}/gone: table ") as caught:
            ingestion.classify()
        assert caught.value.retryable
    finally:
        s3.start()
    ingestion.run()
    assert ingestion.contents() == undisturbed


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
