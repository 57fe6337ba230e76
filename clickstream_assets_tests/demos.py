"""Demos as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLICKSTREAM = Path(sys.executable).parent / "clickstream"


@contextmanager
def demo_that_stays_up(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict, str]]:
    """Run `clickstream demo` in a home of its own; yield it, its result and what it has said, once all is up."""
    said = folder / "said.txt"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [CLICKSTREAM, "demo", "--timeout", "900", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            # As a user has it: the tests' own first day would be that of the demo's partitions.
            env={name: value for name, value in os.environ.items() if name != "EVENTS_START_DATE"}
            | {"CLICKSTREAM_HOME": str(folder / "home"), "DAGSTER_PORT": "0", "API_PORT": "0"},
            # A shell's background job ignores it, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        line = process.stdout.readline()
        assert line, said.read_text()[-4000:]
        deadline = time.monotonic() + 60
        while "Ctrl-C" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()[-4000:]
            time.sleep(0.1)
        yield process, json.loads(line), said.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
