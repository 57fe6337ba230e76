"""`clickstream prepare`: what servers need before the pipeline can use them."""

import typer

from clickstream_assets.settings import load_settings
from clickstream_assets.stores.prepare import prepare_servers


def prepare_command() -> None:
    """Make or upgrade the served tables in PostgreSQL, and make the topic in Kafka if it is missing."""
    settings = load_settings()
    revision, is_new = prepare_servers(settings)
    typer.echo(f"The tables in {settings.postgres_db} are at revision {revision}.")
    typer.echo(f"The topic {settings.kafka_topic} {'was made' if is_new else 'is there'}.")
