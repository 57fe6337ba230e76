"""Dagster's daemon and code server, with runs under way: killed with them, and a daemon too many."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.owner import Presence
from clickstream_assets_tests.dagster_private import DagsterGrpcClient
from clickstream_assets_tests.databases import free_port, fresh_database, pipeline_environment
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.streaming.test_process import traffic
from clickstream_assets_tests.topics import send

pytestmark = [pytest.mark.server, pytest.mark.long, pytest.mark.timeout(1800)]
PROJECT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PATIENCE_SECONDS = 900
OF = (Part.TOPIC, Part.LAKE)
ANOTHER = r"(?i)[^\n]*another [^\n]*"
# Some batches, so that an ingest takes a while.
OWN = {"INGEST_BATCH_RECORDS": "100", "COMPUTE_ENGINE": "duckdb", "EVENTS_START_DATE": "2024-01-01"}


class Office:
    """Dagster with the project's own instance: a code server, which runs are processes of, and daemons."""

    def __init__(self, settings: Settings, folder: Path, stack: ExitStack) -> None:
        self.settings = settings
        self._folder = folder
        self._stack = stack
        self._port = free_port()
        shutil.copy(PROJECT / "dagster.yaml", folder)
        server = {
            "grpc_server": {"host": "127.0.0.1", "port": self._port, "location_name": "clickstream_assets"}
        }
        # JSON is YAML.
        (folder / "workspace.yaml").write_text(json.dumps({"load_from": [server]}))
        self.start_code_server()
        self.instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        self.sent: list[dict[str, Any]] = []

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [str(PROGRAMS / command[0]), *command[1:]],
            cwd=self._folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._stack.callback(kill, process)
        return process

    def start_code_server(self) -> None:
        """Start it, and wait until it answers."""
        where = ("--host", "127.0.0.1", "--port", str(self._port))
        self.code_server = self._start(
            "code-server", "dagster", "api", "grpc", *where, "--module-name", "clickstream_assets.definitions"
        )
        client = DagsterGrpcClient(port=self._port, host="127.0.0.1")

        def answers() -> bool:
            try:
                client.ping("here")
            except Exception:
                # Whatever gRPC says of a server that is not there yet.
                return False
            return True

        self.wait_until(answers)

    def start_daemon(self, name: str) -> subprocess.Popen[bytes]:
        """Start a daemon, whose log has this name."""
        return self._start(name, "dagster-daemon", "run", "--workspace", "workspace.yaml")

    def log(self, name: str) -> str:
        """What a process has said, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", (self._folder / f"{name}.log").read_text())

    def come_in(self, number: int) -> None:
        """So many more events are in Kafka."""
        events = traffic(len(self.sent), number)
        send(self.settings, {0: [json.dumps(event).encode() for event in events]})
        self.sent += events

    def rows(self) -> tuple[int, int]:
        """The records that are in the lake, and the events that are classified."""
        lake = Lake(self.settings.lake, DuckDBEngine(self.settings))
        found = [lake.snapshot(table).rows if lake.exists(table) else 0 for table in (RAW_EVENTS, EVENTS)]
        return found[0], found[1]

    def is_ingested(self) -> bool:
        """Return whether all that was sent is in the lake, and no ingest is under way."""
        unfinished = RunsFilter(
            job_name="ingest", statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING]
        )
        return self.rows()[1] == len(self.sent) and not self.instance.get_runs(unfinished)

    def wait_until(self, is_so: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            logs = [log.read_text()[-2000:] for log in self._folder.glob("*.log")]
            assert time.monotonic() < deadline, "\n".join(logs)
            time.sleep(0.2)


def kill(process: subprocess.Popen[bytes]) -> None:
    """It and what it has started are gone at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _office(stack: Stack, postgres: Settings, folder: Path) -> Iterator[Office]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_database(postgres, migrated=False) as history,
        ExitStack() as processes,
    ):
        patch.chdir(folder)
        own = OWN | {
            "CLICKSTREAM_HOME": str(folder),
            "DAGSTER_HOME": str(folder),
            "DAGSTER_POSTGRES_DB": history.postgres_db,
        }
        with pipeline_environment(postgres, stack.env() | own, patch, folder) as settings:
            # The streams are none of this: Dagster leaves them to who is there.
            with closing(Presence(settings, "stream")) as streams:
                streams.show()
                yield Office(settings, folder, processes)
            processes.close()


@pytest.fixture
def office(stack: Stack, kafka: Settings, postgres: Settings, tmp_path: Path) -> Iterator[Office]:
    """Dagster's processes on a pipeline of its own; no daemon yet."""
    assert kafka
    with _office(stack, postgres, tmp_path) as opened:
        yield opened


@pytest.mark.fault("run_and_code_server_killed")
def test_a_run_that_is_killed_with_its_code_server_is_made_good(office: Office, fault: Fault):
    office.come_in(600)
    office.start_daemon("daemon")
    office.wait_until(lambda: office.rows()[0] > 0)
    kill(office.code_server)
    read, classified = office.rows()
    assert classified < len(office.sent), "the run had ended"
    office.start_code_server()
    with fault.until_healthy():
        office.wait_until(office.is_ingested)
    failed = office.instance.get_run_records(
        RunsFilter(job_name="ingest", statuses=[DagsterRunStatus.FAILURE])
    )
    events = office.instance.all_logs(failed[-1].dagster_run.run_id, of_type=DagsterEventType.RUN_FAILURE)
    fault.saw(
        re.sub(
            r"run [0-9a-f-]{36}", "run …", str(events[0].dagster_event and events[0].dagster_event.message)
        )
    )
    fault.settle(take_account(office.settings, office.sent, OF))
    assert read < len(office.sent) or classified < len(office.sent)


@pytest.mark.fault("two_daemons")
def test_two_daemons_ingest_nothing_twice(office: Office, fault: Fault):
    first = office.start_daemon("daemon")
    office.come_in(100)
    office.wait_until(office.is_ingested)
    second = office.start_daemon("second")

    def said() -> str:
        return office.log("daemon") + office.log("second")

    # Dagster says it when a heartbeat of one finds that of the other, after half a minute or more.
    rounds = 0
    while rounds < 3 or not re.search(ANOTHER, said()):
        office.come_in(100)
        office.wait_until(office.is_ingested)
        rounds += 1
    assert second.poll() is None
    fault.saw(said(), ANOTHER)
    kill(first)
    with fault.until_healthy():
        office.come_in(100)
        office.wait_until(office.is_ingested)
    fault.settle(take_account(office.settings, office.sent, OF))
