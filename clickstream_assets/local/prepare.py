"""What fresh servers need before the pipeline can use them."""

from clickstream_assets.postgres.migrate import migrate
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.sinks import ensure_topic


def prepare_servers(settings: Settings) -> None:
    """Make the served tables and the topic, where they are not there yet.

    Raises:
        PostgresError: the database cannot be reached or upgraded.
        SimulatorError: Kafka does not answer or refuses.
    """
    migrate(settings)
    ensure_topic(settings)
