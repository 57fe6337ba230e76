"""`clickstream demo`."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer


def demo(
    once: Annotated[
        bool, typer.Option(help="In a temporary home on free ports; stop when the API has served.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(help="A file to replay instead of simulated events: .jsonl or CSV, also .gz."),
    ] = None,
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
    """From nothing to a served recommendation; the last line on stdout is one JSON object of counts."""
    from clickstream_assets.ingest.files import EventFile
    from clickstream_assets.local.children import exit_on_sigterm
    from clickstream_assets.local.demo import Demo, demo_home, say

    started = time.monotonic()
    try:
        if events:
            # Looked at first: nobody should wait for the servers to learn of a misspelt name.
            EventFile(events)
        with exit_on_sigterm(), demo_home(once) as home, ExitStack() as stack:
            run = Demo(home, once, stack, started, events)
            sent, made = run.feed(events, count, faults, seed)
            run.wait(sent, timeout)
            result = run.result(sent, made)
            if not once:
                run.stay_up(result)
        # Printed last of all, when the servers have stopped.
        typer.echo(json.dumps(result, default=str))
    except KeyboardInterrupt:
        say("stopped", started)
        if once:
            # Who waits for the JSON object is told that it did not come.
            raise typer.Exit(130) from None
