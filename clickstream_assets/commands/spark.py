"""`clickstream spark cluster / connect`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from clickstream_assets.settings import load_settings

spark_app = typer.Typer(no_args_is_help=True, help="Spark in processes of its own on this machine.")


@spark_app.command()
def cluster(
    workers: Annotated[int, typer.Option(min=1, help="How many worker processes.")] = 2,
    cores: Annotated[int, typer.Option(min=1, help="Cores that each of them offers.")] = 2,
) -> None:
    """A standalone cluster, until Ctrl-C; says what SPARK_MASTER is to be."""
    from clickstream_assets.local.spark import standalone_cluster

    settings = load_settings()
    folder = settings.clickstream_home.absolute() / "spark"
    with _until_stopped(), standalone_cluster(settings, folder, workers, cores) as running:
        typer.echo(f"SPARK_MASTER={running.master}")
        typer.echo(f"The master's page: {running.page}; the executors' logs: {folder}", err=True)
        _stay(running.check)


@spark_app.command()
def connect(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on loopback.")] = 15002,
) -> None:
    """A Spark Connect server on SPARK_MASTER or this machine's cores, until Ctrl-C; says what SPARK_REMOTE is to be."""
    from clickstream_assets.local.spark import connect_server

    settings = load_settings()
    folder = settings.clickstream_home.absolute() / "spark"
    with _until_stopped(), connect_server(settings, folder, port) as (remote, server):
        typer.echo(f"SPARK_REMOTE={remote}")
        _stay(server.check)


def _stay(check: Callable[[], None]) -> None:
    while True:
        check()
        time.sleep(1)


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block, and what it has started; Ctrl-C is how it is meant to end."""
    from clickstream_assets.local.children import exit_on_sigterm

    with suppress(KeyboardInterrupt), exit_on_sigterm():
        yield
