"""`clickstream demo`."""

import json
import shutil
import textwrap
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickstream_assets.commands.simulate import AnywayOption, MapOption, SetOption, TimeOfDayOption
from clickstream_assets.settings import load_settings

if TYPE_CHECKING:
    from clickstream_assets.local.sights import Sight


def demo(
    once: Annotated[
        bool, typer.Option(help="In a temporary home on free ports; stop when the API has served.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(
            help="A file to replay instead of simulated events: any that `clickstream replay` reads."
        ),
    ] = None,
    mapped: MapOption = None,
    fixed: SetOption = None,
    time_of_day: TimeOfDayOption = None,
    anyway: AnywayOption = False,
    count: Annotated[int, typer.Option(min=1, help="How many events to simulate.")] = 20_000,
    faults: Annotated[
        float,
        typer.Option(min=0, max=0.2, help="Share each of late, repeated, contradicting and broken records."),
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the simulated events.")] = 42,
    timeout: Annotated[
        int, typer.Option(min=1, help="Seconds until the recommendations have to be there.")
    ] = 600,
) -> None:
    """From nothing to a served recommendation, on DAGSTER_PORT and API_PORT.

    Stdout has one line, a JSON object of counts: with --once at the end, else
    before it stays up until Ctrl-C.
    """
    from clickstream_assets.ingest.files import Columns, EventFile
    from clickstream_assets.ingest.first_look import in_words, look_at_file, require_events
    from clickstream_assets.local.children import exit_on_sigterm
    from clickstream_assets.local.demo import Demo, demo_home, say

    started = time.monotonic()
    file = first = None
    try:
        if events:
            # Looked at first: nobody should wait for the servers to learn of a misspelt name, or of a wrong file.
            file = EventFile(events, Columns.of(mapped or (), fixed or (), time_of_day))
            look = look_at_file(load_settings(), file)
            # Without a valid event there is nothing to wait for.
            require_events(file, look, anyway=anyway and look.events > 0)
            say(in_words(file, look), started)
            first = look.first_day
        with exit_on_sigterm(), demo_home(once) as home, ExitStack() as stack:
            run = Demo(home, once, stack, started, file, first)
            sent, made = run.feed(file, count, faults, seed)
            run.start_readers()
            run.wait(sent, timeout)
            result = run.result(sent, made)
            line = json.dumps(result, default=str)
            found, further = run.sights(result)
            if once:
                _show(found, with_commands=False)
                say("stopping; `make demo` keeps all of it up to be looked at", started)
            else:
                # Before what is for people, which is to stand last on a terminal.
                typer.echo(line)
                _show([*found, *further])
                say("all of it is up until Ctrl-C; its data stay, and the next demo adds to them:", started)
                typer.echo(f"  {home}", err=True)
                run.stay_up()
        # When the servers have stopped.
        typer.echo(line)
    except KeyboardInterrupt:
        say("stopped", started)
        if once:
            # Who waits for the JSON object is told that it did not come.
            raise typer.Exit(130) from None


def _show(sights: "Iterable[Sight]", *, with_commands: bool = True) -> None:
    """Print on stderr what there is to see, and how."""
    typer.echo("\nWhat there is to see:\n", err=True)
    width = shutil.get_terminal_size((120, 24)).columns
    for sight in sights:
        found = f"{sight.title}: {sight.found}"
        typer.echo(textwrap.fill(found, width, subsequent_indent="  ", break_on_hyphens=False), err=True)
        for line in sight.show if with_commands else []:
            typer.echo(f"    {line}", err=True)
    typer.echo("", err=True)
