"""Processes that live no longer than the command that starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from clickstream_assets.errors import LocalStackError

STOP_SECONDS = 15


class Child:
    """A process of ours, with its own children in its process group."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self.pid = process.pid
        self._process = process

    def kill(self) -> None:
        """End the process and what it started at once, as a crash of its machine does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def check(self) -> None:
        """Raise a LocalStackError with the end of its log if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise LocalStackError(
                f"{self.name} ended with status {status}. The end of its log:\n{self.tail()}"
            )

    def tail(self, lines: int = 25) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Ask the process and what it started to end, and do not wait."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def stop(self) -> None:
        """End the process and what it started: first asked, then after 15 s made to."""
        for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(patience)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let a stop from outside end the block as Ctrl-C does, so that what it has started is stopped too.

    Some code swallows every exception: a finalizer, or the event loop of a client. So the exit is raised each second
    until it is on its way out. From then on nothing disturbs what stops the block's children, a second stop included.
    """

    def stop(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 1)
        error = sys.exception()
        while error is not None and not isinstance(error, SystemExit):
            error = error.__context__
        if error is None:
            sys.exit(128 + signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def running(
    name: str, command: list[str], log: Path, env: Mapping[str, str], folder: Path
) -> Iterator[Child]:
    """Run a command until the block ends, however it ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - no shell, and nobody else's command
            command, stdout=output, stderr=output, env=dict(env), cwd=folder, start_new_session=True
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        child.stop()
