"""Preparation of the servers for the pipeline: the served tables, the roles and the topics."""

from typing import TYPE_CHECKING

from clickstream_assets.files import Progress, silent
from clickstream_assets.settings import Settings

if TYPE_CHECKING:
    from clickstream_assets.stores.postgres.migrate import Migration


def prepare_servers(settings: Settings, progress: Progress = silent) -> None:
    """Make or upgrade the served tables, make the roles that the settings name, and the topics that are missing.

    Args:
        settings: Where the servers are.
        progress: Gets a line on each: what was done, or that there was nothing to do.

    Raises:
        PostgresError: the database cannot be reached or upgraded, or a role not be made.
        InputError: Kafka does not answer or refuses.
    """
    # Alembic and SQLAlchemy take half a second that the other commands need not wait for; so does Kafka's client.
    from clickstream_assets.stores.kafka.producer import ensure_topics
    from clickstream_assets.stores.postgres.migrate import migrate
    from clickstream_assets.stores.postgres.roles import prepare_roles

    progress(f"PostgreSQL: {_sentence(migrate(settings), settings.postgres_db)}")
    for sentence in prepare_roles(settings):
        progress(f"PostgreSQL: {sentence}")
    made = ensure_topics(settings)
    partitions = settings.kafka_topic_partitions
    for topic in settings.all_topics:
        if topic in made:
            progress(f"Kafka: made the topic {topic}, with {partitions} partition{'s'[: partitions > 1]}")
        else:
            progress(f"Kafka: the topic {topic} is there")


def _sentence(migration: "Migration", database: str) -> str:
    before, revision, applied = migration
    if before is None:
        return f"made the tables in {database}, which is at revision {revision}"
    if not applied:
        return f"{database} is at revision {revision} already; nothing to migrate"
    return f"migrated {database} from revision {before} to {revision}: {'; '.join(applied)}"
