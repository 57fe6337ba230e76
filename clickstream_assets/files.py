"""Locks and private files that several commands may want at the same time, and room on disks."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clickstream_assets.errors import LocalStackError

Progress = Callable[[str], None]
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
"""Texts of the system's errors by which a disk is full."""
# PostgreSQL's files of its log, of 16 MB each, are the largest that a server makes at once.
_ROOM_BYTES = 32 * 1024 * 1024


def silent(line: str) -> None:
    """Report progress to nobody."""


def room(path: Path | str) -> str:
    """Say how much room there is where a folder is, or will be: `/home/lake has 0 bytes free`."""
    if "://" in str(path):
        return f"{path} is not on this machine"
    return f"{path} has {_free_bytes(Path(path)):,} bytes free"


def full_disk(path: Path) -> str | None:
    """Say that there is no room where a folder is, or will be, with how much there is; None if there is room."""
    free = _free_bytes(path)
    return f"no space left on {path} ({free:,} bytes free)" if free < _ROOM_BYTES else None


def _free_bytes(path: Path) -> int:
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


@contextmanager
def exclusive(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold an advisory lock on `lock`, waiting for whoever has it; the system frees it if the holder dies."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"Waiting for another command that works in {lock.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what keeps a file or folder of a home from being written into an error that names it.

    Raises:
        LocalStackError: the disk is full, the folder is read-only, and the like.
    """
    try:
        yield
    except OSError as error:
        raise LocalStackError(
            f"{path} cannot be written: {error.strerror or error}. Mend that there, or set CLICKSTREAM_HOME to another "
            "folder."
        ) from error


def make_private(path: Path) -> None:
    """Make a folder that only its owner can read; one that is there stays as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; only its owner can read it.

    Raises:
        LocalStackError: it cannot be written; the old one is as it was.
    """
    with writing(path):
        # mkstemp makes the file with mode 0600, so the secret is never open to others, not even for a moment.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
