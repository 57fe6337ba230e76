"""Servers of a stack that are killed, or hang: their kernel takes connections and nothing answers."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings

OUTAGES = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP}


@contextmanager
def stack_of_its_own() -> Iterator[Stack]:
    """Servers that a test may put out of action, in a home of their own; both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="clickstream-outages-") as home:
        stack = Stack(Path(home), Settings(_env_file=None).jars_path)
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


@contextmanager
def outage(stack: Stack, title: str, how: str) -> Iterator[None]:
    """A server is away, with all the processes that it has started; at the end it goes on, or is started again."""
    (pid,) = [server.pid for server in stack.status() if server.title == title]
    assert pid
    parent = psutil.Process(pid)
    processes = [parent, *parent.children(recursive=True)]
    _send(processes, OUTAGES[how])
    try:
        yield
    finally:
        _send(processes, signal.SIGCONT)
        stack.up()


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
