"""Bring the served tables to the form that this version of the product writes and reads."""

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained

# Any number will do, as long as nobody else takes it: "clickstr" in ASCII.
_ADVISORY_LOCK = 0x636C69636B737472


def migrate(settings: Settings, revision: str = "head") -> str:
    """Upgrade the database to a revision, the newest by default; two at once wait for each other.

    Returns:
        The revision that the database is at.

    Raises:
        PostgresError: the database cannot be reached, or a table that is not ours is in the way.
    """
    config = Config()
    config.set_main_option("script_location", "clickstream_assets.stores.postgres:migrations")
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(settings), poolclass=NullPool)
    with explained(settings):
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
        except DBAPIError as error:
            if error.orig is None:
                raise
            raise error.orig from error
    return str(config.attributes["revision"])
