"""`clickstream tables`: every table with its columns, as Markdown; `docs/tables.md` is its output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from clickstream_assets.catalogue import LIVE_EVENTS, TABLES, Column, Table
from clickstream_assets.settings import load_settings

_INTRODUCTION = """\
# Tables

Every table: what a row is, the key that no two rows share, where it is kept, the route that lists it, and its columns.
Times are UTC. Types are written as Arrow writes them. Under API are the query parameters that filter the API's list of
the table by a column, and "sort" where the list can be sorted by it.

This page is the output of `clickstream tables`, made from `clickstream_assets/catalogue/`."""
_TITLES = ("column", "type", "null", "values", "meaning", "API")


def tables_command(
    migration: Annotated[
        str | None,
        typer.Option(
            metavar="MESSAGE",
            help="Write the migration of this name instead, from the newest one to the tables of the catalogue. "
            "Makes a database on POSTGRES_HOST to compare with, and drops it.",
        ),
    ] = None,
) -> None:
    """Print every table with its columns, as Markdown."""
    if migration is None:
        typer.echo(tables_page(), nl=False)
        return
    # Alembic and SQLAlchemy take half a second that the page need not wait for.
    from clickstream_assets.stores.postgres.migrate import write_migration

    path = write_migration(load_settings(), migration)
    typer.echo(f"Read it, then run `clickstream prepare`: {path}" if path else "There is nothing to change.")


def tables_page() -> str:
    """Return the reference of all tables, in the order of the asset graph."""
    # Flask takes half a second that the other commands need not wait for. Importing the routes makes the lists.
    import clickstream_assets.api.app  # noqa: F401
    from clickstream_assets.api.listing import LISTED

    lines = (line for table in TABLES.values() for line in _section(table, LISTED.get(table.name)))
    return "\n".join([_INTRODUCTION, *lines]) + "\n"


def _section(table: Table, route: str | None) -> Iterator[str]:
    yield f"\n## {table.name}\n"
    yield f"A row is {table.grain}.\n"
    yield f"- Key: {_names(table.key)}"
    if table.day:
        yield f"- Day: `{table.day}`"
    yield f"- Kept in: {' and '.join(_stores(table)) or 'no store; computed where it is used'}"
    if table.served:
        yield from _only_in_postgresql(table)
    if route:
        yield f"- Listed by: `GET {route}`"
    yield ""
    rows = [_cells(column) for column in table.columns]
    filled = [number for number, _ in enumerate(_TITLES) if any(row[number] for row in rows)]
    for row in (_TITLES, ["---"] * len(_TITLES), *rows):
        yield f"| {' | '.join(row[number] for number in filled)} |"


def _stores(table: Table) -> Iterator[str]:
    if table.in_lake:
        yield "the lake"
    if table is LIVE_EVENTS:
        yield "Elasticsearch"
    if table.served:
        renamed = table.served_name != table.name
        yield f"PostgreSQL, as `{table.served_name}`" if renamed else "PostgreSQL"


def _only_in_postgresql(table: Table) -> Iterator[str]:
    served = table.served
    assert served is not None
    extra = [f"`{column.name}` ({column.description.lower()})" for column in served.more]
    if served.surrogate_key:
        extra.insert(0, "`id` (counted by PostgreSQL)")
    if served.stamp:
        extra.append(f"`{served.stamp}` (when the row was inserted or last changed)")
    if extra:
        yield f"- Only in PostgreSQL: {', '.join(extra)}"
    if served.order:
        yield f"- First in PostgreSQL: {_names((*['id'] * served.surrogate_key, *served.order))}"


def _cells(column: Column) -> list[str]:
    api = [f"`{column.parameter}`"] if column.parameter else []
    api += ["`since`", "`until`"] if column.range else []
    api += ["sort"] if column.sort else []
    return [
        f"`{column.name}`",
        f"`{column.type}`",
        "yes" if column.nullable else "no",
        _names(column.values or ()),
        column.description.replace("|", "\\|"),
        ", ".join(api),
    ]


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
