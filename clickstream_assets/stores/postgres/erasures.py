"""Requests to erase persons: who is not to be served any more, how far each has come, and which records were theirs.

Whoever is asked to be erased is gone from the served tables with the request, in one transaction. Until all is done a
publication leaves them out, whatever the lake has of them still (`publishing.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from clickstream_assets.catalogue import ERASED_RECORDS, ITEM_KEY, SERVED_TABLES, Table
from clickstream_assets.catalogue.who import PERSON_COLUMNS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.postgres.connection import connect, explained

VISITOR_COLUMN = "anonymous_id"
"""The column of tables that names a visitor as their sender does."""


@dataclass(frozen=True)
class Erasure:
    """A request that is not done yet."""

    number: int
    persons: tuple[str, ...]
    asked_at: datetime
    erased_at: datetime | None
    """When their records were gone from the lake; None before."""


def ask(
    settings: Settings, persons: Collection[str], visitors: Collection[str]
) -> tuple[int, dict[str, int]]:
    """Keep a request, and take the persons out of the served tables: both or neither.

    Args:
        settings: say where the database is.
        persons: as tables name them.
        visitors: their anonymous ids, as their sender names them.

    Returns:
        The request's number, and how many rows each table has lost, by its name there; only tables that have some.

    Raises:
        PostgresError: the database cannot be reached, or does not carry it out.
    """
    with explained(settings), connect(settings) as connection:
        row = connection.execute(
            "INSERT INTO erasures (persons) VALUES (%s) RETURNING erasure", [sorted(persons)]
        ).fetchone()
        assert row is not None
        return int(row[0]), _delete(connection, persons, visitors)


def _delete(
    connection: psycopg.Connection, persons: Collection[str], visitors: Collection[str]
) -> dict[str, int]:
    """Delete the rows of persons; return how many each served table has lost."""
    lost = {
        name: connection.execute(sql.SQL("DELETE ") + theirs).rowcount
        for name, theirs in _theirs(persons, visitors).items()
    }
    return {name: rows for name, rows in lost.items() if rows}


def numbers(settings: Settings) -> set[int]:
    """Return the numbers of all requests."""
    with explained(settings), connect(settings) as connection:
        return {number for (number,) in connection.execute("SELECT erasure FROM erasures")}


def take_over(
    settings: Settings,
    number: int,
    places: pa.Table,
    *,
    persons: Collection[str] = (),
    visitors: Collection[str] = (),
    is_done: bool = False,
) -> None:
    """Keep a request that this database has forgotten, as it was put back, and delete its persons' rows; repeatable.

    Args:
        settings: say where the database is.
        number: the request's.
        places: ITEM_KEY of each of its records, which are gone from the lake, or about to go.
        persons: as `ask` takes them.
        visitors: as `ask` takes them.
        is_done: nothing is left to be done for it.
    """
    with explained(settings), connect(settings) as connection:
        connection.execute(
            "INSERT INTO erasures (erasure, persons, done_at) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, %s, CASE WHEN %s THEN now() END) "
            "ON CONFLICT (erasure) DO UPDATE SET persons = excluded.persons",
            [number, None if is_done else sorted(persons), is_done],
        )
        # The next request has a number of its own.
        connection.execute(
            "SELECT nextval(its) FROM pg_get_serial_sequence('erasures', 'erasure') AS sequence(its), "
            "generate_series(coalesce(pg_sequence_last_value(its::regclass), 0) + 1, "
            "(SELECT max(erasure) FROM erasures))"
        )
        _delete(connection, persons, visitors)
    keep_places(settings, {number: places})


def count(settings: Settings, persons: Collection[str], visitors: Collection[str]) -> dict[str, int]:
    """Count the rows of persons by served table; only tables that have some."""
    with explained(settings), connect(settings) as connection:
        found = {}
        for name, theirs in _theirs(persons, visitors).items():
            row = connection.execute(sql.SQL("SELECT count(*) ") + theirs).fetchone()
            found[name] = int(row[0]) if row else 0
    return {name: rows for name, rows in found.items() if rows}


def rows(
    settings: Settings, persons: Collection[str], visitors: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of persons by served table; only tables that have some."""
    with (
        explained(settings),
        connect(settings) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        found = {
            name: cursor.execute(sql.SQL("SELECT * ") + theirs).fetchall()
            for name, theirs in _theirs(persons, visitors).items()
        }
    return {name: its for name, its in found.items() if its}


def served_tables() -> list[Table]:
    """Return the served tables of which rows are a person's."""
    return [table for table in SERVED_TABLES if {*PERSON_COLUMNS, VISITOR_COLUMN} & table.by_name.keys()]


def _theirs(persons: Collection[str], visitors: Collection[str]) -> dict[str, sql.Composed]:
    """Return FROM and WHERE of the rows of persons, by served table."""
    found = {}
    for table in served_tables():
        conditions = [
            sql.SQL("{} = ANY({})").format(sql.Identifier(name), [*values])
            for names, values in ((PERSON_COLUMNS, persons), ((VISITOR_COLUMN,), visitors))
            for name in names
            if name in table.by_name
        ]
        found[table.served_name] = sql.SQL("FROM {} WHERE {}").format(
            sql.Identifier(table.served_name), sql.SQL(" OR ").join(conditions)
        )
    return found


def unfinished(settings: Settings) -> list[Erasure]:
    """Return the requests that are not done, in order."""
    with explained(settings), connect(settings) as connection:
        rows = connection.execute(
            "SELECT erasure, persons, asked_at, erased_at FROM erasures WHERE done_at IS NULL ORDER BY erasure"
        ).fetchall()
    return [Erasure(row[0], tuple(row[1] or ()), row[2], row[3]) for row in rows]


def keep_places(settings: Settings, places: Mapping[int, pa.Table]) -> None:
    """Keep where the records of requests were, and that these are gone from the lake; can be repeated."""
    names = sql.SQL(", ").join(map(sql.Identifier, ITEM_KEY))
    with explained(settings), connect(settings) as connection:
        for number, its in places.items():
            with connection.cursor() as cursor:
                cursor.executemany(
                    sql.SQL(
                        "INSERT INTO erased_places ({}, erasure) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
                    ).format(names),
                    [(*row.values(), number) for row in its.select(ITEM_KEY).to_pylist()],
                )
            connection.execute(
                "DELETE FROM rejected_samples AS sample USING erased_places AS gone WHERE gone.erasure = %s "
                'AND (sample.topic, sample.partition, sample."offset") = (gone.topic, gone.partition, gone."offset")',
                [number],
            )
            connection.execute(
                "UPDATE erasures SET erased_at = coalesce(erased_at, now()) WHERE erasure = %s", [number]
            )


def all_places(settings: Settings) -> dict[int, pa.Table]:
    """Return where the records of requests were, by the request's number: ITEM_KEY of each."""
    with explained(settings), connect(settings) as connection:
        rows = connection.execute(
            'SELECT erasure, topic, partition, "offset", item FROM erased_places'
        ).fetchall()
    return by_erasure(rows)


def by_erasure(rows: Iterable[tuple[Any, ...]]) -> dict[int, pa.Table]:
    """Return places by the number of their request: ITEM_KEY of each.

    Args:
        rows: the number and ITEM_KEY of each.
    """
    number_of = itemgetter(0)
    return {
        number: _places(its).select(ITEM_KEY)
        for number, its in groupby(sorted(rows, key=number_of), number_of)
    }


def _places(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * (1 + len(ITEM_KEY))
    types = (pa.int64(), *(ERASED_RECORDS.arrow.field(name).type for name in ITEM_KEY))
    return pa.table(
        {
            name: pa.array(its, kind)
            for name, its, kind in zip(("erasure", *ITEM_KEY), columns, types, strict=True)
        }
    )


def places_among(settings: Settings, offsets: Mapping[TopicPartition, tuple[int, int]]) -> pa.Table:
    """Return where records of requests were, of those from a first to a last offset of some partitions.

    Returns:
        `erasure` and ITEM_KEY of each.
    """
    first, last = ([its[place] for its in offsets.values()] for place in (0, 1))
    topics, partitions = ([partition[place] for partition in offsets] for place in (0, 1))
    with explained(settings), connect(settings) as connection:
        rows = connection.execute(
            'SELECT gone.erasure, gone.topic, gone.partition, gone."offset", gone.item '
            "FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[]) AS asked(topic, partition, first, last) "
            "JOIN erased_places AS gone USING (topic, partition) "
            'WHERE gone."offset" BETWEEN asked.first AND asked.last',
            [topics, partitions, first, last],
        ).fetchall()
    return _places(rows)


def add_to_receipt(
    settings: Settings, parts: Mapping[int, Mapping[str, Any]], *, is_done: bool = False
) -> None:
    """Add to what was done, by the requests' numbers: nothing in it is of a person.

    Args:
        settings: say where the database is.
        parts: what there is to say; a name that was there before has another value then.
        is_done: nothing is left to be done for these: from now on their persons are published again, as new ones.
    """
    with explained(settings), connect(settings) as connection:
        for number, part in parts.items():
            connection.execute(
                "UPDATE erasures SET receipt = coalesce(receipt, '{}') || %s, "
                "done_at = CASE WHEN %s THEN now() ELSE done_at END WHERE erasure = %s",
                [Jsonb(dict(part)), is_done, number],
            )


def receipts(settings: Settings, number: int | None = None) -> list[dict[str, Any]]:
    """Return what was done for requests, or for one: its number, when it was asked for and how far it has come."""
    with (
        explained(settings),
        connect(settings) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(
            "SELECT erasure, asked_at, erased_at, done_at, receipt FROM erasures "
            "WHERE %(number)s::bigint IS NULL OR erasure = %(number)s ORDER BY erasure",
            {"number": number},
        ).fetchall()


def forget(settings: Settings) -> None:
    """Forget whom requests were about that are done.

    A process of the API that starts reads the last RECENT_MINUTES from Kafka, and leaves out who has asked since.
    """
    with explained(settings), connect(settings) as connection:
        connection.execute(
            "UPDATE erasures SET persons = NULL "
            "WHERE done_at IS NOT NULL AND asked_at < now() - make_interval(mins => %s)",
            [settings.recent_minutes],
        )


def without_erased(connection: psycopg.Connection, table: Table, rows: sql.Identifier) -> None:
    """Delete rows of persons whose erasure is not done from a table that has the columns of another."""
    persons = sql.SQL("SELECT unnest(persons) FROM erasures WHERE done_at IS NULL")
    for name in PERSON_COLUMNS:
        if name in table.by_name:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE {} IN ({})").format(rows, sql.Identifier(name), persons)
            )
