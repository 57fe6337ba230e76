"""The keeper of a stack: brings the servers back that a full disk has stopped, once there is room, and shortens logs.

A server that has no room for what it writes ends, or goes on and takes nothing more. Nothing else starts it again: the
servers have no parent. A keeper runs for as long as they do.
"""

import errno
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import Progress, full_disk
from clickstream_assets.local import processes
from clickstream_assets.local.stack import Stack

LOOK_SECONDS = 2.0
LOG_BYTES = 50_000_000
"""A log that is longer becomes its own predecessor, so that each takes twice as much at most."""


class Keeper:
    """Looks at the disk of a stack's home, and at the servers once it was full.

    Args:
        stack: the servers.
        progress: gets a line on each thing that happens.
    """

    def __init__(self, stack: Stack, progress: Progress) -> None:
        self._stack = stack
        self._progress = progress
        self._was_full = False

    def look(self) -> None:
        """Bring the servers back if the disk was full and has room again; to be called every few seconds."""
        shorten_logs(self._stack.home / "logs")
        if full := full_disk(self._stack.home):
            if not self._was_full:
                self._progress(f"{full}: servers stop. Free some, and they are started again")
            self._was_full = True
        elif self._was_full:
            try:
                self._stack.bring_back()
            except LocalStackError as error:
                self._progress(f"{error}; trying again")
            else:
                self._progress("there is room again, and all servers are up")
                self._was_full = False

    def run(self) -> None:
        """Look until the servers are stopped; does nothing where another keeper does."""
        with (self._stack.home / "keeper.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            while self._stack.home.exists() and self._stack.started:
                self.look()
                time.sleep(LOOK_SECONDS)


def shorten_logs(folder: Path, most: int = LOG_BYTES) -> None:
    """Move what logs say that are too long to `<name>.log.1`, in place of what was there.

    Processes have their logs open, to append, and go on at the beginning. A line that is written between the copy and
    the cut is lost.
    """
    for log in folder.glob("*.log"):
        try:
            if log.stat().st_size <= most:
                continue
            # Under another name first: one that is half written is nobody's.
            shutil.copyfile(log, partial := log.with_suffix(".log.partial"))
            partial.replace(log.with_suffix(".log.1"))
            os.truncate(log, 0)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # No room for two, so there is none for an older one.
            log.with_suffix(".log.partial").unlink(missing_ok=True)
            os.truncate(log, 0)


def start_keeper(stack: Stack) -> None:
    """Start a keeper of a stack, which outlives this command and ends after the servers are stopped."""
    log = stack.home / "logs" / "keeper.log"
    command = [str(Path(sys.executable).with_name("clickstream")), "stack", "keep", "--home", str(stack.home)]
    processes.start(command, Path("/"), log)
