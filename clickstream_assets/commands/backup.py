"""`clickstream backup` and `clickstream restore`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clickstream_assets.commands.progress import counting
from clickstream_assets.settings import load_settings

if TYPE_CHECKING:
    from clickstream_assets.backup.manifest import Backup

_say = partial(typer.echo, err=True)


def backup_command(
    target: Annotated[
        str, typer.Argument(help="A new folder, or one with earlier backups; or s3://BUCKET/FOLDER.")
    ],
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Delete older backups of that folder.", show_default="all are kept"
        ),
    ] = None,
) -> None:
    """Copy the lake, PostgreSQL, the stream's checkpoint and Dagster's database, while everything goes on.

    A second backup in the same folder copies only what is new of the
    lake's files. The last line says what was copied, as JSON. With
    --keep, all but the newest N are deleted then; files that these
    share stay.
    """
    # Imported here, so that `clickstream --help` need not wait for DuckDB and Dagster.
    from clickstream_assets.backup.create import back_up
    from clickstream_assets.backup.place import Place
    from clickstream_assets.backup.prune import prune

    _load_dagsters_variables()
    place = _place(target)
    backup = back_up(load_settings(), place, _say, counting)
    deleted = prune(Place(place), keep, _say, counting)._asdict() if keep else None
    _finish(place, backup, deleted)


def restore_command(
    source: Annotated[
        str, typer.Argument(help="The folder, or s3://…, that `clickstream backup` was given.")
    ],
    which: Annotated[
        str | None, typer.Option(metavar="TIME", help="Name of the backup.", show_default="the newest")
    ] = None,
) -> None:
    """Put a backup back into an empty lake, empty databases and an empty folder of checkpoints.

    Everything but the servers is to be stopped. What is killed can be run
    again. The last line says what was put back, as JSON.
    """
    from clickstream_assets.backup.restore import restore

    _load_dagsters_variables()
    place = _place(source)
    _finish(place, restore(load_settings(), place, which, _say, counting))


def _load_dagsters_variables() -> None:
    from dotenv import load_dotenv

    # Dagster's instance is configured with variables that the settings only read from the file.
    load_dotenv(".env")


def _place(text: str) -> str:
    return text if "://" in text else str(Path(text).absolute())


def _finish(place: str, backup: Backup, deleted: dict[str, Any] | None = None) -> None:
    said = _summary(place, backup) | ({} if deleted is None else {"deleted": deleted})
    typer.echo(json.dumps(said, ensure_ascii=False))


def _summary(place: str, backup: Backup) -> dict[str, Any]:
    """Return what a backup has, in figures."""
    databases = {"postgres": backup.postgres, "dagster": backup.dagster}
    return {
        "place": place,
        "backup": backup.name,
        "product": backup.product,
        "began_at": backup.began_at.isoformat(),
        "ended_at": backup.ended_at.isoformat(),
        "files": len(backup.files),
        "bytes": sum(file.size for file in backup.files.values()),
        "lake": {
            name: {"version": table.version, "rows": table.rows} for name, table in backup.lake.tables.items()
        },
        "offsets": backup.lake.offsets,
        "stream_batch": backup.stream.batch_id if backup.stream else None,
        **{
            name: {
                "revision": database.revision,
                "rows": sum(table.rows for table in database.tables.values()),
            }
            if database
            else None
            for name, database in databases.items()
        },
    }
