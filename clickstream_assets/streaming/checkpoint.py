"""Checkpoints: the folder in which a query keeps how far it has come, and the settings that its state depends on.

Those are in `query.json`, next to Spark's own files. A query with other values is refused before it starts, where
Spark itself would fail on the way or, worse, count wrongly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pyarrow import fs

from clickstream_assets.engine.spark_private import COMMITS, OFFSETS, parse_offsets
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.files import make_private
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition, from_topics
from clickstream_assets.stores.kafka.topic import DataLossError

REBUILD = "`clickstream stream --rebuild`"
_ID_OF = "the id of topic"


class CheckpointError(ClickstreamError):
    """A query cannot go on from its checkpoint; the message says what changed, and the fix."""


@dataclass(frozen=True)
class PlannedBatch:
    """Plan of a batch, which Spark writes down before it begins."""

    watermark: datetime | None
    """No event before this is counted any more once the batch is done."""
    offsets: dict[TopicPartition, int]
    """Per partition, the offset up to which the batch reads."""


class Checkpoint:
    """The checkpoint of one query.

    Args:
        settings: name the folder of all checkpoints.
        name: this one's folder in it.
        fingerprint: what the query's state depends on, by the name of the setting.
    """

    def __init__(self, settings: Settings, name: str, fingerprint: dict[str, Any]) -> None:
        self._all = settings.checkpoints
        self.path = f"{self._all}/{name}"
        self._fingerprint = fingerprint
        # As Spark spells it, S3 is s3a.
        self._fs, self._root = fs.FileSystem.from_uri(self.path.replace("s3a://", "s3://", 1))

    @property
    def has_begun(self) -> bool:
        """True once a query has planned a batch here."""
        return bool(self.planned_batch_ids())

    def planned_batch_ids(self) -> list[int]:
        """Return the batches that Spark has noted and still keeps, in order."""
        return self._batch_ids(OFFSETS)

    def committed_batch_id(self) -> int:
        """Return the last batch that is done; -1 before the first."""
        return max(self._batch_ids(COMMITS), default=-1)

    def committed_offsets(self) -> dict[TopicPartition, int]:
        """Return, per partition, up to where the batches that are done have read."""
        done = self.committed_batch_id()
        return self.planned_batch(done).offsets if done >= 0 else {}

    def _batch_ids(self, log: str) -> list[int]:
        selector = fs.FileSelector(f"{self._root}/{log}", allow_not_found=True)
        names = [info.base_name for info in self._fs.get_file_info(selector)]
        return sorted(int(name) for name in names if name.isdigit())

    def open(self, topic_ids: Mapping[str, UUID | None]) -> None:
        """Make the folder, or check that the query can go on from it.

        Args:
            topic_ids: Kafka's, by topic; one that was deleted and made anew begins at 0 again, and Spark would go on in
                its middle.

        Raises:
            CheckpointError: it cannot, because the settings or the query are others.
            DataLossError: it cannot, because a topic was made anew.
        """
        ids = {f"{_ID_OF} {topic}": number and str(number) for topic, number in topic_ids.items()}
        fingerprint = self._fingerprint | ids
        written = self._read("query.json")
        if written is None:
            if self.has_begun:
                raise CheckpointError(
                    f"{self.path} is a checkpoint without query.json, so nobody knows of which query; run {REBUILD}"
                )
            if "://" not in self._all:
                make_private(Path(self._all))
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(f"{self._root}/query.json") as file:
                file.write(json.dumps(fingerprint, indent=2).encode())
            return
        then = json.loads(written)
        self._refuse_topics_made_anew(then, topic_ids)
        # A topic that only one of them names is a change of KAFKA_TOPIC.
        once = {name for name in then.keys() ^ fingerprint.keys() if name.startswith(_ID_OF)}
        changes = [
            f"{name} is {fingerprint.get(name)!r} and was {then.get(name)!r}"
            for name in sorted({*then, *fingerprint} - once)
            if then.get(name) != fingerprint.get(name)
        ]
        if changes:
            raise CheckpointError(
                f"the stream cannot go on from {self.path}: {'; '.join(changes)}. Run {REBUILD} to begin anew, or "
                "put it back"
            )

    def refuse_topics_made_anew(self, topic_ids: Mapping[str, UUID | None]) -> None:
        """Check that topics are those that the query began with, once the folder is there.

        Args:
            topic_ids: as `open` has them.

        Raises:
            DataLossError: one is another, of the same name.
        """
        self._refuse_topics_made_anew(json.loads(self._read("query.json") or "{}"), topic_ids)

    def _refuse_topics_made_anew(self, then: dict[str, Any], topic_ids: Mapping[str, UUID | None]) -> None:
        for topic, number in topic_ids.items():
            was = then.get(f"{_ID_OF} {topic}")
            if was and number and was != str(number):
                raise DataLossError(
                    f"KAFKA_TOPIC: {topic!r} is another topic than the one that the stream of {self.path} has read: it "
                    "was deleted and made anew. Name another topic in its place, or use another LAKE_PATH for the new "
                    f"topic; then run {REBUILD}"
                )

    def planned_batch(self, batch_id: int) -> PlannedBatch:
        """Read the plan of a batch."""
        text = self._read(f"{OFFSETS}/{batch_id}")
        if text is None:
            raise CheckpointError(f"{self.path} has lost {OFFSETS}/{batch_id}; run {REBUILD}")
        watermark, offsets = parse_offsets(text)
        return PlannedBatch(watermark, from_topics(offsets))

    def remove(self) -> None:
        """Delete the folder."""
        if self._fs.get_file_info(self._root).type != fs.FileType.NotFound:
            self._fs.delete_dir(self._root)

    def _read(self, name: str) -> str | None:
        path = f"{self._root}/{name}"
        if self._fs.get_file_info(path).type == fs.FileType.NotFound:
            return None
        with self._fs.open_input_stream(path) as file:
            return bytes(file.readall()).decode()
