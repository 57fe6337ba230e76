"""`clickstream stream`."""

from __future__ import annotations

import logging
import signal
import threading
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.engine import SparkSession


def stream(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Compute windows and alerts anew from the lake, and begin a new checkpoint after them; bring live "
            "events anew from what Kafka has.",
        ),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Bring windows and alerts up to now, and end.")
    ] = False,
) -> None:
    """Windows, flash-sale alerts and live events, always on, until SIGTERM or Ctrl-C."""
    from dotenv import load_dotenv

    from clickstream_assets.stores.start_date import with_start_date

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("clickstream_assets").setLevel(logging.INFO)
    # It prints the stack of every error that crosses from Python to Java; ours say in a line what they are.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # And it logs every attempt to reach a server that is away.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    # Dagster's instance is configured with variables that the settings only read from the file.
    load_dotenv(".env")
    try:
        settings = with_start_date(load_settings())
        if rebuild:
            rebuild_streams(settings)
        elif once:
            _run_once(settings)
        else:
            _run(settings)
    except OSError as error:
        # The disk or the store of the checkpoint, as PyArrow says it.
        raise ClickstreamError(error) from error


def _run(settings: Settings) -> None:
    from clickstream_assets.defs.stream_reports import reporter
    from clickstream_assets.streaming.process import Supervisor
    from clickstream_assets.streaming.source import streaming_session

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    @cache
    def session() -> SparkSession:
        started = streaming_session(settings)
        started.sparkContext.setLogLevel("FATAL")
        # PySpark takes Ctrl-C for a wish to cancel jobs.
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        return started

    Supervisor(settings, session, stop, reporter(settings)).run()
    if session.cache_info().currsize:
        session().stop()


def _run_once(settings: Settings) -> None:
    from clickstream_assets.streaming.process import run_available
    from clickstream_assets.streaming.source import streaming_session

    outcome = run_available(settings, lambda: streaming_session(settings))
    typer.echo(
        f"{outcome.status.rows:,} records read, {outcome.changed_windows:,} rows of windows new or changed in the lake"
    )


def rebuild_streams(settings: Settings) -> None:
    """Make windows, alerts and the checkpoints anew, and say what came of it."""
    from clickstream_assets.defs.resources import ComputeResource, SettingsResource
    from clickstream_assets.stores.lake import Lake
    from clickstream_assets.streaming import live_events
    from clickstream_assets.streaming.owner import ownership
    from clickstream_assets.streaming.rebuild import rebuild

    engine = ComputeResource(settings=SettingsResource()).engine()
    with ownership(settings, "stream --rebuild") as connection:
        # First, so that it may be done again: documents that are there stay, those of later records are replaced.
        live_events.checkpoint_of(settings).remove()
        rebuilt = rebuild(settings, Lake(settings.lake, engine), connection)
    until = f"final up to {rebuilt.floor:%Y-%m-%d %H:%M:%S %Z}" if rebuilt.floor else "the lake has no events"
    typer.echo(
        f"{rebuilt.windows:,} windows and {rebuilt.alerts:,} alerts, {until}. The stream begins at offsets "
        f"{rebuilt.offsets or 'of the earliest records'}, that of live events with the earliest record."
    )
    if rebuilt.lost:
        typer.echo(
            f"The topics of KAFKA_TOPIC do not have {rebuilt.lost:,} events of windows that were open; these windows "
            "are as the lake has them."
        )
