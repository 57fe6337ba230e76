"""`clickstream stack up / down / status` and `clickstream fetch-jars`."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickstream_assets.commands.progress import fetching
from clickstream_assets.engine.jars import Configuration, fetch_jars
from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.files import Progress
    from clickstream_assets.local.stack import Stack

stack_app = typer.Typer(no_args_is_help=True, help="The local Kafka, PostgreSQL and Elasticsearch.")

Home = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the servers' data and logs (default: CLICKSTREAM_HOME).", show_default=False
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="A fixed port (default: a free one, kept).", show_default=False),
]


@stack_app.command()
def up(
    home: Home = None,
    env_file: Annotated[Path, typer.Option(help="Gets the servers' addresses.")] = Path(".env"),
    kafka_port: Port = None,
    postgres_port: Port = None,
    elasticsearch_port: Port = None,
) -> None:
    """Start the servers that do not run, and wait until all are healthy.

    Those that a full disk stops later are started again when it has room.
    """
    from clickstream_assets.local.keeper import start_keeper

    named = {"kafka": kafka_port, "postgres": postgres_port, "elasticsearch": elasticsearch_port}
    ports = {name: port for name, port in named.items() if port}
    with _progress("Starting the local stack") as progress:
        stack = _stack(home, progress)
        stack.up(env_file, _dagster_yaml(), ports)
        start_keeper(stack)
        _prepare(stack.env(), progress)


@stack_app.command()
def down(home: Home = None) -> None:
    """Stop the servers; their data stay."""
    with _progress("Stopping the local stack") as progress:
        _stack(home, progress).down()


@stack_app.command(hidden=True)
def keep(home: Home = None) -> None:
    """Start servers again that a full disk has stopped, until they are stopped by `down`."""
    from clickstream_assets.local.keeper import Keeper

    def say(line: str) -> None:
        # Its log is on the disk that is full.
        with suppress(OSError):
            typer.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}")

    Keeper(_stack(home, say), say).run()


@stack_app.command()
def status(home: Home = None) -> None:
    """Say how the servers are; exits with 1 unless all are healthy."""
    from rich.console import Console
    from rich.table import Table

    from clickstream_assets.local.stack import Condition

    with _progress("Asking the servers") as progress:
        servers = _stack(home, progress).status()
    table = Table("name", "pid", "port", "state")
    for server in servers:
        state = f"{server.condition}: {server.problem}" if server.problem else server.condition
        table.add_row(server.title, str(server.pid or "-"), str(server.port or "-"), state)
    Console().print(table)
    if any(server.condition is not Condition.HEALTHY for server in servers):
        raise typer.Exit(1)


def fetch_jars_command(
    only: Annotated[
        Configuration | None,
        typer.Option(help="A part of them: a cluster's image needs Spark's alone.", show_default="all"),
    ] = None,
) -> None:
    """Fetch the local servers and the jars that Spark needs, once per machine."""
    settings = load_settings()
    configurations = [only] if only else list(Configuration)
    with fetching() as (progress, watch):
        fetch_jars(settings.jars_path, progress, settings.java_home, configurations, watch)


def _stack(home: Path | None, progress: "Progress") -> "Stack":
    from clickstream_assets.local.stack import Stack

    return Stack.of(load_settings(), home, progress)


@contextmanager
def _progress(task: str) -> Iterator["Progress"]:
    """Show progress on stderr, animated on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(task):
        # As it is: a log may hold what looks like markup, and a path must not be broken over two lines.
        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _prepare(env: dict[str, str], progress: "Progress") -> None:
    """Make the served tables and the topic, so that `dagster dev` and the API can start right away."""
    from clickstream_assets.stores.prepare import prepare_servers

    # What was just started, whatever else the environment names.
    prepare_servers(Settings.model_validate({name.lower(): value for name, value in env.items()}), progress)


def _dagster_yaml() -> Path | None:
    """The project's own instance configuration, which an installed package does not carry."""
    path = Path(__file__).parents[2] / "dagster.yaml"
    return path if path.exists() else None
