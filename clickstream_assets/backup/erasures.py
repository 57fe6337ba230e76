"""Erasures since a backup: the newest backup of the same place says where the records of these persons are."""

from __future__ import annotations

from psycopg import sql

from clickstream_assets.backup.databases import copy_in
from clickstream_assets.backup.manifest import Backup, check, newest
from clickstream_assets.backup.place import Place
from clickstream_assets.catalogue import ITEM_KEY
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.erased_places import erase_known
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.erasures import by_erasure

_PLACES = "erased_places"


def erase_since(settings: Settings, place: Place, backup: Backup) -> dict[int, int]:
    """Erase from stores that a backup was put back into who was erased after it, as far as the place knows.

    Returns:
        By the erasure's number, how many records of it the lake had.

    Raises:
        BackupError: a file of the newest backup is damaged.
    """
    latest = newest(place)
    if latest is None or latest.name == backup.name or _PLACES not in latest.postgres.tables:
        return {}
    copied = latest.postgres.tables[_PLACES]
    check(place, latest, copied.file, place.digest(copied.file))
    with explained(settings), connect(settings) as connection:
        connection.execute(f"CREATE TEMPORARY TABLE later (LIKE {_PLACES}) ON COMMIT DROP")
        copy_in(connection, "later", copied, place, latest)
        rows = connection.execute(
            sql.SQL(
                "SELECT erasure, {} FROM later WHERE NOT EXISTS (SELECT FROM erasures AS known "
                "WHERE known.erasure = later.erasure AND known.erased_at IS NOT NULL)"
            ).format(sql.SQL(", ").join(map(sql.Identifier, ITEM_KEY)))
        ).fetchall()
    if not rows:
        return {}
    return erase_known(Lake(settings.lake, DuckDBEngine(settings)), settings, by_erasure(rows))
