"""`clickstream incidents list` and `clickstream incidents test`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import typer

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from clickstream_assets.defs.incidents.record import Record

incidents_app = typer.Typer(
    help="What is wrong with the pipeline, who is told of it, and a test message.", no_args_is_help=True
)


@incidents_app.command("list")
def list_command() -> None:
    """Show the open incidents, the silences, and how telling people goes."""
    from clickstream_assets.defs.incidents.delivery import addresses
    from clickstream_assets.defs.incidents.messages import clock
    from clickstream_assets.defs.incidents.record import is_silenced

    settings = load_settings()
    now = time.time()
    record = _record(settings)
    opened = record.open()
    typer.echo(f"{len(opened)} {'incident is' if len(opened) == 1 else 'incidents are'} open.")
    for incident in opened:
        problem = incident.problem
        silenced = " (silenced)" if is_silenced(problem, now, settings) else ""
        typer.echo(f"{clock(incident.since, settings)}  {problem.severity}  {problem.name}{silenced}")
        typer.echo(f"    {' '.join(problem.reason.split())}")
    _show_silences(settings, record, now)
    for name in addresses(settings):
        route = record.routes.get(name)
        if route and route.last_error:
            again = clock(route.next_attempt, settings)
            typer.echo(f"Told: {name}: waits, {route.last_error}; next attempt at {again}")
        elif route and route.last_taken:
            typer.echo(f"Told: {name}, last at {clock(route.last_taken, settings)}")
        else:
            typer.echo(f"Told: {name}")
    if not addresses(settings):
        typer.echo("Nobody is told: INCIDENT_TO and INCIDENT_WEBHOOK_URLS are not set.")


@incidents_app.command("test")
def test_command() -> None:
    """Send a test message to everybody who is told of incidents, and say what became of it."""
    from clickstream_assets.defs.incidents.delivery import senders
    from clickstream_assets.defs.incidents.record import Message, Record
    from clickstream_assets.errors import ClickstreamError

    settings = load_settings()
    failed = []
    with senders(settings) as opened:
        if not opened:
            raise SettingsError(
                "INCIDENT_TO and INCIDENT_WEBHOOK_URLS are not set, so nobody is told of incidents; set one of them"
            )
        for name, send in opened.items():
            try:
                send(Message(id=uuid4().hex, created=time.time()))
            except ClickstreamError as error:
                failed.append(name)
                typer.echo(f"{name}: not taken: {error}")
            else:
                typer.echo(f"{name}: taken")
    _show_silences(settings, Record(), time.time())
    if failed:
        raise InputError(f"{len(failed)} of {len(opened)} did not take the test message")


def _show_silences(settings: Settings, record: Record, now: float) -> None:
    moment = datetime.fromtimestamp(now, settings.incident_zone)
    for silence in settings.silences:
        covered = [i.problem.name for i in record.open() if silence.covers(i.problem.kind, i.problem.subject)]
        state = "now" if silence.is_active(moment) else "not now"
        open_ones = f": {', '.join(covered)}" if covered else ""
        typer.echo(f"Silenced, {state}: {silence.text}{open_ones}")


def _record(settings: Settings) -> Record:
    """Read the record that the sensor keeps in Dagster's storage."""
    from dotenv import load_dotenv

    from clickstream_assets.defs.incidents.keeping import kept
    from clickstream_assets.defs.instances import dagsters_instance

    # Dagster's instance is configured with variables that the settings only read from the file.
    load_dotenv(".env")
    with dagsters_instance(settings) as instance:
        return kept(instance)
