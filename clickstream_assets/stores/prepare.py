"""Preparation of the servers for the pipeline: the served tables and the topic."""

from clickstream_assets.settings import Settings


def prepare_servers(settings: Settings) -> tuple[str, bool]:
    """Make or upgrade the served tables, and make the topic where it is missing.

    Returns:
        The revision that the tables are at, and whether the topic is new.

    Raises:
        PostgresError: the database cannot be reached or upgraded.
        InputError: Kafka does not answer or refuses.
    """
    # Alembic and SQLAlchemy take half a second that the other commands need not wait for; so does Kafka's client.
    from clickstream_assets.stores.kafka.producer import ensure_topic
    from clickstream_assets.stores.postgres.migrate import migrate

    return migrate(settings), ensure_topic(settings)
