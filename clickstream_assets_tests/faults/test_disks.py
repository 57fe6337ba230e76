"""Disks that are really full, under load: what is said of it, and that all comes back by itself once there is room."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.local.stack import Condition, Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import LakeStorageError
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect, explained
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.disks import filled, mounted
from clickstream_assets_tests.faults.load import STOPPED, ends, flows, is_past, load, settle
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    running,
    traffic,
    wait_until,
)
from clickstream_assets_tests.topics import new_topic, send

CLICKSTREAM = str(Path(sys.executable).with_name("clickstream"))
FOLDERS = {"Kafka": "kafka", "PostgreSQL": "postgres", "Elasticsearch": "elasticsearch"}
MEGABYTES = 300


@contextmanager
def own_servers(home: Path, folder: Path) -> Iterator[Stack]:
    """Servers that are kept up, as `clickstream stack up` keeps them."""
    command = [CLICKSTREAM, "stack", "up", "--home", str(home)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    try:
        yield Stack(home, Settings(_env_file=None).jars_path)
    finally:
        subprocess.run([CLICKSTREAM, "stack", "down", "--home", str(home)], cwd=folder, check=True)


def settings_of(stack: Stack) -> Settings:
    named: dict[str, Any] = {name.lower(): value for name, value in stack.env().items()}
    return Settings(_env_file=None, **named)


def is_healthy(stack: Stack) -> bool:
    return {server.condition for server in stack.status()} == {Condition.HEALTHY}


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fault("disk_full_all")
def test_what_a_full_disk_stops_is_named_and_comes_back_when_there_is_room(tmp_path: Path, fault: Fault):
    log = tmp_path / "stream.log"
    with (
        mounted(tmp_path / "disk", MEGABYTES) as disk,
        own_servers(disk / "home", tmp_path) as stack,
        new_shop(settings_of(stack), disk, partitions=3, **QUICK) as shop,
        running(shop, log) as process,
    ):
        with load(shop):
            wait_until(partial(flows, shop), log)
            shop.ingest()
            with filled(disk):
                assert_all_say_so(fault, stack, shop)
                wait_until(lambda: "the streams stopped: " in log.read_text(), log)
                fault.saw(log.read_text(), STOPPED)
                assert process.poll() is None
            with fault.until_healthy():
                wait_until(partial(is_healthy, stack), log)
                wait_until(partial(is_past, shop, ends(shop)), log)
        settle(fault, shop, process, log)


def assert_all_say_so(fault: Fault, stack: Stack, shop: Shop) -> None:
    for server in stack.status():
        assert server.condition is Condition.DISK_FULL
        assert server.problem == f"no space left on {stack.home}/{FOLDERS[server.title]} (0 bytes free)"
        fault.saw(f"{server.title}: {server.problem}")
    with pytest.raises(
        LakeStorageError, match=r"no space left for table \w+: .*/lake has 0 bytes free"
    ) as full:
        shop.lake.mark(EVENTS, {"anything": 1})
    assert full.value.retryable
    assert_refused(shop.settings)


def assert_refused(settings: Settings) -> str:
    """See that PostgreSQL takes no more, and return what is said of it."""
    with (
        pytest.raises(PostgresError) as refused,
        explained(settings),
        connect(settings) as connection,
    ):
        connection.execute("CREATE TABLE large AS SELECT repeat('x', 100) FROM generate_series(1, 1000000)")
    assert refused.value.problem in (PostgresProblem.DISK_FULL, PostgresProblem.UNREACHABLE)
    assert refused.value.retryable
    return str(refused.value)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fault("disk_full_postgres")
def test_postgresql_without_room_stops_the_windows_alone_and_comes_back(tmp_path: Path, fault: Fault):
    log = tmp_path / "stream.log"
    home = tmp_path / "home"
    with (
        mounted(home / FOLDERS["PostgreSQL"], MEGABYTES) as disk,
        own_servers(home, tmp_path) as stack,
        new_shop(settings_of(stack), tmp_path, partitions=3, **QUICK) as shop,
        running(shop, log) as process,
    ):
        with load(shop):
            wait_until(partial(flows, shop), log)
            with filled(disk):
                fault.saw(assert_refused(shop.settings))
                wait_until(lambda: "the streams stopped: " in log.read_text(), log)
                fault.saw(log.read_text(), STOPPED)
                full = {server.title: server.condition for server in stack.status()}
                assert full == dict.fromkeys(FOLDERS, Condition.HEALTHY) | {"PostgreSQL": Condition.DISK_FULL}
                # Neither Kafka nor the lake has to do with it.
                shop.ingest()
            with fault.until_healthy():
                wait_until(partial(is_healthy, stack), log)
                wait_until(partial(is_past, shop, ends(shop)), log)
        settle(fault, shop, process, log)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fault("disk_full_checkpoint")
def test_a_stream_whose_checkpoint_has_no_room_says_so_and_goes_on_when_it_has(
    servers: Settings, tmp_path: Path, fault: Fault
):
    log = tmp_path / "stream.log"
    with (
        mounted(tmp_path / "disk", MEGABYTES) as disk,
        new_shop(servers, tmp_path, partitions=3, **QUICK) as shop,
    ):
        shop.settings = with_settings(shop.settings, checkpoint_path=str(disk / "checkpoints"))
        with running(shop, log) as process:
            with load(shop):
                wait_until(partial(flows, shop), log)
                with filled(disk):
                    no_room = "the streams stopped: no space left on a disk of the streams"
                    wait_until(lambda: no_room in log.read_text(), log)
                    assert f"CHECKPOINT_PATH={shop.settings.checkpoints} has 0 bytes free" in log.read_text()
                    fault.saw(log.read_text(), STOPPED)
                with fault.until_healthy():
                    wait_until(partial(is_past, shop, ends(shop)), log)
            settle(fault, shop, process, log)


@pytest.mark.fault("disk_full_lake")
def test_a_lake_without_room_says_so_and_takes_everything_when_it_has(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
):
    topic = new_topic(kafka, partitions=2)
    with mounted(tmp_path / "disk", 20) as disk:
        settings = with_settings(topic, lake_path=str(disk / "lake"), ingest_batch_records=300)
        ingestion = Ingestion.of(settings, duckdb_engine)
        sent: list[dict[str, Any]] = []

        def come_in(number: int) -> None:
            events = traffic(len(sent), number)
            sent.extend(events)
            send(topic, {place: [json.dumps(e).encode() for e in events[place::2]] for place in (0, 1)})

        come_in(300)
        ingestion.run()
        with filled(disk):
            come_in(300)
            with pytest.raises(LakeStorageError) as full:
                ingestion.run()
            assert full.value.retryable
            fault.saw(str(full.value))
            come_in(300)
            with pytest.raises(LakeStorageError):
                ingestion.run()
        with fault.until_healthy():
            ingestion.run()
        fault.settle(take_account(settings, sent, (Part.TOPIC, Part.LAKE)))
