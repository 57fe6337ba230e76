"""`clickstream models list` and `clickstream models publish`."""

import json
from typing import Annotated, Any, Literal

import typer

from clickstream_assets.settings import load_settings

models_app = typer.Typer(
    help="The versions of models that were published: which there are, and serving an older one again.",
    no_args_is_help=True,
)


@models_app.command("list")
def list_command(
    limit: Annotated[
        int, typer.Option(min=1, help="How many: those that are served, then those trained last.")
    ] = 20,
    format: Annotated[
        Literal["text", "json"], typer.Option(help="text, or json: an object a line, with all figures.")
    ] = "text",
) -> None:
    """Show the published versions of models, trained last first."""
    # Imported here, so that `clickstream --help` need not wait for psycopg.
    from psycopg.rows import dict_row

    from clickstream_assets.api.queries import model_versions
    from clickstream_assets.stores.postgres.connection import connect, explained

    settings = load_settings()
    with explained(settings), connect(settings) as connection:
        # The queries of the API know columns by their names.
        connection.row_factory = dict_row  # type: ignore[assignment]
        found = model_versions(connection, limit)  # type: ignore[arg-type]
    if format == "json":
        for row in found:
            typer.echo(json.dumps(row, default=str, ensure_ascii=False))
        return
    if not found:
        typer.echo("No model has been published yet.")
    for row in found:
        typer.echo(_line(row))


def _line(row: dict[str, Any]) -> str:
    trained = f"{row['trained_at']:%Y-%m-%d %H:%M} UTC" if row["trained_at"] else "-"
    state = "served" if row["is_served"] else ""
    if row["put_back_at"]:
        state = f"served, put back {row['put_back_at']:%Y-%m-%d %H:%M} UTC"
    return f"{row['model_version']:<28} {row['answers']:<16} {row['algorithm']:<20} {trained:<21} {state}".rstrip()


@models_app.command("publish")
def publish_command(
    version: Annotated[str, typer.Argument(help="The version, as `clickstream models list` shows it.")],
) -> None:
    """Serve an older version of a model again, at once and whole.

    Its lists are made anew from the tables that they were made from, which
    the lake keeps for LAKE_RETENTION_DAYS; of the models of the next product
    the last five are kept. It is what the next training compares with:
    another takes its place when it is surely better.
    """
    # Imported here, so that `clickstream --help` need not wait for DuckDB and Dagster.
    from clickstream_assets.defs.serving.again import publish_again
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.stores.lake import Lake

    settings = load_settings()
    # Whatever COMPUTE_ENGINE is: the lists are the same, and DuckDB is there at once.
    again = publish_again(settings, Lake(settings.lake, DuckDBEngine(settings)), version)
    if again.before == version:
        typer.echo(f"{version} gives {again.answers} already; nothing has changed.")
    else:
        typer.echo(f"{version} gives {again.answers} from now on, instead of {again.before or 'none'}.")
