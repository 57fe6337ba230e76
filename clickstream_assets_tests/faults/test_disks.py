"""A disk that is really full: what is said of it, and that everything comes back by itself once there is room."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.local.stack import Condition, Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import LakeStorageError
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect, explained
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    has_caught_up,
    has_documents,
    running,
    traffic,
    wait_until,
)

CLICKSTREAM = str(Path(sys.executable).with_name("clickstream"))
MEGABYTES = 300
FOLDERS = {"Kafka": "kafka", "PostgreSQL": "postgres", "Elasticsearch": "elasticsearch"}
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={MEGABYTES}m,mode=755"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            assert shutil.disk_usage(disk).free == 0
    try:
        yield
    finally:
        filler.unlink()


def test_what_a_full_disk_stops_is_named_and_comes_back_when_there_is_room(disk: Path, tmp_path: Path):
    home = disk / "home"
    stack = Stack(home, Settings(_env_file=None).jars_path)
    command = [CLICKSTREAM, "stack", "up", "--home", str(home)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    try:
        named: dict[str, Any] = {name.lower(): value for name, value in stack.env().items()}
        settings = Settings(_env_file=None, **named)
        log = tmp_path / "stream.log"
        with new_shop(settings, disk, **QUICK) as shop, running(shop, log) as process:
            shop.send(traffic(0, 900))
            wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
            shop.ingest()
            with filled(disk):
                assert_says_so(stack, shop, log)
                wait_until(lambda: "the streams stopped: " in log.read_text(), log)
                assert process.poll() is None
            wait_until(lambda: {server.condition for server in stack.status()} == {Condition.HEALTHY}, log)
            shop.send(traffic(900, 300))
            wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
            assert process.poll() is None
            shop.ingest()
            ids = sorted({event["event_id"] for event in shop.sent})
            assert sorted(row["event_id"] for row in shop.copy(EVENTS)) == ids
    finally:
        subprocess.run([CLICKSTREAM, "stack", "down", "--home", str(home)], cwd=tmp_path, check=True)


def test_a_stream_whose_checkpoint_has_no_room_says_so_and_goes_on_when_it_has(
    servers: Settings, disk: Path, tmp_path: Path
):
    log = tmp_path / "stream.log"
    with new_shop(servers, disk, **QUICK) as shop, running(shop, log) as process:
        shop.send(traffic(0, 100))
        wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        with filled(disk):
            shop.send(traffic(100, 300))
            wait_until(
                lambda: "the streams stopped: no space left on a disk of the streams" in log.read_text(), log
            )
            assert f"CHECKPOINT_PATH={shop.settings.checkpoints} has 0 bytes free" in log.read_text()
        shop.send(traffic(400, 100))
        wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        assert process.poll() is None


def assert_says_so(stack: Stack, shop: Shop, log: Path) -> None:
    for server in stack.status():
        assert server.condition is Condition.DISK_FULL
        assert server.problem == f"no space left on {stack.home}/{FOLDERS[server.title]} (0 bytes free)"
    with pytest.raises(
        LakeStorageError, match=r"no space left for table \w+: .*/lake has 0 bytes free"
    ) as full:
        shop.lake.mark(EVENTS, {"anything": 1})
    assert full.value.retryable
    with (
        pytest.raises(PostgresError) as refused,
        explained(shop.settings),
        connect(shop.settings) as connection,
    ):
        connection.execute("CREATE TABLE large AS SELECT repeat('x', 100) FROM generate_series(1, 1000000)")
    assert refused.value.problem in (PostgresProblem.DISK_FULL, PostgresProblem.UNREACHABLE)
    assert refused.value.retryable
