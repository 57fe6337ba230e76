"""Benchmarks leave nothing behind when they are ended from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from clickstream_assets.local.stack import SERVERS

PROJECT = Path(__file__).parents[1]
PATIENCE_SECONDS = 300


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize(
    ("arguments", "children"),
    [
        # It runs what is measured in a process of its own.
        pytest.param(
            ["benchmarks.ingest", "--events", "1000"], ["benchmarks.ingest --measured"], id="ingest"
        ),
        # Its servers are those of the demo, with Dagster, the streams and the API.
        pytest.param(
            ["benchmarks.latency"],
            ["clickstream stream", "clickstream api"],
            id="latency",
        ),
    ],
)
def test_a_benchmark_ended_by_sigterm_leaves_no_process_and_no_file(
    arguments: list[str], children: list[str], tmp_path: Path
):
    # Whatever it starts inherits this, whether it stays its child or not; its home is in there too.
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with (tmp_path.parent / f"{tmp_path.name}.log").open("w") as log:
        benchmark = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=PROJECT, env=environment, stdout=log, stderr=log
        )

    def is_up() -> bool:
        assert benchmark.poll() is None, Path(log.name).read_text()
        commands = processes_of(tmp_path).values()
        return all(any(child in command for command in commands) for child in children)

    try:
        wait_until(is_up)
        (home,) = tmp_path.glob("clickstream-benchmark-*")
        assert {kind.name for kind in SERVERS} <= {path.name for path in home.iterdir()}
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
        wait_until(lambda: not processes_of(tmp_path))
        assert list(tmp_path.glob("clickstream-*")) == []
    finally:
        for process in processes_of(tmp_path):
            process.kill()


def processes_of(folder: Path) -> dict[psutil.Process, str]:
    """Return the command lines of the processes whose temporary folder is this one."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(folder):
                found[process] = " ".join(process.cmdline())
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
