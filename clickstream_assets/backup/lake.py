"""The lake's tables as they were at one moment, whatever is written to them meanwhile.

The moment is one of the storage's clock: of each table the newest version that was committed by then. Whoever writes a
table because of another commits to it later, so what is in the copy has all that it rests on there too, as if
everything had been killed at that moment. What a kill leaves is what everything here goes on from.

Older versions that the log still names and whose files are still there are part of it, as runs and `clickstream models
publish` read them. Commits of after the moment are not, nor the files that they brought.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import FILES, Backup, LakeTable, check
from clickstream_assets.backup.place import Counting, Found, Place, Written, each

LOG = "_delta_log"
_COMMIT = re.compile(r"(\d{20})\.json")
# A checkpoint of one file, of several, or with a name of its own.
_LOGGED = re.compile(r"(\d{20})\.(?:json|checkpoint(?:\..+)?\.parquet)")
# The clocks of object stores tell whole seconds. What is committed after this pause has a later one.
_TICK_SECONDS = 1.1


@dataclass(frozen=True)
class Cut:
    """Versions that tables have at one moment.

    Attributes:
        versions: Version of each table, by its name.
        moment: The moment, in nanoseconds since 1970, by the storage's clock.
    """

    versions: Mapping[str, int]
    moment: int


def cut(lake: Place, only: Collection[str] | None = None, besides: Collection[str] = ()) -> Cut:
    """Find out which versions the tables have at one moment.

    Args:
        lake: The lake.
        only: Names of the tables (default: all that there are).
        besides: Names of tables that are left out.
    """

    def commits() -> dict[str, dict[int, int]]:
        names = [name for name in lake.entries() if (only is None or name in only) and name not in besides]
        return {name: found for name in names if (found := _commits(lake, name))}

    before = commits()
    moment = max((found[max(found)] for found in before.values()), default=0)
    # The moment is over: what was committed by then is there by now, and what is committed from now on is later.
    time.sleep(_TICK_SECONDS)
    versions = {}
    for name, found in commits().items():
        # A log that was copied here has times of the copying, in any order; what was there at first counts.
        known = max(before.get(name, {}), default=-1)
        if versions_by_then := [v for v, at in found.items() if v <= known or at <= moment]:
            versions[name] = max(versions_by_then)
    return Cut(versions, moment)


def _commits(lake: Place, table: str) -> dict[int, int]:
    files = lake.files(f"{table}/{LOG}")
    return {
        int(match[1]): file.written_at for name, file in files.items() if (match := _COMMIT.fullmatch(name))
    }


@dataclass(frozen=True)
class Copied:
    """A copied table.

    Attributes:
        table: What the manifest says of it.
        files: All its files, by their paths in the place of the backups.
    """

    table: LakeTable
    files: dict[str, Written]


def copy_table(
    lake: Place,
    name: str,
    version: int,
    moment: int,
    to: Place,
    folder: str,
    known: Mapping[str, Written],
    counting: Counting,
) -> Copied:
    """Copy a table as of a version.

    Args:
        lake: The lake.
        name: The table's.
        version: Its version.
        moment: That of the version, as `Cut` has it.
        to: Where to.
        folder: Path of the backup's folder there.
        known: Files that are there already, by their paths, which an earlier backup has written.
        counting: Opens a count of bytes.

    Raises:
        BackupError: the log is damaged, or upkeep has deleted files meanwhile.
    """
    active, rows = _active(lake, name, version)
    found = {path: file for path, file in lake.files(name).items() if not path.startswith(f"{LOG}/")}
    if missing := sorted(active - found.keys()):
        raise _gone(lake, name, version, missing[0])
    wanted = {path: file for path, file in found.items() if path in active or _is_older(path, file, moment)}
    copied = {
        path: known[path]
        for file, its in wanted.items()
        if (path := f"{FILES}/{name}/{file}") in known and known[path].size == its.size
    }
    new = {file: its.size for file, its in wanted.items() if f"{FILES}/{name}/{file}" not in copied}

    def copy(file: str) -> Written | None:
        try:
            return lake.copy(f"{name}/{file}", to, f"{FILES}/{name}/{file}")
        except FileNotFoundError:
            if file in active:
                raise _gone(lake, name, version, file) from None
            # Of an older version: upkeep has just deleted it.
            return None

    written = each(copy, new, new, counting, f"Copying {name}")
    copied |= {f"{FILES}/{name}/{file}": its for file, its in written.items() if its}
    log = _copy_log(lake, name, version, to, f"{folder}/lake/{name}/{LOG}")
    return Copied(LakeTable(version, rows), copied | log)


def _is_older(path: str, file: Found, moment: int) -> bool:
    """Return whether a file that the version does not have is of an older one, if of any."""
    return path.endswith(".parquet") and file.written_at <= moment


def _active(lake: Place, name: str, version: int) -> tuple[set[str], int]:
    """Return the files of a version, by their paths in the table, and the number of its rows."""
    try:
        table = DeltaTable(f"{lake.uri}/{name}".replace("s3a://", "s3://", 1), version=version)
        files = pa.table(table.get_add_actions(flatten=True))
    except DeltaError as error:
        raise BackupError(
            f"{lake.uri}/{name}: version {version} of the table cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error
    rows = pc.sum(files["num_records"]).as_py() or 0 if files.num_rows else 0
    # The log has paths as parts of URIs.
    return {unquote(path) for path in files["path"].to_pylist()}, rows


def _copy_log(lake: Place, name: str, version: int, to: Place, folder: str) -> dict[str, Written]:
    """Copy the log up to a version. Of its beginning, files may go meanwhile, once a checkpoint says what they say."""
    copied: dict[str, Written] = {}
    for file in sorted(lake.files(f"{name}/{LOG}"), reverse=True):
        match = _LOGGED.fullmatch(file)
        if match is None or int(match[1]) > version:
            continue
        try:
            copied[f"{folder}/{file}"] = lake.copy(f"{name}/{LOG}/{file}", to, f"{folder}/{file}")
        except FileNotFoundError:
            continue
    numbers = [int(match[1]) for path in copied if (match := _COMMIT.fullmatch(path.rpartition("/")[2]))]
    whole = [int(path.rpartition("/")[2].partition(".")[0]) for path in copied if ".checkpoint" in path]
    first = max(whole, default=-1) + 1
    if not set(range(first, version + 1)) <= set(numbers):
        raise BackupError(
            f"{lake.uri}/{name}/{LOG}: commits up to version {version} were deleted while they were copied. Run it "
            "again",
            retryable=True,
        )
    return copied


def _gone(lake: Place, name: str, version: int, file: str) -> BackupError:
    return BackupError(
        f"{lake.uri}/{name}/{file} is gone, which version {version} of the table needs. If upkeep has deleted it while "
        "it was to be copied, raise LAKE_RETENTION_DAYS and run it again; if an ingest has, as with PSEUDONYMS, run it "
        "again; else put the table back from an earlier backup"
    )


def put_back_tables(place: Place, backup: Backup, lake: Place, counting: Counting) -> None:
    """Write the tables of a backup into a lake.

    Raises:
        BackupError: a file of the backup is damaged.
    """
    targets = {name: target for name in backup.files if (target := _target(backup, name))}
    theirs = {*targets.values()}
    # A return that was killed has erased persons since.
    for name in lake.files():
        if f"/{LOG}/" in name and name not in theirs:
            lake.remove(name)

    def copy(name: str) -> None:
        check(place, backup, name, place.copy(name, lake, targets[name]))

    sizes = {name: backup.files[name].size for name in targets}
    # The logs last: a table that can be opened has all its files.
    for is_log, description in (
        (False, "Putting back the lake's files"),
        (True, "Putting back the lake's logs"),
    ):
        each(
            copy,
            [name for name, target in targets.items() if (f"/{LOG}/" in target) is is_log],
            sizes,
            counting,
            description,
        )


def _target(backup: Backup, name: str) -> str | None:
    """Return where a file of a backup belongs in the lake; None where it does not."""
    for folder in (f"{FILES}/", f"{backup.name}/lake/"):
        if name.startswith(folder):
            return name.removeprefix(folder)
    return None
