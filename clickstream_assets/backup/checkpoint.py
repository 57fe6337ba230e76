"""The streams' checkpoints, in the order that makes a copy of it one that a kill could have left."""

from __future__ import annotations

from clickstream_assets.backup.manifest import Backup, check
from clickstream_assets.backup.place import Place, Written, each, uncounted
from clickstream_assets.engine.spark_private import COMMITS, OFFSETS

FOLDER = "checkpoints"


def copy_checkpoint(checkpoints: Place, name: str, to: Place, folder: str) -> dict[str, Written]:
    """Copy the checkpoint of a query, which may be running.

    Args:
        checkpoints: The folder of all checkpoints.
        name: This one's.
        to: Where to.
        folder: Path of the backup's folder there.

    Returns:
        Its files, by their paths in `to`.
    """
    # A batch is planned in OFFSETS, then brings its state along, then is done in COMMITS. Listed the other way round, a
    # batch that is done in the copy has its state and its plan there. What else comes in meanwhile is of the batch
    # after it, which a stream that begins here runs again.
    files = checkpoints.files(f"{name}/{COMMITS}")
    files = {f"{COMMITS}/{file}": found for file, found in files.items()}
    files |= {f"{OFFSETS}/{file}": found for file, found in checkpoints.files(f"{name}/{OFFSETS}").items()}
    others = checkpoints.files(name)
    files |= {
        file: found for file, found in others.items() if file.partition("/")[0] not in (COMMITS, OFFSETS)
    }
    sizes = {file: found.size for file, found in files.items() if _is_needed(file)}

    def copy(file: str) -> Written | None:
        try:
            return checkpoints.copy(f"{name}/{file}", to, f"{folder}/{FOLDER}/{name}/{file}")
        except FileNotFoundError:
            # Spark deletes what twenty batches have come after.
            return None

    copied = each(copy, sizes, sizes, uncounted, "Copying the checkpoint")
    return {f"{folder}/{FOLDER}/{name}/{file}": its for file, its in copied.items() if its}


def _is_needed(file: str) -> bool:
    name = file.rpartition("/")[2]
    # Half-written files, and Hadoop's checksums, which may be of a file's next version by the time they are copied.
    return not name.endswith((".tmp", ".crc"))


def put_back_checkpoints(place: Place, backup: Backup, checkpoints: Place) -> None:
    """Write the checkpoints of a backup to where checkpoints are.

    Raises:
        BackupError: a file of the backup is damaged.
    """
    folder = f"{backup.name}/{FOLDER}/"
    for name in backup.files:
        if name.startswith(folder):
            check(place, backup, name, place.copy(name, checkpoints, name.removeprefix(folder)))
