"""The end of the topics of click events, followed as it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from clickstream_assets.stores.kafka.consumer import TopicReader, arrivals
from clickstream_assets.stores.kafka.partition import TopicPartition

_POLL_MILLISECONDS = 200
# Producers' batches, of up to 1 MB by default and in memory at once.
_POLL_BATCHES = 4
_LOOK_SECONDS = 1.0


class Arrived(NamedTuple):
    """A record as it came: its topic, when (microseconds since 1970), and its value."""

    topic: str
    kafka_time: int
    value: bytes | None


class Tail(TopicReader):
    """The newest records of the topics, and then each as it comes."""

    def follow(
        self, positions: dict[TopicPartition, int], since: float, most: int
    ) -> Iterator[tuple[list[Arrived], int]]:
        """Yield records until a partition is added, or Kafka fails.

        Args:
            positions: per partition the offset to go on at; kept up to date, so that who comes back with it misses
                nothing. A partition that is not there begins with what came since `since`.
            since: seconds since 1970.
            most: records that the beginning is back from the end of all partitions together, at most.

        Yields:
            Records, none if nothing came within a fifth of a second; and how many there were still to read within the
            last second.

        Raises:
            TopicError: no broker answers in time, or one of the topics is not there.
        """
        from kafka import TopicPartition as KafkaPartition

        from clickstream_assets.stores.kafka.client_private import poll_batches

        timeout_ms = int(self._timeout * 1000)
        with self.found() as (consumer, found):
            partitions = {KafkaPartition(*partition): partition for partition in found}
            consumer.assign(list(partitions))
            low = consumer.beginning_offsets(list(partitions), timeout_ms)
            high = consumer.end_offsets(list(partitions), timeout_ms)
            times = consumer.offsets_for_times(dict.fromkeys(partitions, int(since * 1000)), timeout_ms)
            for theirs, partition in partitions.items():
                at = times[theirs]
                begin = max(at.offset if at else high[theirs], high[theirs] - most // len(partitions))
                position = positions.get(partition, begin)
                # The topic was deleted and made anew.
                if position > high[theirs]:
                    position = low[theirs]
                positions[partition] = max(position, low[theirs])
                consumer.seek(theirs, positions[partition])
            looked, lag = -inf, 0
            while all(
                len(consumer.partitions_for_topic(name) or ()) == sum(p.topic == name for p in found)
                for name in self.names
            ):
                polled = poll_batches(consumer, _POLL_MILLISECONDS, _POLL_BATCHES)
                arrived: list[Arrived] = []
                for theirs, batches in polled.items():
                    begin = positions[partitions[theirs]]
                    for batch in batches:
                        came, _ = arrivals(batch.times, int(time.time() * 1000))
                        arrived += (
                            Arrived(theirs.topic, at_ms * 1000, value)
                            for offset, at_ms, value in zip(batch.offsets, came, batch.values, strict=True)
                            if offset >= begin
                        )
                # Not the last record's: what follows can be a transaction's marker, which is never shown.
                positions.update((partitions[theirs], consumer.position(theirs)) for theirs in partitions)
                if time.monotonic() - looked > _LOOK_SECONDS:
                    # Also the only sign that a broker is there while nothing comes.
                    ends = consumer.end_offsets(list(partitions), timeout_ms)
                    lag = sum(max(0, ends[p] - positions[partition]) for p, partition in partitions.items())
                    looked = time.monotonic()
                yield arrived, lag
