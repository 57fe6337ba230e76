"""`clickstream prepare`, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.postgres.migrate import MIGRATIONS
from clickstream_assets_tests.databases import environment, free_port, fresh_database, query, with_settings
from clickstream_assets_tests.topics import first

CLICKSTREAM = Path(sys.executable).with_name("clickstream")


def prepare(settings: Settings, **variables: str) -> subprocess.CompletedProcess[str]:
    kafka = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
        "KAFKA_TIMEOUT_SECONDS": "5",
    }
    env = os.environ | environment(settings) | kafka | variables
    return subprocess.run([CLICKSTREAM, "prepare"], env=env, capture_output=True, text=True, check=False)


def test_prepare_makes_the_tables_and_the_topic_and_a_second_time_nothing(servers: Settings):
    topic = f"events-{uuid4().hex[:12]}"
    with fresh_database(servers, migrated=False) as empty:
        settings = with_settings(empty, kafka_topic=topic)
        done = prepare(settings, KAFKA_TOPIC_PARTITIONS="2")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"PostgreSQL: made the tables in {settings.postgres_db}, which is at revision {newest_revision()}",
            f"Kafka: made the topic {topic}, with 2 partitions",
        ]
        assert query(settings, "SELECT count(*) FROM clickstream_sessions") == [(0,)]
        assert list(Topics(settings).offsets()) == [first(settings, 0), first(settings, 1)]
        again = prepare(settings)
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.splitlines() == [
            f"PostgreSQL: {settings.postgres_db} is at revision {newest_revision()} already; nothing to migrate",
            f"Kafka: the topic {topic} is there",
        ]


def test_prepare_makes_each_of_several_topics_that_is_missing(servers: Settings):
    there, missing = (f"events-{uuid4().hex[:12]}" for _ in range(2))
    with fresh_database(servers) as own:
        ensure_topics(with_settings(own, kafka_topic=there))
        done = prepare(with_settings(own, kafka_topic=f"{missing}=segment,{there}"))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1:] == [
            f"Kafka: made the topic {missing}, with 3 partitions",
            f"Kafka: the topic {there} is there",
        ]


def newest_revision() -> str:
    return max(path.name[1:5] for path in MIGRATIONS.glob("versions/r*.py"))


def test_prepare_without_a_database_says_what_to_mend(servers: Settings):
    port = free_port()
    failed = prepare(with_settings(servers, postgres_port=port))
    assert failed.returncode == 1
    assert f"POSTGRES_PORT={port}" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_prepare_without_a_broker_says_what_to_mend(servers: Settings):
    address = f"127.0.0.1:{free_port()}"
    failed = prepare(servers, KAFKA_BOOTSTRAP_SERVERS=address, KAFKA_TIMEOUT_SECONDS="1")
    assert failed.returncode == 1
    assert f"KAFKA_BOOTSTRAP_SERVERS={address}" in failed.stderr
    assert "Traceback" not in failed.stderr
