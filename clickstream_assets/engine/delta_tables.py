"""Delta tables as a thread has opened them, to be opened again by what is new in their logs.

To open a table reads its log since the last checkpoint, up to a hundred commits, and a refresh asks for tables several
hundred times: with 60 commits, 14 ms of processor time each. To look for commits that have come since takes 2.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

# Versions that a run's tables are made from stay the same from step to step.
_VERSIONS_KEPT = 16


class _Opened(threading.local):
    """Tables that a thread keeps: others would see one move on between two questions."""

    def __init__(self) -> None:
        self.newest: dict[str, tuple[DeltaTable, _Commit | None]] = {}
        self.pinned: OrderedDict[tuple[str, int, _Commit], DeltaTable] = OrderedDict()


_Commit = tuple[int, int, int]
_opened = _Opened()


def newest(path: str) -> DeltaTable:
    """Return a table at its newest version.

    Raises:
        TableNotFoundError: there is none.
        DeltaError: its log cannot be read.
    """
    table, commit = _opened.newest.get(path, (None, None))
    if table is not None and commit is not None and commit == _commit(path, table.version()):
        try:
            table.update_incremental()
            return _keep(path, table)
        except DeltaError:
            # What the log says now decides, and not what has become of it since.
            pass
    _opened.newest.pop(path, None)
    return _keep(path, DeltaTable(path))


def at(path: str, version: int) -> DeltaTable:
    """Return a table at a version, to be read alone.

    Raises:
        TableNotFoundError: there is none.
        DeltaError: its log cannot be read, or does not go back so far.
    """
    commit = _commit(path, version)
    if commit is None:
        return DeltaTable(path, version=version)
    table, its_commit = _opened.newest.get(path, (None, None))
    if table is not None and table.version() == version and its_commit == commit:
        return table
    key = (path, version, commit)
    if key not in _opened.pinned:
        _opened.pinned[key] = DeltaTable(path, version=version)
        if len(_opened.pinned) > _VERSIONS_KEPT:
            _opened.pinned.popitem(last=False)
    _opened.pinned.move_to_end(key)
    return _opened.pinned[key]


def _keep(path: str, table: DeltaTable) -> DeltaTable:
    _opened.newest[path] = table, _commit(path, table.version())
    return table


def _commit(path: str, version: int) -> _Commit | None:
    """Return what a version's commit is known by; None where it is not there, or not on this machine's disk.

    A table that was put back to an earlier time, or deleted and made anew, has others by the same numbers. Of an object
    store, that cannot be told without asking it for as much as opening does.
    """
    try:
        found = Path(path, "_delta_log", f"{version:020}.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
