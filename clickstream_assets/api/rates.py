"""Rates at which something is taken from each client, by all worker processes together."""

from __future__ import annotations

import fcntl
import mmap
import struct
import tempfile
from pathlib import Path
from threading import Lock
from time import monotonic

_TIME = struct.Struct("d")


class RateLimit:
    """A limit that processes share in a file: for each key, by when all that was taken would have come in order.

    It is the generic cell rate algorithm, ITU-T I.371, but that a request is taken whole while nothing is owed.

    Args:
        rate: events in a second.
        keys: how many keys there are.
        folder: where the processes share the file; none for one process.
        name: the file's.
        burst_seconds: what comes in so many seconds may come at once before anybody is asked to wait.
    """

    def __init__(
        self, rate: float, keys: int, folder: Path | None, *, name: str, burst_seconds: float = 1.0
    ) -> None:
        self._rate = rate
        self._burst_seconds = burst_seconds
        self._lock = Lock()
        self._file = (folder / name).open("a+b") if folder else tempfile.TemporaryFile()  # noqa: SIM115
        size = keys * _TIME.size
        with _locked(self._file.fileno()):
            # One process makes it, and the others leave what is there.
            if self._file.seek(0, 2) < size:
                self._file.truncate(size)
        self._times = mmap.mmap(self._file.fileno(), size)

    def wait_of(self, key: int, events: int) -> float:
        """Take a key's events, or return the seconds after which they may come again; of 0 events, whether any may."""
        with self._lock, _locked(self._file.fileno()):
            # The same clock in all processes, since the machine was started.
            now = monotonic()
            (in_order,) = _TIME.unpack_from(self._times, key * _TIME.size)
            owed = in_order - now - self._burst_seconds
            if owed > 0:
                return float(owed)
            _TIME.pack_into(self._times, key * _TIME.size, max(in_order, now) + events / self._rate)
            return 0.0

    def close(self) -> None:
        """Let go of the file."""
        self._times.close()
        self._file.close()


class _locked:
    """A file that no other process has meanwhile."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        fcntl.lockf(self._number, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._number, fcntl.LOCK_UN)
