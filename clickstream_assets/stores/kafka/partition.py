"""Partitions of Kafka's topics, by which everything that was read is known."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class TopicPartition(NamedTuple):
    """A partition of a topic; written as `topic/partition`, in JSON too."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return it as it is written."""
        # A slash is in no topic's name.
        return f"{self.topic}/{self.partition}"

    def __repr__(self) -> str:
        """Return it as it is written, for messages that show several."""
        return str(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote."""
        topic, _, partition = text.rpartition("/")
        return cls(topic, int(partition))


def to_json(by_partition: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Return numbers by partition as JSON has them, in order."""
    return {str(partition): number for partition, number in sorted(by_partition.items())}


def from_json(by_name: Mapping[str, int]) -> dict[TopicPartition, int]:
    """Read what `to_json` made."""
    return {TopicPartition.parse(name): number for name, number in by_name.items()}


def to_topics(by_partition: Mapping[TopicPartition, int]) -> dict[str, dict[str, int]]:
    """Return numbers by topic and then by partition, as Spark has them in JSON."""
    topics: dict[str, dict[str, int]] = {}
    for (topic, partition), number in sorted(by_partition.items()):
        topics.setdefault(topic, {})[str(partition)] = number
    return topics


def from_topics(by_topic: Mapping[str, Mapping[str, Any]]) -> dict[TopicPartition, int]:
    """Read what Spark has as `to_topics` makes it."""
    return {
        TopicPartition(topic, int(partition)): number
        for topic, numbers in by_topic.items()
        for partition, number in numbers.items()
    }
