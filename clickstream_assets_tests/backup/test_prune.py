"""Old backups of a place: which are deleted, and what stays of what they share; on a disk and in an object store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clickstream_assets.backup import prune as pruning
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import PRUNING, Stored, choose, names, new_name, verify
from clickstream_assets.backup.place import Place, uncounted
from clickstream_assets.backup.prune import LEFT_ALONE, Pruned, begin, prune
from clickstream_assets_tests.backup.test_manifest import NOW, made
from clickstream_assets_tests.object_storage import BUCKET, object_storage

FIRST, SECOND, THIRD, FOURTH = (f"2024-03-0{day}T000000Z" for day in range(1, 5))
HAS = {FIRST: "ab", SECOND: "bc", THIRD: "cd"}
"""The data files of each backup: each shares one with the next."""


@contextmanager
def folder_of(kind: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Give a place's address, and the folder in which its files are."""
    if kind == "disk":
        yield str(tmp_path / "backups"), tmp_path / "backups"
        return
    with object_storage(tmp_path / "s3") as storage:
        yield f"s3://{BUCKET}/backups", storage.folder / BUCKET / "backups"


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def backups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Path]]:
    """Three backups of long ago, and the folder in which they are."""
    with folder_of(request.param, tmp_path) as (uri, folder):
        place = Place(uri)
        for name, files in HAS.items():
            add(place, name, files)
        age(folder)
        yield place, folder


def add(place: Place, name: str, files: str) -> None:
    """Make a backup as `clickstream backup` does, of data files that may be there."""
    begin(place, name)
    shared = {
        f"files/events/{file}": place.write(f"files/events/{file}", file.encode() * 5) for file in files
    }
    own = {f"{name}/one": place.write(f"{name}/one", b"some bytes")}
    made(
        place, name, files={path: Stored(file.size, file.sha256) for path, file in {**shared, **own}.items()}
    )


def age(folder: Path) -> None:
    """Make all files look as if they were written long ago."""
    then = time.time() - 2 * LEFT_ALONE.total_seconds()
    for path in (*folder.rglob("*"),):
        os.utime(path, (then, then))


def data_files(place: Place) -> str:
    return "".join(sorted(name.removeprefix("events/") for name in place.files("files")))


def test_the_newest_stay_with_all_that_they_share_with_the_others(backups: tuple[Place, Path]):
    place, folder = backups
    assert prune(place, 3) == Pruned()
    assert data_files(place) == "abcd"
    assert prune(place, 2) == Pruned([FIRST], [], 1, 5)
    assert names(place) == ([SECOND, THIRD], [])
    assert data_files(place) == "bcd"
    for name in (SECOND, THIRD):
        verify(place, choose(place, name), uncounted)
    assert place.entries() == [SECOND, THIRD, "files"]
    assert prune(place, 1) == Pruned([SECOND], [], 1, 5)
    assert data_files(place) == "cd"
    verify(place, choose(place, None), uncounted)
    assert new_name(place, NOW) == FIRST
    assert not (folder / FIRST).exists()


def test_what_was_never_finished_goes_but_not_while_it_may_be_under_way(backups: tuple[Place, Path]):
    place, folder = backups
    place.write("files/events/x", b"half")
    begin(place, FOURTH)
    lines: list[str] = []
    assert prune(place, 1, lines.append) == Pruned()
    assert lines == [
        f"Nothing is deleted: {FOURTH} is not finished, and was written to in the last 12 hours, so it may be under way"
    ]
    assert names(place) == ([FIRST, SECOND, THIRD], [FOURTH])
    assert data_files(place) == "abcdx"
    age(folder)
    # Who has just written a file has not named it yet.
    place.write("files/events/y", b"new")
    assert prune(place, 2) == Pruned([FIRST], [FOURTH], 2, 9)
    assert data_files(place) == "bcdy"


def test_a_pruning_that_was_killed_anywhere_leaves_backups_whole_and_is_made_up_for(
    backups: tuple[Place, Path], monkeypatch: pytest.MonkeyPatch
):
    place, folder = backups
    removed = 0
    for kill_after in range(4):
        with monkeypatch.context() as killed:

            def kill(path: str, after: int = kill_after) -> None:
                nonlocal removed
                if removed == after and path != PRUNING:
                    raise KeyboardInterrupt
                removed += path != PRUNING
                Place.remove(place, path)

            removed = 0
            killed.setattr(place, "remove", kill)
            if kill_after < 3:
                with pytest.raises(KeyboardInterrupt):
                    prune(place, 1)
            else:
                prune(place, 1)
        verify(place, choose(place, THIRD), uncounted)
        for name in names(place)[0]:
            verify(place, choose(place, name), uncounted)
        age(folder)
    prune(place, 1)
    assert place.entries() == [THIRD, "files"]
    assert data_files(place) == "cd"


def test_a_backup_does_not_begin_while_old_ones_are_deleted(backups: tuple[Place, Path]):
    place, folder = backups
    place.write(PRUNING, b"{}")
    with pytest.raises(
        BackupError, match=r"old backups of .* are being deleted.*delete .*pruning\.json if none runs"
    ):
        begin(place, FOURTH)
    assert FOURTH not in place.entries()
    # One that was killed long ago.
    age(folder)
    begin(place, FOURTH)
    assert names(place)[1] == [FOURTH]


def test_nothing_is_deleted_where_it_is_not_known_what_the_others_need(backups: tuple[Place, Path]):
    place, _ = backups
    place.write(f"{THIRD}/backup.json", b"{")
    with pytest.raises(BackupError, match=r"2024-03-03T000000Z/backup\.json is damaged"):
        prune(place, 1)
    assert names(place) == ([FIRST, SECOND, THIRD], [])
    assert data_files(place) == "abcd"
    with pytest.raises(BackupError, match="--keep is 0; keep one backup at least"):
        prune(place, 0)
    assert pruning.PRUNING not in place.entries()
