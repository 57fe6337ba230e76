"""Servers, temporary folders and processes that end with the benchmark, and the time and memory of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from clickstream_assets.local.children import Child, exit_on_sigterm
from clickstream_assets.local.stack import SERVERS, Stack
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.prepare import prepare_servers

# Summing the pages of a process holds it up: a Spark of 2 GB for 20 ms.
SAMPLE_SECONDS = 1.0


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Make a folder that is removed at the end. Until then SIGTERM ends the benchmark as Ctrl-C does."""
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="clickstream-benchmark-") as folder:
        yield Path(folder)


@contextmanager
def kafka() -> Iterator[None]:
    """Run Kafka alone in a temporary home, with the environment set to it."""
    with temporary_home() as home:
        stack = Stack(home, load_settings().jars_path, progress=say)
        try:
            stack.up(only=[kind for kind in SERVERS if kind.name == "kafka"])
            os.environ.update(stack.env())
            yield
        finally:
            stack.down()


@contextmanager
def servers() -> Iterator[Path]:
    """Run Kafka, PostgreSQL and Elasticsearch in a temporary home, with the environment set to them."""
    with temporary_home() as home:
        stack = Stack(home, load_settings().jars_path, progress=say)
        try:
            stack.up(dagster_yaml=Path(__file__).parents[1] / "dagster.yaml")
            os.environ.update(
                stack.env() | {"LAKE_PATH": str(home / "lake"), "RAW_LOGS_PATH": str(home / "raw_logs")}
            )
            prepare_servers(load_settings())
            yield home
        finally:
            stack.down()


def say(line: str) -> None:
    """Report progress where it does not mix with the result."""
    print(line, file=sys.stderr, flush=True)


def run_python(
    arguments: Sequence[str],
    settings: Mapping[str, str] | None = None,
    look: Callable[[psutil.Process], None] = lambda _: None,
) -> str:
    """Run Python in a process of its own, which ends with this one, and so does what it has started.

    Args:
        arguments: of Python.
        settings: environment variables that are added to those of this process.
        look: is called with the process every second while it runs.

    Returns:
        The last line that it printed; "" if it printed none.

    Raises:
        SystemExit: it failed; the message names the arguments and the status.
    """
    # A file: a pipe that nobody reads meanwhile would hold up a Spark that has much to say.
    with tempfile.TemporaryFile("w+b") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            env=os.environ | (settings or {}),
            start_new_session=True,
        )
        try:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                look(watched)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
        finally:
            Child("Python", process, Path(os.devnull)).stop()
        output.seek(0)
        lines = output.read().decode().splitlines()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {process.returncode}")
    return lines[-1] if lines else ""


def run_measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a Python script that prints a JSON object last.

    Returns:
        That object, with `peak_mb`: the most memory (proportional set size) of the process and its children;
        `cpu_seconds`: what they all used; `load`: how many on average wanted to run, the machine's other work included.
    """
    peak = 0
    cpu: dict[psutil.Process, float] = {}

    def look(process: psutil.Process) -> None:
        nonlocal peak, cpu
        peak = max(peak, memory(process))
        cpu |= cpu_seconds(process)

    return json.loads(run_python(arguments, look=look)) | {
        "peak_mb": round(peak / 2**20),
        "cpu_seconds": round(sum(cpu.values()), 1),
        "load": round(os.getloadavg()[1], 1),
    }


def cpu_seconds(process: psutil.Process) -> dict[psutil.Process, float]:
    """Return processor times of a process and of its children that are there: nobody waits for a Spark's Java."""
    seconds: dict[psutil.Process, float] = {}
    try:
        for member in (process, *process.children(recursive=True)):
            times = member.cpu_times()
            seconds[member] = times.user + times.system
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        pass
    return seconds


def memory(process: psutil.Process) -> int:
    """Return the memory of a process and its children in bytes, as proportional set size."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            # PSS: what Python workers that were forked share is counted once.
            total += member.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return total
    return total
