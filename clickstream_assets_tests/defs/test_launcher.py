"""A run whose process is gone is noticed, on a real code server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import DagsterRunStatus
from tenacity import retry, stop_after_delay, wait_fixed

from clickstream_assets.defs import launcher
from clickstream_assets.defs.jobs import GIVES_WAY
from clickstream_assets.local.ports import free_port
from clickstream_assets_tests.dagster_private import (
    DagsterGrpcClient,
    InstanceRef,
    create_run_for_test,
    monitor_started_run,
)
from clickstream_assets_tests.defs.history import REPOSITORY, RemoteJobOrigin
from clickstream_assets_tests.deploy.containers import wait_until

SLEEPER = """
import time

import dagster as dg


@dg.op
def sleep():
    time.sleep(600)


@dg.job
def sleeper():
    sleep()


defs = dg.Definitions(jobs=[sleeper])
"""


PROJECT = Path(__file__).parents[2]


class CodeServer:
    """A code server of one job, and what it runs, in a process group of its own."""

    def __init__(self, folder: Path, code: str = SLEEPER) -> None:
        (folder / "sleeper.py").write_text(code)
        self._command = [
            *(str(Path(sys.executable).parent / "dagster"), "api", "grpc", "--host", "127.0.0.1"),
            *("--port", str(free_port()), "--python-file", str(folder / "sleeper.py")),
        ]
        self._environment = os.environ | {"DAGSTER_HOME": str(folder), "PYTHONPATH": f"{folder}:{PROJECT}"}
        self.client = DagsterGrpcClient(port=int(self._command[6]), host="127.0.0.1")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._answer()

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.2))
    def _answer(self) -> None:
        self.client.ping("here")

    def kill(self) -> None:
        """It and what it runs are gone at once, as when their machine fails."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the project's launcher, on SQLite."""
    ours = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": ours["run_launcher"]}))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        yield instance


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CodeServer]:
    started = CodeServer(tmp_path)
    yield started
    started.kill()


def start_run(instance: dg.DagsterInstance, server: CodeServer, tags: Mapping[str, str] | None = None) -> str:
    """A run that is under way."""
    run = create_run_for_test(
        instance, job_name="sleeper", remote_job_origin=RemoteJobOrigin(REPOSITORY, "sleeper"), tags=tags
    )
    dg.DefaultRunLauncher.launch_run_from_grpc_client(instance, run, server.client)
    wait_until(lambda: status_of(instance, run.run_id) == DagsterRunStatus.STARTED)
    return run.run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def monitor(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    """Do what the daemon does each 15 s; return the run's status afterwards."""
    record = instance.get_run_record_by_id(run_id)
    assert record
    monitor_started_run(instance, None, record, logging.getLogger(__name__))
    return status_of(instance, run_id)


@pytest.mark.server
def test_a_run_that_went_away_with_its_code_server_fails(
    watched: dg.DagsterInstance, server: CodeServer, monkeypatch: pytest.MonkeyPatch
):
    run_id = start_run(watched, server)
    assert monitor(watched, run_id) == DagsterRunStatus.STARTED
    server.kill()
    # It may be starting again.
    assert monitor(watched, run_id) == DagsterRunStatus.STARTED
    monkeypatch.setattr(launcher, "SILENCE_SECONDS", 0)
    assert monitor(watched, run_id) == DagsterRunStatus.FAILURE
    server.start()


@pytest.mark.server
def test_a_run_that_a_code_server_does_not_know_any_more_fails(
    watched: dg.DagsterInstance, server: CodeServer
):
    run_id = start_run(watched, server)
    server.kill()
    server.start()
    assert monitor(watched, run_id) == DagsterRunStatus.FAILURE
    # Another one goes on.
    assert monitor(watched, start_run(watched, server)) == DagsterRunStatus.STARTED


FORKED = """
import os
import sys
import time
from pathlib import Path

import dagster as dg
import psutil

from clickstream_assets.defs.dagster_private import fork_runs
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource

fork_runs("shop.preloaded", {"SHOP": "open"})


@dg.op
def note(lake: LakeResource, compute: ComputeResource):
    process, folder = psutil.Process(), Path(__file__).parent
    (folder / "parent").write_text(" ".join(process.parent().cmdline()))
    (folder / "preloaded").write_text(sys.modules["shop.preloaded"].shop if "shop.preloaded" in sys.modules else "")
    (folder / "niceness").write_text(str(os.nice(0)))
    (folder / "pid").write_text(str(process.pid))
    while not (folder / "go on").exists():
        time.sleep(0.05)


settings = SettingsResource()
compute = ComputeResource(settings=settings)


lake = LakeResource(settings=settings, compute=compute)


@dg.job(resource_defs={"compute": compute, "lake": lake}, executor_def=dg.in_process_executor)
def sleeper():
    note()


defs = dg.Definitions(jobs=[sleeper])
"""


@pytest.mark.server
def test_runs_are_forked_from_a_process_with_the_libraries(watched: dg.DagsterInstance, tmp_path: Path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "preloaded.py").write_text("import os\n\nshop = os.environ['SHOP']\n")
    server = CodeServer(tmp_path, FORKED)
    try:
        run_id = start_run(watched, server, {GIVES_WAY: str(os.nice(0) + 7)})
        wait_until((tmp_path / "pid").exists)
        parent = (tmp_path / "parent").read_text()
        assert "forkserver" in parent
        assert "sqlframe.duckdb" in parent
        assert (tmp_path / "preloaded").read_text() == "open"
        # Not twice, though two resources need the engine.
        assert int((tmp_path / "niceness").read_text()) == os.nice(0) + 7
        assert monitor(watched, run_id) == DagsterRunStatus.STARTED
        (tmp_path / "go on").touch()
        wait_until(lambda: status_of(watched, run_id) == DagsterRunStatus.SUCCESS)
        # One that dies is noticed by the server, as one of Dagster's own is.
        for name in ("go on", "pid"):
            (tmp_path / name).unlink()
        run_id = start_run(watched, server)
        wait_until((tmp_path / "pid").exists)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        wait_until(lambda: status_of(watched, run_id) == DagsterRunStatus.FAILURE)
        # What has been changed is imported anew.
        (tmp_path / "pid").unlink()
        (package / "changed.py").touch()
        start_run(watched, server)
        wait_until((tmp_path / "pid").exists)
        assert "forkserver" not in (tmp_path / "parent").read_text()
        assert (tmp_path / "preloaded").read_text() == ""
    finally:
        server.kill()


def test_it_is_noticed_in_a_minute():
    configured = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert launcher.SILENCE_SECONDS + configured["run_monitoring"]["poll_interval_seconds"] < 60
