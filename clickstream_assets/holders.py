"""Holders of ports: the processes that listen on them."""

from contextlib import suppress
from pathlib import Path

import psutil

STATE_FILE = "stack.json"
"""The file that makes a folder a home."""


def holder(port: int) -> str:
    """Name the process that listens on a port, if the caller may see it: `process 123 (nginx)`.

    Of a process of ours, also its home.
    """
    for process in psutil.process_iter(["name"]):
        # Other users' processes are not shown to everybody, and some end meanwhile.
        with suppress(psutil.Error):
            if listens(process, port):
                home = _home_of(process)
                of_ours = f" of the clickstream_assets that runs in {home}" if home else ""
                return f"process {process.pid} ({process.info['name']}){of_ours}"
    return "another program, which is not yours to see"


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether a process listens on a TCP port."""
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections(kind="tcp")
    )


def _home_of(process: psutil.Process) -> Path | None:
    """Return the home that a process works for, if it is one of ours and the caller may see it."""
    with suppress(psutil.Error):
        folder = Path(process.cwd())
        # A server works in a folder of its home; the others have the home in their environment.
        named = process.environ().get("CLICKSTREAM_HOME")
        homes = [*folder.parents, *([folder / named] if named else [])]
        return next((home for home in homes if (home / STATE_FILE).exists()), None)
    return None
