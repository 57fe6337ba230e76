"""How long Kafka keeps the records of topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from clickstream_assets.settings import Settings

_NAMES = ("retention.ms", "segment.ms", "cleanup.policy", "file.delete.delay.ms")


def kept_until(
    settings: Settings, newest: Mapping[str, datetime], topics: Iterable[str]
) -> dict[str, datetime | None]:
    """Return when Kafka has deleted the records of topics, at the latest; None for a topic that keeps them.

    A topic that is not there, or that Kafka tells us nothing of, is not in the answer.

    A file of a topic is closed after `segment.ms`, deleted `retention.ms` after its newest record, and gone from the
    disk `file.delete.delay.ms` later. Its size can end it sooner.

    Args:
        settings: say where Kafka is.
        newest: when the newest record came that is asked about, by its topic.
        topics: which.

    Raises:
        InputError: no broker answers.
    """
    # Dagster's code server, which never asks, need not wait for the client.
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    from clickstream_assets.stores.kafka.producer import open_explained

    wanted = [topic for topic in topics if topic in newest]
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(_NAMES)) for topic in wanted]
    with open_explained(KafkaAdminClient, settings) as admin:
        found = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    until: dict[str, datetime | None] = {}
    for topic in filter(found.get, wanted):
        values = {name: found[topic][name]["value"] for name in _NAMES}
        keeps = values["cleanup.policy"] == "compact" or int(values["retention.ms"]) < 0
        waits = sum(int(values[name]) for name in ("retention.ms", "segment.ms", "file.delete.delay.ms"))
        until[topic] = None if keeps else newest[topic] + timedelta(milliseconds=waits)
    return until
