"""The servers that the streams read and write, and whether they answer: one that hangs is found as one that is gone."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import ElasticsearchError, ElasticsearchServer
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Offsets, Topics

ANSWER_SECONDS = 5.0
"""So long may each take to answer."""


@dataclass(frozen=True)
class Servers:
    """Answers of Kafka and Elasticsearch."""

    available: Mapping[TopicPartition, Offsets] | None
    """Offsets that each partition of the topics holds; None where Kafka did not say."""
    kafka_fault: str | None
    elasticsearch_fault: str | None
    """Why they cannot be used; None where they can."""


def answering_soon(settings: Settings) -> Settings:
    """Return settings with which Kafka has a few seconds at most to answer."""
    seconds = min(settings.kafka_timeout_seconds, ANSWER_SECONDS)
    return settings.model_copy(update={"kafka_timeout_seconds": seconds})


def ask_servers(settings: Settings) -> Servers:
    """Ask both, each for a few seconds at most."""
    available = kafka_fault = elasticsearch_fault = None
    try:
        available = Topics(answering_soon(settings)).offsets()
    except TopicError as error:
        kafka_fault = str(error)
    try:
        with closing(ElasticsearchServer(settings, timeout=ANSWER_SECONDS)) as server:
            server.check()
    except ElasticsearchError as error:
        elasticsearch_fault = str(error)
    return Servers(available, kafka_fault, elasticsearch_fault)
