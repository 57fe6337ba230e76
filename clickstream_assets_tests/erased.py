"""Looks for ids in all that is ours: the bytes of every file, and what tables, indices and archives say."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from elasticsearch.helpers import scan
from psycopg import sql

from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.postgres.connection import connect


def texts_in_files(folder: Path) -> str:
    """All that is in files, those of tables read as such: they are compressed."""
    found = []
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            found.append(repr(pq.ParquetFile(path).read().to_pylist()))
        elif path.is_file():
            found.append(path.read_bytes().decode(errors="replace"))
    return " ".join(found)


def in_files(ids: Collection[str], folders: Iterable[Path]) -> list[str]:
    """Return the files that have one of some ids: as they are and, of what is packed, in what it says."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and any(_has(ids, data) for data in _contents(path)):
                found.append(str(path))
    return found


def _contents(path: Path) -> Iterator[bytes]:
    try:
        yield path.read_bytes()
        if path.suffix == ".parquet":
            # Row by row: a value that is split by an encoding is one again.
            for row in pq.ParquetFile(path).read().to_pylist():
                yield repr(row).encode()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield archive.read(name)
    except FileNotFoundError:
        # Deleted meanwhile, by whoever works there.
        return


def _has(ids: Collection[str], data: bytes) -> bool:
    return any(each.encode() in data for each in ids)


def in_database(ids: Collection[str], database: Settings) -> list[str]:
    """Return the tables of a database that have one of some ids in a row."""
    found = []
    with connect(database) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            copied = sql.SQL("COPY (SELECT rows::text FROM {} AS rows) TO STDOUT").format(
                sql.Identifier(name)
            )
            with connection.cursor().copy(copied) as copy:
                # To the end: the connection can do nothing else before.
                if sum(_has(ids, bytes(row)) for row in copy):
                    found.append(str(name))
    return found


def in_documents(ids: Collection[str], settings: Settings) -> list[str]:
    """Return the ids of live events that have one of some ids."""
    live = LiveEvents(settings)
    try:
        live.client.indices.refresh(index=settings.elasticsearch_alias, ignore_unavailable=True)
        hits = scan(live.client, index=settings.elasticsearch_alias, ignore_unavailable=True)
        return [hit["_id"] for hit in hits if _has(ids, json.dumps(hit).encode())]
    finally:
        live.close()
