"""Processes that are killed, at every write and in the middle of one: the next run ends in the same tables."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    POPULAR_PRODUCTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SESSIONS,
    Table,
)
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.databases import fresh_database, hanging, query, with_settings
from clickstream_assets_tests.faults.account import compare_tables
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import (
    TABLES,
    Contents,
    Ingestion,
    ingestion_environment,
    made_counts,
    simulate,
)
from clickstream_assets_tests.stores.postgres.rows import popular, session, sessions
from clickstream_assets_tests.topics import new_topic, send

WRITES = (RAW_EVENTS, REJECTED_EVENTS, DUPLICATE_EVENTS, CONFLICTING_EVENTS, EVENTS)
INGEST = [sys.executable, "-m", "clickstream_assets_tests.ingestion"]


@pytest.fixture(scope="module")
def shop(kafka: Settings) -> Settings:
    """A topic of two partitions with every kind of record, ingested in two batches that have them all."""
    settings = new_topic(kafka, partitions=2)
    made = simulate(settings, events=240, share=0.05)
    return with_settings(settings, ingest_batch_records=made.sent * 2 // 3)


@dataclass
class Undisturbed:
    """A lake with the first batch alone, and the tables of both batches when nothing happens on the way."""

    first_batch: Path
    contents: Contents

    @property
    def sent(self) -> int:
        """The records that came in."""
        return len(self.contents[RAW_EVENTS.name])


@pytest.fixture(scope="module")
def undisturbed(
    shop: Settings, duckdb_engine: DuckDBEngine, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    settings = with_settings(shop, lake_path=str(folder / "lake"))
    first = with_settings(settings, ingest_run_records=settings.ingest_batch_records)
    Ingestion.of(first, duckdb_engine).run()
    shutil.copytree(folder / "lake", folder / "first_batch")
    ingestion = Ingestion.of(settings, duckdb_engine)
    ingestion.run()
    assert all(ingestion.lake.snapshot(table).batch == 2 for table in TABLES)
    return Undisturbed(folder / "first_batch", ingestion.contents())


def start(ingestion: Ingestion, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*INGEST, *arguments], env=ingestion_environment(ingestion.settings))


# Before the write to a table is after the write to the one before.
@pytest.mark.fault("kill_ingest")
@pytest.mark.parametrize(
    ("table", "moment"),
    [
        (RAW_EVENTS.name, "before"),
        *(
            pytest.param(table.name, "after", marks=() if table in (RAW_EVENTS, EVENTS) else pytest.mark.long)
            for table in WRITES
        ),
    ],
)
def test_ingest_killed_right_before_or_after_a_write_is_made_good_by_the_next(
    shop: Settings,
    duckdb_engine: DuckDBEngine,
    undisturbed: Undisturbed,
    tmp_path: Path,
    table: str,
    moment: str,
    fault: Fault,
):
    shutil.copytree(undisturbed.first_batch, tmp_path / "lake")
    ingestion = Ingestion.of(with_settings(shop, lake_path=str(tmp_path / "lake")), duckdb_engine)
    with start(ingestion, table, moment, "2") as process:
        assert process.wait() == -signal.SIGKILL
    names = [t.name for t in WRITES]
    is_written = [ingestion.lake.snapshot(t).batch == 2 for t in WRITES]
    assert is_written == [moment == "after" and name in names[: names.index(table) + 1] for name in names]
    fault.saw(f"its exit code is {process.returncode}")
    with fault.until_healthy():
        ingestion.run()
    assert ingestion.contents() == undisturbed.contents
    assert ingestion.misclassified() == {}
    fault.settle(compare_tables(undisturbed.sent, undisturbed.contents, ingestion.contents()))


@pytest.mark.long
def test_rules_that_change_after_a_kill_put_no_record_into_two_tables(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    made = simulate(settings, events=60, share=0.1)
    undisturbed = Ingestion.of(with_settings(settings, lake_path=str(tmp_path / "other")), duckdb_engine)
    undisturbed.run()
    ingestion = Ingestion.of(settings, duckdb_engine)
    with start(ingestion, REJECTED_EVENTS.name, "after", "1") as process:
        assert process.wait() == -signal.SIGKILL
    # By these no record is an event.
    stricter = Ingestion.of(with_settings(settings, max_event_bytes=10), duckdb_engine)
    stricter.run()
    assert stricter.counts() == made_counts(made)
    assert stricter.contents() == undisturbed.contents()
    assert stricter.misclassified() == {}
    # What nobody had begun to classify goes by the new ones.
    more = simulate(settings, events=10, share=0, seed=8)
    assert stricter.run()[1] == {"rejected": more.sent}


@pytest.mark.long
def test_records_that_arrive_while_nothing_runs_are_taken_by_the_next(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    made = simulate(settings, events=60, share=0.1)
    ingestion = Ingestion.of(settings, duckdb_engine)
    with start(ingestion, EVENTS.name, "before", "1") as process:
        assert process.wait() == -signal.SIGKILL
    # The same again, as a sender does that was killed too, and some more.
    simulate(settings, events=60, share=0.1)
    more = simulate(settings, events=40, share=0, seed=8)
    ingestion.run()
    counts = ingestion.counts()
    assert counts[RAW_EVENTS.name] == 2 * made.sent + more.sent
    assert counts[EVENTS.name] == made_counts(made)[EVENTS.name] + more.events
    assert counts[REJECTED_EVENTS.name] == 2 * made.rejected
    assert ingestion.misclassified() == {}


def uncommitted_files(ingestion: Ingestion, table: Table) -> set[str]:
    """Data files, whole or in the making, that no commit of the table names."""
    folder = Path(ingestion.lake.path(table))
    # The files first: what is committed after that is not taken for uncommitted.
    files = {path.name for path in folder.rglob("*.parquet*") if "_delta_log" not in path.parts}
    log = "".join(commit.read_text() for commit in folder.glob("_delta_log/*.json"))
    return files - set(re.findall(r"[\w.-]+\.parquet", log))


def kill_when(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> bool:
    """Kill a process while something is so; whether that was seen before the process ended."""
    while process.poll() is None:
        if is_time():
            # It may have gone on since; what counts is how things are once it stands still.
            process.send_signal(signal.SIGSTOP)
            while psutil.Process(process.pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                pass
            if is_time():
                process.kill()
                return process.wait() == -signal.SIGKILL
            process.send_signal(signal.SIGCONT)
    return False


@pytest.mark.parametrize(
    "table", [RAW_EVENTS, pytest.param(REJECTED_EVENTS, marks=pytest.mark.long)], ids=lambda table: table.name
)
def test_ingest_killed_in_the_middle_of_a_write_is_made_good_by_the_next(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, table: Table
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    # Random bytes, so that they take their time: 36 MB stay 36 MB in raw_events and in rejected_events.
    values = [os.urandom(900_000) for _ in range(40)]
    send(settings, {0: values})
    ingestion = Ingestion.of(settings, duckdb_engine)
    ingestion.counts()
    with start(ingestion) as process:
        assert kill_when(process, lambda: bool(uncommitted_files(ingestion, table)))
    assert uncommitted_files(ingestion, table)
    assert ingestion.counts()[table.name] == 0

    ingestion.run()
    assert list(ingestion.counts().values()) == [40, 0, 0, 0, 40]
    for name in (RAW_EVENTS.name, REJECTED_EVENTS.name):
        assert [row["value"] for row in ingestion.contents()[name]] == values
    assert ingestion.misclassified() == {}


@pytest.mark.fault("two_ingests")
def test_ingests_at_once_end_in_the_tables_of_one(
    shop: Settings, duckdb_engine: DuckDBEngine, undisturbed: Undisturbed, tmp_path: Path, fault: Fault
):
    settings = with_settings(shop, lake_path=str(tmp_path / "lake"), ingest_batch_records=70)
    ingestion = Ingestion.of(settings, duckdb_engine)
    processes = [start(ingestion) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert ingestion.contents() == undisturbed.contents
    assert ingestion.misclassified() == {}
    versions = ingestion.versions()
    ingestion.run()
    assert ingestion.versions() == versions
    # One of two commits of the same batch wins, and the other is what was wanted: nobody has to be told.
    fault.saw("nothing is said, and both end with exit code 0")
    fault.stayed_healthy()
    fault.settle(compare_tables(undisturbed.sent, undisturbed.contents, ingestion.contents()))


@pytest.mark.long
def test_worker_processes_end_with_an_ingest_that_is_killed(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    # As many records as are parsed by a process per core.
    send(settings, {0: [b"%d" % number for number in range(70_000)]})
    ingestion = Ingestion.of(settings, duckdb_engine)
    workers: list[psutil.Process] = []

    def workers_are_there() -> bool:
        workers[:] = psutil.Process(process.pid).children(recursive=True)
        return len(workers) > 1

    with start(ingestion) as process:
        assert kill_when(process, workers_are_there)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert ingestion.run()[1]["rejected"] == 70_000


PUBLISHER = """
import threading
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets.catalogue import POPULAR_PRODUCTS, SESSIONS
from clickstream_assets.settings import load_settings
from clickstream_assets_tests.stores.postgres.rows import popular, session, sessions

