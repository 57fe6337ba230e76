"""`clickstream prepare`: what servers need before the pipeline can use them."""

import typer

from clickstream_assets.postgres.connection import PostgresError
from clickstream_assets.settings import Settings, SettingsError, load_settings
from clickstream_assets.simulator.errors import SimulatorError


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


def prepare_servers(settings: Settings) -> tuple[str, bool]:
    """Make or upgrade the served tables, and make the topic where it is missing.

    Returns:
        The revision that the tables are at, and whether the topic is new.

    Raises:
        PostgresError: the database cannot be reached or upgraded.
        SimulatorError: Kafka does not answer or refuses.
    """
    # Alembic and SQLAlchemy take half a second that the other commands need not wait for; so does Kafka's client.
    from clickstream_assets.postgres.migrate import migrate
    from clickstream_assets.simulator.sinks import ensure_topic

    return migrate(settings), ensure_topic(settings)
