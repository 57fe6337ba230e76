"""The sign in a lake that a backup is being put back there: it goes when all stores are whole."""

from __future__ import annotations

import msgspec

from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.place import Place

NAME = "restore.json"


class Marker(msgspec.Struct, frozen=True):
    """A return that was begun: of which backup, from where, and the stores that it is for besides the lake."""

    backup: str
    source: str
    checkpoints: str
    postgres: str
    dagster: str | None


def read_marker(lake: Place) -> Marker | None:
    """Return the sign; None where there is none.

    Raises:
        BackupError: it cannot be read.
    """
    written = lake.read(NAME)
    if written is None:
        return None
    try:
        return msgspec.json.decode(written, type=Marker)
    except msgspec.DecodeError as error:
        raise BackupError(
            f"LAKE_PATH={lake.uri} has a file {NAME} that says that a backup is being put back, and cannot be read: "
            f"{error}. Empty the folder and run `clickstream restore`"
        ) from error


def write_marker(lake: Place, marker: Marker) -> None:
    """Put the sign there."""
    lake.write(NAME, msgspec.json.encode(marker) + b"\n")
