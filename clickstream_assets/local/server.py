"""The base of the three servers: a folder, a log, a port, and how each is prepared, run and asked."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import ClassVar

from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import writing
from clickstream_assets.local.identity import Identity

LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Tools:
    """The programs that the servers are run with."""

    identity: Identity
    java: Path
    kafka_classpath: str
    elasticsearch_home: Path
    postgres_programs: Path


class Server(ABC):
    """One server of the stack. Its data are in `<home>/<name>/`, its log is `<home>/logs/<name>.log`."""

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[Signals] = Signals.SIGTERM

    def __init__(self, home: Path, port: int) -> None:
        self.folder = home / self.name
        self.log = home / "logs" / f"{self.name}.log"
        self.port = port

    @abstractmethod
    def prepare(self, tools: Tools) -> None:
        """Write the configuration, and make the data folder if there is none.

        Called before every start, and never while the server runs.
        """

    @abstractmethod
    def command(self, tools: Tools) -> list[str]:
        """Return the server's command, to be run in its folder."""

    @abstractmethod
    def problem(self) -> str | None:
        """Return why the server cannot be used at the moment; None when it is healthy."""

    def configure(self) -> None:  # noqa: B027
        """Make what belongs in a healthy server; called whenever the stack is brought up."""

    def write(self, name: str, content: str, identity: Identity) -> Path:
        """Write a file of the server's own into its folder.

        Raises:
            LocalStackError: it cannot be written.
        """
        path = self.folder / name
        with writing(path):
            path.write_text(content, encoding="utf-8")
            identity.own(path)
        return path

    def make_folder(self, name: str, identity: Identity) -> Path:
        """Make a folder of the server's own inside its folder; "" is that folder itself.

        Raises:
            LocalStackError: it cannot be made.
        """
        path = self.folder / name
        with writing(path):
            path.mkdir(mode=0o700, exist_ok=True)
            identity.own(path)
        return path

    def initialise(self, data: Path, command: Sequence[str], identity: Identity) -> None:
        """Make the data folder with a command that makes `<data>.partial`; renamed when whole.

        Raises:
            LocalStackError: when the command fails, with the end of what it said.
        """
        partial = data.with_suffix(".partial")
        answer = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
            [*identity.prefix, *command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if answer.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise LocalStackError(f"{self.title}: {data} could not be made:\n{last_lines(answer.stdout)}")
        partial.rename(data)


def last_lines(text: str) -> str:
    """Return the end of a log, indented."""
    return "\n".join(f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:]) or "  (it said nothing)"
