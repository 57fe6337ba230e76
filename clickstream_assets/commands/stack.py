"""`clickstream stack up / down / status` and `clickstream fetch-jars`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickstream_assets.engine.jars import Configuration, fetch_jars

if TYPE_CHECKING:
    from rich.console import Console

    from clickstream_assets.files import Progress
    from clickstream_assets.local.stack import Stack
    from clickstream_assets.settings import Settings

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
    """Start the servers that do not run, and wait until all are healthy."""
    named = {"kafka": kafka_port, "postgres": postgres_port, "elasticsearch": elasticsearch_port}
    ports = {name: port for name, port in named.items() if port}
    with _reporting("Starting the local stack") as progress:
        stack = _stack(home, progress)
        stack.up(env_file, _dagster_yaml(), ports)
        _prepare(stack.env())


@stack_app.command()
def down(home: Home = None) -> None:
    """Stop the servers; their data stay."""
    with _reporting("Stopping the local stack") as progress:
        _stack(home, progress).down()


@stack_app.command()
def status(home: Home = None) -> None:
    """Say how the servers are; exits with 1 unless all are healthy."""
    from rich.console import Console
    from rich.table import Table

    from clickstream_assets.local.stack import Condition

    with _reporting("Asking the servers") as progress:
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
    with _reporting("Fetching jars") as progress:
        settings = _settings()
        configurations = [only] if only else list(Configuration)
        fetch_jars(settings.jars_path, progress, settings.java_home, configurations)


def _stack(home: Path | None, progress: "Progress") -> "Stack":
    from clickstream_assets.local.stack import Stack

    return Stack.of(_settings(), home, progress)


@contextmanager
def _reporting(task: str) -> Iterator["Progress"]:
    """Show progress on stderr, animated on a terminal; a user's error is a message there and exit code 1."""
    from rich.console import Console

    from clickstream_assets.errors import LocalStackError, SimulatorError
    from clickstream_assets.settings import SettingsError
    from clickstream_assets.stores.postgres.connection import PostgresError

    console = Console(stderr=True)
    try:
        with console.status(task):
            yield lambda line: _print(console, line)
    except (LocalStackError, PostgresError, SettingsError, SimulatorError) as error:
        _print(console, str(error))
        raise typer.Exit(1) from None


def _print(console: "Console", line: str) -> None:
    # As it is: a log may hold what looks like markup, and a path must not be broken over two lines.
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _settings() -> "Settings":
    from clickstream_assets.settings import load_settings

    return load_settings()


def _prepare(env: dict[str, str]) -> None:
    """Make the served tables and the topic, so that `dagster dev` and the API can start right away."""
    from clickstream_assets.settings import Settings
    from clickstream_assets.stores.prepare import prepare_servers

    # What was just started, whatever else the environment names.
    prepare_servers(Settings.model_validate({name.lower(): value for name, value in env.items()}))


def _dagster_yaml() -> Path | None:
    """The project's own instance configuration, which an installed package does not carry."""
    path = Path(__file__).parents[2] / "dagster.yaml"
    return path if path.exists() else None
