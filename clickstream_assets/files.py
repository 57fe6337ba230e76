"""Locks and private files that several commands may want at the same time."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clickstream_assets.errors import LocalStackError

Progress = Callable[[str], None]


def silent(line: str) -> None:
    """Report progress to nobody."""


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
