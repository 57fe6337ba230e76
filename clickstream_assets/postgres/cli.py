"""`clickstream migrate`."""

import typer

from clickstream_assets.postgres.connection import PostgresError
from clickstream_assets.settings import SettingsError, load_settings


def migrate_command() -> None:
    """Make or upgrade the served tables in PostgreSQL."""
    # Alembic and SQLAlchemy take half a second that the other commands need not wait for.
    from clickstream_assets.postgres.migrate import migrate

    try:
        settings = load_settings()
        revision = migrate(settings)
    except (SettingsError, PostgresError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    typer.echo(f"The tables in {settings.postgres_db} are at revision {revision}.")