with publication(load_settings()) as transaction:
    transaction.publish(SESSIONS, sessions(session("new"), session("newer")))
    transaction.publish(POPULAR_PRODUCTS, popular(["new", "newer"]))
    print("published", flush=True)
    threading.Event().wait()
"""


@pytest.mark.fault("kill_publisher")
def test_publisher_killed_right_before_its_commit_leaves_the_old_rows(postgres: Settings, fault: Fault):
    def served(settings: Settings) -> list[list[Any]]:
        columns = (("clickstream_sessions", "session_id"), ("popular_products", "product_id"))
        return [
            [row[0] for row in query(settings, f"SELECT {column} FROM {table} ORDER BY 1")]
            for table, column in columns
        ]

    with fresh_database(postgres) as settings:
        with publication(settings) as transaction:
            transaction.publish(SESSIONS, sessions(session("old")))
            transaction.publish(POPULAR_PRODUCTS, popular(["old"]))
        with hanging(PUBLISHER, settings, "published"):
            assert served(settings) == [["old"], ["old"]]
        assert served(settings) == [["old"], ["old"]]
        fault.saw(f"readers see {served(settings)} all the time")
        # Nothing of the dead one's is locked either.
        with fault.until_healthy(), publication(settings) as transaction:
            transaction.publish(SESSIONS, sessions(session("next")))
            transaction.publish(POPULAR_PRODUCTS, popular(["next"]))
        assert served(settings) == [["next"], ["next"]]
        fault.keeps_no_records("the lake has what is published")
