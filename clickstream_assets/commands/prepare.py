"""`clickstream prepare`: what servers need before the pipeline can use them."""

import typer

from clickstream_assets.errors import SimulatorError
from clickstream_assets.settings import SettingsError, load_settings
from clickstream_assets.stores.postgres.connection import PostgresError
from clickstream_assets.stores.prepare import prepare_servers


def prepare_command() -> None:
    """Make or upgrade the served tables in PostgreSQL, and make the topic in Kafka if it is missing."""
    try:
        settings = load_settings()
        revision, is_new = prepare_servers(settings)
    except (SettingsError, PostgresError, SimulatorError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    typer.echo(f"The tables in {settings.postgres_db} are at revision {revision}.")
    typer.echo(f"The topic {settings.kafka_topic} {'was made' if is_new else 'is there'}.")
