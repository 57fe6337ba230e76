"""The API as `clickstream api` serves it, in processes of its own."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import psutil
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import environment

COMMAND = [str(Path(sys.executable).with_name("clickstream")), "api"]


class Served:
    """The API as `clickstream api` serves it; on a free port, unless API_PORT names one; without Kafka's events."""

    def __init__(self, settings: Settings, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", variables.pop("API_PORT", "0")],
            env=environment(settings) | {"API_WORKERS": "2", "RECENT_EVENTS": "0"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[str | None] = Queue()
        self.log: list[str] = []
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=[stream], daemon=True).start()
        found = self.wait_for(r"Listening at: (http://\S+)")
        self.address = found.group(1)

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first line, from here on, that matches."""
        ends = 0
        while ends < 2:
            line = self._lines.get(timeout=60)
            if line is None:
                ends += 1
                continue
            self.log.append(line)
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"the API ended without {pattern!r}: {''.join(self.log)}")


@contextmanager
def served(settings: Settings, **variables: str) -> Iterator[Served]:
    api = Served(settings, **variables)
    try:
        yield api
    finally:
        # Killed at once, it would leave its folder of metrics behind.
        api.process.terminate()
        try:
            api.process.wait(timeout=30)
        finally:
            api.process.kill()
            api.process.wait()


def workers_of(pid: int, count: int) -> list[psutil.Process]:
    """Return the server's worker processes, when there are so many: the first answers before the last is started."""
    server = psutil.Process(pid)
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(30),
        wait=wait_fixed(0.1),
        reraise=True,
    ):
        with attempt:
            assert len(server.children()) == count
    return server.children()
