"""`clickstream export` and `clickstream erase`: what is held of a person, and that it is held no more."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.ingest.erasure import Identified
    from clickstream_assets.stores.lake import Lake

_PERSON = "A user id; of a visitor who has none, anonymous: or session: and that id."
_NOT_COVERED = "what was sent by mail or to webhooks, and logs of servers"


def export_command(person: Annotated[str, typer.Argument(help=_PERSON)]) -> None:
    """Write all that is held of PERSON to stdout, as one JSON object.

    By store and table: their records as they came, what was made of
    them, and what is served. A person is all ids that are tied to them.
    """
    settings = load_settings()
    lake = _lake(settings)
    who = _identified(lake, [person], settings)
    from clickstream_assets.ingest.person_export import as_json, rows_of_person
    from clickstream_assets.stores.elasticsearch import LiveEvents
    from clickstream_assets.stores.postgres import pseudonyms
    from clickstream_assets.stores.postgres.erasures import rows as served_rows

    live = LiveEvents(settings)
    held = {
        "person": person,
        "ids": {
            "users": sorted(who.users),
            "anonymous_ids": sorted(who.visitors),
            "session_ids": sorted(who.sessions),
            "shared_anonymous_ids": sorted(who.shared),
        },
        "lake": {table.name: as_json(rows) for table, rows in rows_of_person(lake, who, settings)},
        "postgres": served_rows(settings, who.persons, who.visitors),
        "elasticsearch": live.events_of(who.users, who.visitors, who.sessions),
    }
    if settings.pseudonyms:
        held["pseudonyms"] = pseudonyms.rows(settings, who.users | who.visitors | who.sessions)
    typer.echo(json.dumps(held, default=str, ensure_ascii=False))


def erase_command(
    persons: Annotated[list[str] | None, typer.Argument(help=_PERSON, metavar="[PERSON]...")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of persons, one a line.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Erase nothing; say what there is.")] = False,
) -> None:
    """Erase PERSON: all that is held of them, under all ids that are tied to them.

    PostgreSQL and Elasticsearch forget them at once, and so does the API.
    Dagster's job `erase` takes their records out of the lake at night, or
    when you start it; the days that have lost some, and then the models, are
    made anew without them. Who comes back later is a new person.

    The last line on stdout is one JSON object: the rows of each store.
    """
    named = [*(persons or []), *(_lines(file) if file else [])]
    if not named:
        raise InputError("Name a person, or a file of persons with --file")
    settings = load_settings()
    lake = _lake(settings)
    who = _identified(lake, named, settings)
    from clickstream_assets.ingest.person_export import rows_of_person
    from clickstream_assets.stores.elasticsearch import LiveEvents
    from clickstream_assets.stores.postgres import erasures

    live = LiveEvents(settings)
    said: dict[str, Any] = {"persons": len(set(named)), "ids": len(who.ids), "shared_ids": len(who.shared)}
    if dry_run:
        served = erasures.count(settings, who.persons, who.visitors)
        events = len(live.events_of(who.users, who.visitors, who.sessions))
    else:
        number, served = erasures.ask(settings, who.persons, who.visitors)
        events = live.erase(who.users, who.visitors, who.sessions)
        said = {"erasure": number, **said}
        typer.echo(
            "PostgreSQL and Elasticsearch have nothing of them any more. The lake follows with Dagster's job erase, at "
            f"02:30 of {settings.shop_time_zone} or when you start it; `clickstream erasures {number}` says how far it "
            f"is, and until when Kafka and backups have them. Not covered: {_NOT_COVERED}."
        )
    # Last, as it takes longest: what is served has to be gone in seconds.
    in_lake = {table.name: rows.num_rows for table, rows in rows_of_person(lake, who, settings)}
    said |= {"lake": in_lake, "postgres": served, "elasticsearch": events}
    if not dry_run:
        rows_before = {name: said[name] for name in ("ids", "lake", "postgres", "elasticsearch")}
        erasures.add_to_receipt(settings, {number: {"rows_before": rows_before, "not_covered": _NOT_COVERED}})
    typer.echo(json.dumps(said))


def erasures_command(
    number: Annotated[int | None, typer.Argument(help="Number of a request.", show_default="all")] = None,
) -> None:
    """Show the receipts of erasures: what each has taken away so far, and where the person is for how long.

    One JSON object a line. Nothing in a receipt is of a person.
    """
    from clickstream_assets.stores.postgres.erasures import receipts

    found = receipts(load_settings(), number)
    if number is not None and not found:
        raise InputError(f"There is no erasure {number}; `clickstream erasures` shows those that there are")
    for row in found:
        receipt = row.pop("receipt") or {}
        typer.echo(json.dumps(row | receipt, default=str))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {error}. Name a text file of persons, one a line"
        ) from error


def _lake(settings: Settings) -> "Lake":
    # Imported here, so that `clickstream --help` need not wait for DuckDB.
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.stores.lake import Lake

    return Lake(settings.lake, DuckDBEngine(settings))


def _identified(lake: "Lake", persons: list[str], settings: Settings) -> "Identified":
    from clickstream_assets.ingest.erasure import identify, refuse_shared
    from clickstream_assets.stores.postgres.pseudonyms import kept_persons

    kept = kept_persons(settings, persons)
    refuse_shared(lake, kept)
    return identify(lake, kept)
