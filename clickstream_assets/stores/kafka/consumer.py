"""Consumers of the topics of click events, and what keeps them from reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition

if TYPE_CHECKING:
    from kafka import KafkaConsumer

# Kafka was first released in January 2011. Before that is, say, who counts in seconds.
FIRST_MILLISECOND = 1_293_840_000_000


class TopicError(ClickstreamError):
    """Kafka cannot give what was asked; the message names the setting and the fix."""

    retryable = True


class TopicNotFoundError(TopicError):
    """A topic is not there (yet)."""

    retryable = False

    def __init__(self, message: str, others_are_there: bool = False) -> None:
        super().__init__(message)
        self.others_are_there = others_are_there
        """Whether some of the topics are there, so that what waits for the missing ones keeps those back."""


def arrivals(timestamps: list[int], read: int) -> tuple[list[int], list[int | None]]:
    """Return when records came, and the timestamps of those that cannot have come then; milliseconds since 1970.

    A sender sets the timestamp, so it can be in another unit or of a clock that is wrong: it is believed up to the time
    of the reading.
    """
    if not timestamps or (min(timestamps) >= FIRST_MILLISECOND and max(timestamps) <= read):
        return timestamps, [None] * len(timestamps)
    came = [FIRST_MILLISECOND <= timestamp <= read for timestamp in timestamps]
    return (
        [timestamp if is_so else read for timestamp, is_so in zip(timestamps, came, strict=True)],
        [None if is_so else timestamp for timestamp, is_so in zip(timestamps, came, strict=True)],
    )


class TopicReader:
    """A reader of the topics of click events, or of those that are named.

    Args:
        settings: name the broker.
        names: the topics (default: those of click events).
        setting: the setting that names them.
    """

    def __init__(
        self, settings: Settings, names: Iterable[str] | None = None, setting: str = "KAFKA_TOPIC"
    ) -> None:
        self.names = tuple(settings.topics if names is None else names)
        self.setting = setting
        self._settings = settings
        self._timeout = settings.kafka_timeout_seconds

    def consumer(self, explain: Callable[[str, bool], TopicError]) -> AbstractContextManager[KafkaConsumer]:
        """Open a consumer that keeps no offsets; `explain` is as of `open_client`."""
        from kafka import KafkaConsumer

        from clickstream_assets.stores.kafka.client import open_client

        return open_client(
            KafkaConsumer,
            self._timeout,
            explain,
            **self._settings.kafka_client_options,
            # Offsets are the lake's business and never committed.
            enable_auto_commit=False,
            auto_offset_reset="none",
            # Records of a transaction that was aborted are no records.
            isolation_level="read_committed",
            metrics_enabled=False,
            allow_auto_create_topics=False,
            # Longer than the half second for which a broker holds back an answer without records.
            request_timeout_ms=max(1000, int(self._timeout * 1000)),
            max_partition_fetch_bytes=4_194_304,
            # The default of 50 MB would be most of a small machine's memory.
            fetch_max_bytes=16_777_216,
        )

    @contextmanager
    def found(self) -> Iterator[tuple[KafkaConsumer, list[TopicPartition]]]:
        """Open a consumer that knows the partitions of the topics, which are in order."""
        from clickstream_assets.stores.kafka.client import unreachable_message

        with self.consumer(
            lambda *reason: TopicError(unreachable_message(self._settings, *reason))
        ) as consumer:
            numbers = {name: consumer.partitions_for_topic(name) for name in self.names}
            missing = [name for name, found in numbers.items() if not found]
            if missing:
                servers = self._settings.kafka_bootstrap_servers
                raise TopicNotFoundError(
                    f"{self.setting}={','.join(self.names)!r}: {servers} has no topic {', '.join(missing)}. "
                    "`clickstream prepare` makes it, as do events sent with `clickstream simulate` or `clickstream "
                    "replay`, or make it yourself",
                    others_are_there=len(missing) < len(numbers),
                )
            yield (
                consumer,
                sorted(TopicPartition(name, n) for name, found in numbers.items() for n in found or ()),
            )
