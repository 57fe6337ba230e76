"""Containers of our image, as processes on loopback: the same commands, variables and health checks, without Docker.

What is only true in a container is written in another way: the host names of services, ports, and folders.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clickstream_assets_tests.deploy.files import ROOT, image_environment, is_long_running

LOOPBACK = "127.0.0.1"
_START_SECONDS = 600
_STOP_SECONDS = 20


class Containers:
    """Services of the Compose file.

    Args:
        services: all of them by name, with their variables filled in.
        running: names of those that run already.
        ports: those in the containers, and what they are here.
        folders: those in the containers, and what they are here.
        environment: variables that win over those of the image and the file.
        logs: a folder.
    """

    def __init__(
        self,
        services: Mapping[str, dict[str, Any]],
        running: Iterable[str],
        ports: dict[int, int],
        folders: dict[str, Path],
        environment: Mapping[str, str],
        logs: Path,
    ) -> None:
        self._services = services
        self._environment = environment
        self._workdir = folders["/opt/clickstream"]
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._here = dict.fromkeys([*services, "0.0.0.0"], LOOPBACK)
        self._here |= {str(there): str(here) for there, here in (folders | ports).items()}
        by_length = sorted(services, key=len, reverse=True)
        # A service's name with a port, since `clickstream stream` is no address; folders; and ports.
        self._there = re.compile(
            rf"\b(?:{'|'.join(by_length)})(?=:\d)|0\.0\.0\.0|{'|'.join(folders)}|\b(?:{'|'.join(map(str, ports))})\b"
        )
        self.up = set(running)
        """Those that were found healthy, and those that are to run once and have."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes: first asked, all at once, and then made to, with all that they have started."""
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def bring_up(self, names: Iterable[str]) -> None:
        """Start services, each when those that it depends on are as far as it wants, and wait for all."""
        deadline = time.monotonic() + _START_SECONDS
        waiting = list(names)
        starting: list[str] = []
        while waiting or starting:
            for name in [name for name in waiting if self._may_start(name)]:
                self._start(name)
                waiting.remove(name)
                starting.append(name)
            for name in [name for name in starting if self._is_up(name)]:
                starting.remove(name)
                self.up.add(name)
            assert time.monotonic() < deadline, "\n".join(self._end_of_log(name) for name in starting)
            time.sleep(0.2)

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, as `docker compose exec` does."""
        return subprocess.run(
            self._command(command),
            env=self._variables(name),
            cwd=self._workdir,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check, as Docker does."""
        how, *test = self._services[name]["healthcheck"]["test"]
        return self.run(name, ["sh", "-c", *test] if how == "CMD-SHELL" else test)

    def folder(self, path: str) -> Path:
        """Return the folder here that stands for one of the containers."""
        return Path(self._here[path])

    def stop(self, name: str) -> int:
        """Stop a container; return its exit code."""
        process = self._processes[name]
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(_STOP_SECONDS)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _end_of_log(self, name: str) -> str:
        return f"{name}:\n" + self._log(name).read_text(errors="replace")[-3000:]

    def _may_start(self, name: str) -> bool:
        return self.up.issuperset(self._services[name].get("depends_on", {}))

    def _start(self, name: str) -> None:
        with self._log(name).open("wb") as output:
            self._processes[name] = subprocess.Popen(
                self._command(self._services[name]["command"]),
                env=self._variables(name),
                cwd=self._workdir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _is_up(self, name: str) -> bool:
        status = self._processes[name].poll()
        if not is_long_running(self._services[name]):
            assert status in (None, 0), self._end_of_log(name)
            return status == 0
        assert status is None, self._end_of_log(name)
        return self.check(name).returncode == 0

    def _command(self, command: list[str]) -> list[str]:
        return [
            LOOPBACK if option == "--host" else self._rewritten(argument)
            for option, argument in pairwise(["", *command])
        ]

    def _variables(self, name: str) -> dict[str, str]:
        given = image_environment() | self._services[name].get("environment", {})
        own = {
            variable: LOOPBACK if value in self._services else self._rewritten(value)
            for variable, value in given.items()
        }
        own["PATH"] = own["PATH"].replace("$PATH", f"{ROOT / 'deploy'}:{os.environ['PATH']}")
        # Nothing else of whoever runs the tests gets into a container.
        return {"HOME": str(self._logs), "TMPDIR": self._here["/tmp"], **own, **self._environment}

    def _rewritten(self, text: str) -> str:
        """Write a text of a container as it is true here."""
        return self._there.sub(lambda found: self._here[found[0]], text)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that comes about by itself."""
    deadline = time.monotonic() + _START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
