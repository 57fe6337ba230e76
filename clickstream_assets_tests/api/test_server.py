import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import psutil
import pytest
import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import environment

COMMAND = [str(Path(sys.executable).with_name("clickstream")), "api"]


class Served:
    """The API as `clickstream api` serves it."""

    def __init__(self, settings: Settings, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0"],
            env=environment(settings) | {"API_WORKERS": "2"} | variables,
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


def test_command_serves_and_stops(settings: Settings, tmp_path: Path) -> None:
    with served(settings, TMPDIR=str(tmp_path)) as api:
        assert requests.get(f"{api.address}/health/ready", timeout=10).json()["status"] == "ready"
        answer = requests.get(f"{api.address}/api/recommend/a%2F%2Fb?n=1", timeout=10)
        assert answer.json()["user_id"] == "a//b"
        assert api.wait_for(r'"route":"/api/recommend/<any_text:user_id>"')

        workers = workers_of(api.process.pid, 2)
        api.process.terminate()
        assert api.process.wait(timeout=30) == 0
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_many_clients_are_answered_at_once(settings: Settings) -> None:
    with served(settings) as api:
        statuses: list[int] = []

        def ask(client: int) -> None:
            with requests.Session() as session:
                for user in range(20):
                    answer = session.get(f"{api.address}/api/recommend/{client}-{user}", timeout=30)
                    statuses.append(answer.status_code)

        threads = [threading.Thread(target=ask, args=[client]) for client in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 160

        counted = (
            'clickstream_api_request_seconds_count{method="GET",route="/api/recommend/<any_text:user_id>",'
            'status="200"} 160.0'
        )
        assert counted in requests.get(f"{api.address}/metrics", timeout=10).text
        for worker in workers_of(api.process.pid, 2):
            worker.kill()
            worker.wait()
        workers_of(api.process.pid, 2)
        assert counted in requests.get(f"{api.address}/metrics", timeout=30).text


def test_taken_port_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = subprocess.run(
            [*COMMAND, "--port", str(port)],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert failed.returncode == 1
    assert f"API_PORT={port}" in failed.stderr
    assert "Address already in use" in failed.stderr
    assert "Traceback" not in failed.stderr
