"""`stack.json`: the ports, passwords and processes of one home's servers, kept between commands."""

import os
import secrets
from pathlib import Path
from threading import Lock

import msgspec
import psutil

from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import write_private
from clickstream_assets.local.processes import find

_RESTORE = "restore it, or remove the whole folder to start afresh"


def _password() -> str:
    return secrets.token_urlsafe(24)


class ServerState(msgspec.Struct):
    """A server's port and, unless it was stopped, its process: pid and create time in seconds since 1970."""

    port: int
    pid: int | None = None
    created: float | None = None

    @property
    def process(self) -> psutil.Process | None:
        """The server's process, if it is alive and the pid is not another's by now."""
        return find(self.pid, self.created)


class StackState(msgspec.Struct):
    """Everything the stack remembers. The second password is the database administrator's."""

    servers: dict[str, ServerState] = {}
    postgres_password: str = msgspec.field(default_factory=_password)
    postgres_admin_password: str = msgspec.field(default_factory=_password)


class StateFile:
    """The state of one home, on disk; only its owner can read it, for the passwords."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self.state = self._load()

    def _load(self) -> StackState:
        if not self.path.exists():
            if (self.path.parent / "postgres" / "data").exists():
                raise LocalStackError(
                    f"{self.path} is missing, and with it the passwords of the data in that folder: {_RESTORE}."
                )
            return StackState()
        # Root could go on, and would leave files behind that the owner cannot write any more.
        if self.path.stat().st_uid != os.geteuid():
            raise LocalStackError(
                f"{self.path} belongs to {self.path.owner()}: run this as that user, or set CLICKSTREAM_HOME."
            )
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=StackState)
        except msgspec.DecodeError as error:
            raise LocalStackError(
                f"{self.path} is damaged ({error}). It holds the passwords of the data in that folder: {_RESTORE}."
            ) from None

    def started(self, name: str, process: psutil.Process) -> None:
        """Record a server's process."""
        with self._lock:
            server = self.state.servers[name]
            server.pid, server.created = process.pid, process.create_time()
            self.save()

    def stopped(self, name: str) -> None:
        """Record that a server was stopped."""
        with self._lock:
            server = self.state.servers[name]
            server.pid = server.created = None
            self.save()

    def save(self) -> None:
        """Write the state if it has changed."""
        content = msgspec.json.format(msgspec.json.encode(self.state)) + b"\n"
        if not self.path.exists() or self.path.read_bytes() != content:
            write_private(self.path, content)
