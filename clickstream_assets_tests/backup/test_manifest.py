"""What a backup says of itself, and what is found of one that is not as it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import (
    Backup,
    Database,
    Lake,
    Stored,
    choose,
    new_name,
    newest,
    seal,
    verify,
)
from clickstream_assets.backup.place import Place, uncounted

NOW = datetime(2024, 3, 1, tzinfo=UTC)
FIRST, SECOND = "2024-03-01T000000Z", "2024-03-02T000000Z"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "backups"))


def made(place: Place, name: str, **changes: Any) -> Backup:
    """A backup of one file."""
    file = place.write(f"{name}/one", b"some bytes")
    values: dict[str, Any] = {
        "format": 1,
        "product": "0.1.0",
        "name": name,
        "began_at": NOW,
        "ended_at": NOW,
        "lake": Lake({}, {"events/0": 5}),
        "topics": {"events": None},
        "stream": None,
        "postgres": Database("0001", {}, {}),
        "dagster": None,
        "files": {f"{name}/one": Stored(file.size, file.sha256)},
    }
    backup = Backup(**(values | changes))
    seal(place, backup)
    return backup


def test_the_newest_backup_is_chosen_or_one_by_its_name(place: Place):
    first, second = made(place, FIRST), made(place, SECOND)
    assert choose(place, None) == newest(place) == second
    assert choose(place, FIRST) == first
    verify(place, first, uncounted)


def test_a_new_one_is_named_by_its_time(place: Place):
    assert new_name(place, NOW) == FIRST
    made(place, FIRST)
    assert new_name(place, datetime(2024, 3, 2, tzinfo=UTC)) == SECOND
    with pytest.raises(BackupError, match=f"has a backup {FIRST} already"):
        new_name(place, NOW)


def test_a_folder_with_other_files_is_refused(place: Place):
    place.write("letters.txt", b"Dear")
    with pytest.raises(BackupError, match=r"holds other files than backups, such as letters\.txt"):
        new_name(place, NOW)


def test_a_backup_that_was_not_finished_is_none(place: Place):
    place.write(f"{FIRST}/one", b"half")
    assert newest(place) is None
    with pytest.raises(
        BackupError, match=rf"has no backup; {FIRST} has no backup\.json, so it was not finished"
    ):
        choose(place, None)
    second = made(place, SECOND)
    assert choose(place, None) == second
    with pytest.raises(BackupError, match=f"not finished, so it is none. Name another by --which: {SECOND}"):
        choose(place, FIRST)


def test_a_place_without_backups_and_a_name_that_is_not_there_are_told_apart(place: Place):
    with pytest.raises(BackupError, match=r"has no backup\. Name the folder"):
        choose(place, None)
    made(place, FIRST)
    with pytest.raises(BackupError, match=f"has no backup yesterday; name one of {FIRST}"):
        choose(place, "yesterday")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "is damaged: "),
        (lambda text: text.replace("events/0", "events/1"), "is damaged: its checksum is another"),
        (lambda _: "", "is damaged: "),
    ],
    ids=["cut off", "changed", "empty"],
)
def test_a_damaged_manifest_is_found(place: Place, damage: Any, says: str):
    made(place, FIRST)
    path = Path(place.uri) / FIRST / "backup.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(BackupError, match=f"{FIRST}/backup.json {says}"):
        choose(place, None)


def test_a_form_of_a_later_version_is_refused_by_its_number(place: Place):
    made(place, FIRST, format=2)
    with pytest.raises(BackupError, match="has format 2, and this version of the product reads 1"):
        choose(place, None)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "is missing, which backup"),
        (lambda path: path.write_bytes(b"some byteS"), "is damaged: it has another checksum"),
        (lambda path: path.write_bytes(b"some"), "is damaged: it has 4 bytes and had 10"),
    ],
    ids=["missing", "garbled", "cut off"],
)
def test_a_file_that_is_not_as_it_was_written_is_found(place: Place, damage: Any, says: str):
    backup = made(place, FIRST)
    damage(Path(place.uri) / FIRST / "one")
    with pytest.raises(BackupError, match=f"{FIRST}/one {says}"):
        verify(place, backup, uncounted)


def test_all_that_a_manifest_says_is_read_as_it_was_written(place: Place):
    backup = made(place, FIRST)
    assert choose(place, FIRST) == backup
    assert msgspec.to_builtins(choose(place, FIRST))["lake"] == {"tables": {}, "offsets": {"events/0": 5}}
