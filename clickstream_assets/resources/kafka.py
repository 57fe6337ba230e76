"""Kafka, as a Dagster resource."""

import dagster as dg

from clickstream_assets.kafka import Topic
from clickstream_assets.resources.settings import SettingsResource


class KafkaResource(dg.ConfigurableResource):
    """Gives assets and sensors the topic of click events."""

    settings: SettingsResource

    def topic(self) -> Topic:
        """Return the topic that the settings name; nothing is connected yet."""
        return Topic(self.settings.get())
