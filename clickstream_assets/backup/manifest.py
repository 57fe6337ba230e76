"""Description that a backup has of itself, in `backup.json`: written last, so that a backup without one is none.

A place that holds backups has for each a folder named by its time, and one folder `files` for all of them with the data
files of the lake's tables: these never change, so a file that an earlier backup has is not copied again.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import msgspec

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.place import Counting, Place, Written, each

MANIFEST = "backup.json"
BEGUN = "begun.json"
"""In the folder of a backup from its beginning on."""
PRUNING = "pruning.json"
"""In a place while old backups of it are deleted."""
FILES = "files"
FORMAT = 1
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}Z")


class LakeTable(msgspec.Struct, frozen=True):
    """A table of the lake: its version, and how many rows that has."""

    version: int
    rows: int


class Lake(msgspec.Struct, frozen=True):
    """The lake: its tables by name, and by topic and partition the next offset that it has not."""

    tables: dict[str, LakeTable]
    offsets: dict[str, int]


class CopiedTable(msgspec.Struct, frozen=True):
    """A table of a database: the columns in the order of its file, its rows, and the file, by its path in the place."""

    columns: list[str]
    rows: int
    file: str


class Database(msgspec.Struct, frozen=True):
    """A database: the revision of its tables, the tables by name, and by `table.column` the last number that was given.

    A sequence that has given none yet is not named.
    """

    revision: str
    tables: dict[str, CopiedTable]
    sequences: dict[str, int]


class Stream(msgspec.Struct, frozen=True):
    """The stream of windows: its checkpoint's folder, and how far PostgreSQL has it."""

    checkpoint: str
    generation: int
    batch_id: int
    offsets: dict[str, int]


class Stored(msgspec.Struct, frozen=True):
    """A file: bytes, and SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup.

    Attributes:
        format: Version of this form.
        product: Version of the product that made it.
        name: Its folder.
        began_at: When it was begun.
        ended_at: When all files were there.
        lake: The lake.
        topics: Kafka's id of each topic; None where Kafka has none.
        stream: The stream; None before its first start.
        postgres: The served tables' database.
        dagster: Dagster's database; None where Dagster has none in PostgreSQL.
        files: All files, by their paths in the place.
    """

    format: int
    product: str
    name: str
    began_at: datetime
    ended_at: datetime
    lake: Lake
    topics: dict[str, str | None]
    stream: Stream | None
    postgres: Database
    dagster: Database | None
    files: dict[str, Stored]


class _Sealed(msgspec.Struct):
    """The manifest with its own checksum."""

    sha256: str
    backup: msgspec.Raw


def new_name(place: Place, now: datetime) -> str:
    """Return the name of a new backup.

    Raises:
        BackupError: the place has other files, or a backup of this second.
    """
    entries = place.entries()
    if others := [name for name in entries if name not in (FILES, PRUNING) and not _NAME.fullmatch(name)]:
        raise BackupError(
            f"{place.uri} holds other files than backups, such as {others[0]}; name a new folder, or one that earlier "
            "backups are in"
        )
    name = f"{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"
    if name in entries:
        raise BackupError(f"{place.uri} has a backup {name} already; run it again a second later")
    return name


def seal(place: Place, backup: Backup) -> None:
    """Write the manifest, and with it make the files a backup."""
    raw = msgspec.json.format(msgspec.json.encode(backup), indent=1)
    sealed = _Sealed(hashlib.sha256(raw).hexdigest(), msgspec.Raw(raw))
    place.write(f"{backup.name}/{MANIFEST}", msgspec.json.encode(sealed) + b"\n")


def names(place: Place) -> tuple[list[str], list[str]]:
    """Return the names of the backups of a place, oldest first, and of folders that a backup has only begun."""
    found = [name for name in place.entries() if _NAME.fullmatch(name)]
    whole = [name for name in found if MANIFEST in place.entries(name)]
    return whole, [name for name in found if name not in whole]


def newest(place: Place) -> Backup | None:
    """Return the newest backup of a place; None where there is none."""
    whole, _ = names(place)
    return read(place, whole[-1]) if whole else None


def choose(place: Place, which: str | None) -> Backup:
    """Return a backup of a place: the newest, or the one of a name.

    Raises:
        BackupError: it is not there, was not finished, or its manifest is damaged.
    """
    whole, begun = names(place)
    if which in begun:
        raise BackupError(
            f"{place.uri}/{which} has no {MANIFEST}: that backup was not finished, so it is none. "
            + (f"Name another by --which: {', '.join(whole)}" if whole else "Make a new one")
        )
    if not whole:
        unfinished = f"; {begun[-1]} has no {MANIFEST}, so it was not finished" if begun else ""
        raise BackupError(
            f"{place.uri} has no backup{unfinished}. Name the folder that `clickstream backup` was given"
        )
    if which is not None and which not in whole:
        raise BackupError(f"{place.uri} has no backup {which}; name one of {', '.join(whole)}")
    return read(place, which or whole[-1])


def read(place: Place, name: str) -> Backup:
    """Read a manifest.

    Raises:
        BackupError: it is damaged, or of a later version of the product.
    """
    path = f"{name}/{MANIFEST}"
    fix = "Name another backup by --which"
    try:
        sealed = msgspec.json.decode(place.read(path) or b"", type=_Sealed)
        raw = bytes(sealed.backup)
        if hashlib.sha256(raw).hexdigest() != sealed.sha256:
            raise BackupError(f"{place.uri}/{path} is damaged: its checksum is another. {fix}")
        written = msgspec.json.decode(raw, type=dict)["format"]
        if written != FORMAT:
            raise BackupError(
                f"{place.uri}/{path} has format {written}, and this version of the product reads {FORMAT}: it was made "
                "by another. Install the version that made it, or a later one"
            )
        return msgspec.json.decode(raw, type=Backup)
    except (msgspec.DecodeError, KeyError) as error:
        raise BackupError(f"{place.uri}/{path} is damaged: {error}. {fix}") from error


def verify(place: Place, backup: Backup, counting: Counting) -> None:
    """Read all files of a backup.

    Raises:
        BackupError: one is missing, or is not as it was written.
    """
    sizes = {name: file.size for name, file in backup.files.items()}

    def look(name: str) -> None:
        try:
            check(place, backup, name, place.digest(name))
        except FileNotFoundError:
            raise BackupError(
                f"{place.uri}/{name} is missing, which backup {backup.name} needs; name another by --which"
            ) from None

    each(look, backup.files, sizes, counting, "Verifying")


def check(place: Place, backup: Backup, name: str, read: Written) -> None:
    """Compare a file as it was read with what the manifest says of it.

    Raises:
        BackupError: it is another.
    """
    file = backup.files[name]
    if read == Written(file.size, file.sha256):
        return
    what = (
        f"has {read.size:,} bytes and had {file.size:,}"
        if read.size != file.size
        else "has another checksum than when it was written"
    )
    raise BackupError(
        f"{place.uri}/{name} is damaged: it {what}. Backup {backup.name} cannot be put back; name another by --which"
    )
