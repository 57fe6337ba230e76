"""Deletes old backups of a place: whole ones beyond a number, what was never finished, and files that no backup names.

The data files of the lake are shared, so what the backups that stay name stays. A backup that is being written, and a
pruning, each say so in the place before they look for the other, so that of both at once one at least gives way.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import BEGUN, FILES, MANIFEST, PRUNING, names, read
from clickstream_assets.backup.place import Counting, Found, Place, each, uncounted
from clickstream_assets.files import Progress, silent

LEFT_ALONE = timedelta(hours=12)
"""Time within which what was written, by the clock of its storage, may be of a backup that is being written."""


class Pruned(NamedTuple):
    """Outcome of a pruning: backups that are gone, whole ones by name and unfinished ones, and data files."""

    backups: list[str] = []
    unfinished: list[str] = []
    files: int = 0
    bytes: int = 0


def prune(place: Place, keep: int, progress: Progress = silent, counting: Counting = uncounted) -> Pruned:
    """Delete all but the newest backups of a place. Can be repeated, and interrupted, at any time.

    Args:
        place: where they are.
        keep: how many stay, at least one.
        progress: gets a line if nothing is deleted, as another backup may be under way.
        counting: opens a count of bytes.

    Raises:
        BackupError: a backup that stays cannot be read, so that it is not known which files it needs.
    """
    if keep < 1:
        raise BackupError(f"--keep is {keep}; keep one backup at least")
    now = _say(place, PRUNING)
    try:
        whole, begun = names(place)
        if busy := [name for name in begun if any(_is_fresh(its, now) for its in place.files(name).values())]:
            progress(
                f"Nothing is deleted: {busy[-1]} is not finished, and was written to in the last "
                f"{LEFT_ALONE // timedelta(hours=1)} hours, so it may be under way"
            )
            return Pruned()
        # Before anything is deleted, for what they need.
        needed = {file for name in whole[-keep:] for file in read(place, name).files}
        old = whole[:-keep]
        for name in old:
            # First, so that what is half deleted is no backup, but one that was never finished.
            place.remove(f"{name}/{MANIFEST}")
        for name in (*old, *begun):
            place.remove_folder(name)
        there = place.files(FILES)
        unneeded = {
            path: file.size
            for name, file in there.items()
            if (path := f"{FILES}/{name}") not in needed and not _is_fresh(file, now)
        }
        each(lambda path: _remove(place, path), unneeded, unneeded, counting, "Deleting what no backup needs")
        return Pruned(old, begun, len(unneeded), sum(unneeded.values()))
    finally:
        _remove(place, PRUNING)


def begin(place: Place, name: str) -> None:
    """Say in a place that a backup is being written.

    Raises:
        BackupError: old backups of it are being deleted.
    """
    now = _say(place, f"{name}/{BEGUN}")
    other = place.find(PRUNING)
    if other and _is_fresh(other, now):
        place.remove_folder(name)
        raise BackupError(
            f"old backups of {place.uri} are being deleted, or were until that was killed less than "
            f"{LEFT_ALONE // timedelta(hours=1)} hours ago; run it again when `clickstream backup --keep` has ended, "
            f"or delete {place.uri}/{PRUNING} if none runs",
            retryable=True,
        )


def _say(place: Place, name: str) -> int:
    """Write a file that says something by being there; return when that was, by the clock of its storage."""
    place.write(name, b"{}")
    found = place.find(name)
    assert found
    return found.written_at


def _is_fresh(file: Found, now: int) -> bool:
    return now - file.written_at < LEFT_ALONE / timedelta(microseconds=1) * 1000


def _remove(place: Place, path: str) -> None:
    with suppress(FileNotFoundError):
        # Another deletes the same.
        place.remove(path)
