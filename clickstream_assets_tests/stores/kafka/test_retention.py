"""Times until which Kafka keeps records, asked of a real broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.retention import kept_until
from clickstream_assets_tests.topics import new_topic

NEWEST = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_records_are_kept_for_as_long_as_a_closed_file_of_the_topic(kafka: Settings):
    kept = {"retention.ms": "86400000", "segment.ms": "3600000", "file.delete.delay.ms": "1000"}
    topics = {
        name: new_topic(kafka, config=config).kafka_topic
        for name, config in (
            ("a day", kept),
            ("for ever", {"retention.ms": "-1"}),
            ("compacted", {"cleanup.policy": "compact"}),
        )
    }
    newest = dict.fromkeys([*topics.values(), "not-there"], NEWEST)
    assert kept_until(kafka, newest, newest) == {
        topics["a day"]: NEWEST + timedelta(days=1, hours=1, seconds=1),
        topics["for ever"]: None,
        topics["compacted"]: None,
    }
    assert kept_until(kafka, {}, topics.values()) == {}
