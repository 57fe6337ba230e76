"""Ports: choosing free ones, and seeing to it that ours are free before anything starts."""

import errno
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import psutil

from clickstream_assets.errors import LocalStackError
from clickstream_assets.holders import holder, listens

LOOPBACK = "127.0.0.1"


class PortsTakenError(LocalStackError):
    """A port is not free, so nothing was started."""


@dataclass(frozen=True)
class Listener:
    """A server of ours and the loopback port that it is to listen on; `change` says how another one is chosen."""

    title: str
    port: int
    change: str


def free_port(besides: Collection[int] = ()) -> int:
    """Return a loopback port that nobody listens on, and none of `besides`."""
    while True:
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            port = listener.getsockname()[1]
        if port not in besides:
            return port


def require_free(listeners: Iterable[Listener]) -> None:
    """Check that each server could listen on its port.

    Raises:
        PortsTakenError: naming each port that is taken, who has it, and how another one is chosen.
    """
    problems = []
    wanted: dict[int, Listener] = {}
    for listener in listeners:
        first = wanted.setdefault(listener.port, listener)
        if first is not listener:
            problems.append(
                f"Port {listener.port} is to be {first.title}'s and {listener.title}'s: {listener.change}."
            )
        elif problem := _problem(listener):
            problems.append(problem)
    if problems:
        raise PortsTakenError("\n".join(problems))


def _problem(listener: Listener) -> str | None:
    error = _bind_error(listener.port)
    if error is None:
        return None
    port = f"Port {listener.port} of {listener.title}"
    if error.errno == errno.EADDRINUSE:
        return f"{port} is taken by {holder(listener.port)}. End that, or choose another port: {listener.change}."
    return f"{port} cannot be listened on: {error.strerror}. Choose another one: {listener.change}."


def is_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port."""
    return _bind_error(port) is None


def _bind_error(port: int) -> OSError | None:
    with socket.socket() as listener:
        # As the servers do, so that a port whose last connection has just closed counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError as error:
            return error
    return None


def accepts_connections(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0


def is_others(port: int, pid: int) -> bool:
    """Return whether something listens on a loopback port, and it is neither this process nor a child of it.

    For what the caller may not see, as root in a container another user's processes, the answer is no.
    """
    # First, as ours may begin to listen in between, and another cannot.
    if not accepts_connections(port):
        return False
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        # It has ended, as a server does whose port is taken.
        return True
    for member in family:
        try:
            if listens(member, port):
                return False
        except psutil.AccessDenied:
            return False
        except psutil.NoSuchProcess:
            continue
    return True
