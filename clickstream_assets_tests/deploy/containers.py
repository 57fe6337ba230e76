"""Containers of our image: brought up in the Compose file's order, and found healthy by its own checks.

Here as processes on loopback, with the same commands, variables and health checks, without Docker: what is only true in
a container is written in another way, the host names of services, ports, and folders. `podman.py` has the image itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clickstream_assets_tests.deploy.files import ROOT, command_of, image_environment, is_long_running

LOOPBACK = "127.0.0.1"
_START_SECONDS = 600
_STOP_SECONDS = 20


class Containers(ABC):
    """Services of the Compose file.

    Args:
        services: all of them by name, with their variables filled in.
        running: names of those that run already.
    """

    def __init__(self, services: Mapping[str, dict[str, Any]], running: Iterable[str]) -> None:
        self._services = services
        self.up = set(running)
        """Those that were found healthy, and those that are to run once and have."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all."""
        self._end()

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
            assert time.monotonic() < deadline, "\n".join(self.end_of_log(name) for name in starting)
            time.sleep(0.2)

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check, as Docker does."""
        how, *test = self._services[name]["healthcheck"]["test"]
        return self.run(name, ["sh", "-c", *test] if how == "CMD-SHELL" else test)

    @abstractmethod
    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, as `docker compose exec` does."""

    @abstractmethod
    def folder(self, path: str) -> Path:
        """Return the folder here that stands for one of the containers."""

    @abstractmethod
    def stop(self, name: str) -> int:
        """Stop a container; return its exit code."""

    @abstractmethod
    def _start(self, name: str) -> None: ...

    @abstractmethod
    def _exit_code(self, name: str) -> int | None: ...

    @abstractmethod
    def _log(self, name: str) -> str: ...

    @abstractmethod
    def _end(self) -> None: ...

    def end_of_log(self, name: str) -> str:
        """Return the last that a container has said."""
        return f"{name}:\n" + self._log(name)[-3000:]

    def _may_start(self, name: str) -> bool:
        return self.up.issuperset(self._services[name].get("depends_on", {}))

    def _is_up(self, name: str) -> bool:
        status = self._exit_code(name)
        if not is_long_running(self._services[name]):
            assert status in (None, 0), self.end_of_log(name)
            return status == 0
        assert status is None, self.end_of_log(name)
        return self.check(name).returncode == 0


class Processes(Containers):
    """Services as processes.

    Args:
        services: as above.
        running: as above.
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
        super().__init__(services, running)
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

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """See the base class."""
        return subprocess.run(
            self._command(command),
            env=self._variables(name),
            cwd=self._workdir,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def folder(self, path: str) -> Path:
        """See the base class."""
        return Path(self._here[path])

    def stop(self, name: str) -> int:
        """See the base class."""
        process = self._processes[name]
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(_STOP_SECONDS)

    def _end(self) -> None:
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

    def _exit_code(self, name: str) -> int | None:
        return self._processes[name].poll()

    def _log_file(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _log(self, name: str) -> str:
        return self._log_file(name).read_text(errors="replace")

    def _start(self, name: str) -> None:
        with self._log_file(name).open("wb") as output:
            self._processes[name] = subprocess.Popen(
                self._command(command_of(self._services[name])),
                env=self._variables(name),
                cwd=self._workdir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _command(self, command: list[str]) -> list[str]:
        return [
            LOOPBACK if option == "--host" else self._rewritten(argument)
            for option, argument in pairwise(["", *command])
        ]

    def _variables(self, name: str) -> dict[str, str]:
        given = image_environment() | self._services[name].get("environment", {})
        own = {
            variable: LOOPBACK
            if variable.endswith("_HOST") and value in self._services
            else self._rewritten(value)
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
