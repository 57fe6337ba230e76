"""A backup of a whole house at work, put back into another home: the same tables and answers, and on from Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from clickstream_assets.api.app import create_app
from clickstream_assets.api.listing import LISTED
from clickstream_assets.backup.create import back_up
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import Backup
from clickstream_assets.backup.restore import restore
from clickstream_assets.catalogue import SERVED_TABLES
from clickstream_assets.definitions import defs
from clickstream_assets.defs import dirty_days, runs
from clickstream_assets.engine import SparkEngine
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.backup.houses import dagster_yaml, furnish, house, ingestion, streaming
from clickstream_assets_tests.databases import fresh_database, pipeline_environment, with_settings
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import simulate
from clickstream_assets_tests.object_storage import BUCKET, object_storage
from clickstream_assets_tests.proofs.shop import SMALL_MODELS
from clickstream_assets_tests.proofs.test_put_back import OWN, PASSES, House, assert_same
from clickstream_assets_tests.topics import new_topic

PERSON = "u1"
ROUTES = (f"/api/recommend/{PERSON}", f"/api/persons/{PERSON}")
"""Routes besides the lists of tables."""
NOT_OF_THE_DATA = PASSES | {"created_at", "detected_at"}
"""Fields that say when, or from what, a row was made."""


@contextmanager
def home(stack: Stack, servers: Settings, folder: Path, topic: str | None = None) -> Iterator[House]:
    """A house whose stores are its own and new, and its topic too unless one is named; the environment names them."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, fresh_database(servers, migrated=False) as history:
        patch.chdir(folder)
        patch.setattr(runs, "FIRST_WAIT_SECONDS", 0)
        # Thousands: the tests' first day is years before these events.
        patch.setattr(dirty_days, "_take_in_days_never_made", lambda *_: None)
        own = OWN | SMALL_MODELS | {"CLICKSTREAM_HOME": str(folder), "DAGSTER_HOME": str(folder / "dagster")}
        with pipeline_environment(servers, stack.env() | own, patch, folder) as settings:
            if topic:
                patch.setenv("KAFKA_TOPIC", topic)
            for name, prefix in (("ELASTICSEARCH_ALIAS", "live"), ("ELASTICSEARCH_ALERTS_INDEX", "alerts")):
                patch.setenv(name, f"{prefix}_{settings.postgres_db}")
            built = House(load_settings(), folder, defs(), dagster_yaml(history))
            yield built
            built.instance.dispose()


def answers() -> dict[str, Any]:
    """What the API says, without what says when it was made."""
    client = create_app(load_settings()).test_client()
    routes = [route for route in LISTED.values() if "<" not in route and "{" not in route]
    found = {route: client.get(route) for route in (*routes, *ROUTES)}
    return {
        route: (answer.status_code, _lasting(answer.get_json(silent=True))) for route, answer in found.items()
    }


def _lasting(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _lasting(value) for name, value in answer.items() if name not in NOT_OF_THE_DATA}
    return [_lasting(each) for each in answer] if isinstance(answer, list) else answer


def served_rows(settings: Settings) -> dict[str, int]:
    """The number of rows of each served table."""
    count = sql.SQL("SELECT count(*) FROM {}")
    with connect(settings) as connection:
        names = [table.served_name for table in SERVED_TABLES]
        return {name: connection.execute(count.format(sql.Identifier(name))).fetchone()[0] for name in names}


def contents(built: House) -> dict[str, Any]:
    """What is in all stores; indices are called otherwise in another home."""
    found = built.contents()
    return found | {"documents": [(number, source) for number, _, source in found["documents"]]}


def backups_at_work(built: House, target: Path) -> list[Backup]:
    """Make backups, one after another, while events come in and go through everything."""
    backups = []
    with in_background(lambda _: built.work(2)) as working:
        while not working.is_over():
            backups.append(back_up(load_settings(), str(target)))
    return backups


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.fault("backup_under_load")
def test_a_backup_of_a_house_at_work_is_the_same_house_in_another_home(
    stack: Stack, servers: Settings, spark_engine: SparkEngine, tmp_path: Path, fault: Fault
):
    assert spark_engine.session
    target = tmp_path / "backups"
    with home(stack, servers, tmp_path / "one") as whole:
        whole.come_in()
        assert whole.settle() == []
        backups = backups_at_work(whole, target)
        assert len(backups) > 1
        fault.saw(f"{len(backups)} backups while two hours of events came in, none of which failed")
        whole.assert_agrees()
        said_at_rest, counts = answers(), served_rows(whole.settings)
        at_rest = back_up(load_settings(), str(target))
        # What comes after the backups; the other homes have it from Kafka.
        whole.come_in()
        assert whole.settle() == []
        whole.assert_agrees()
        sent, topic = whole.sent, whole.settings.kafka_topic
        before, said = contents(whole), answers()
    assert {status for status, _ in said.values()} == {200}, said
    # One that was made when nothing was under way, and of those at work one in the middle.
    for number, backup in enumerate([at_rest, backups[len(backups) // 2]]):
        with home(stack, servers, tmp_path / f"other{number}", topic) as other:
            with fault.until_healthy():
                assert restore(load_settings(), str(target), backup.name) == backup
            if backup is at_rest:
                assert served_rows(other.settings) == counts
                assert_same(answers(), said_at_rest)
            other.sent = sent
            with fault.until_healthy():
                assert other.settle() == []
            other.assert_agrees()
            fault.settle(other.account())
            assert_same(contents(other), before)
            assert_same(answers(), said)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_lake_on_s3_comes_back_from_a_backup_on_s3(kafka: Settings, postgres: Settings, tmp_path: Path):
    topic = new_topic(kafka, partitions=2)
    server = with_settings(postgres, kafka_bootstrap_servers=kafka.kafka_bootstrap_servers)
    target = f"s3://{BUCKET}/backups"
    with (
        object_storage(tmp_path),
        house(server, tmp_path / "one", topic.kafka_topic, f"s3a://{BUCKET}/lake") as one,
        house(server, tmp_path / "other", topic.kafka_topic, f"s3a://{BUCKET}/other") as other,
    ):
        furnish(one)
        first = back_up(one, target)
        simulate(one, events=50, share=0.05, seed=9)
        ingestion(one).run()
        second = back_up(one, target)
        # What the first has of the lake is not written again.
        assert first.name < second.name
        data = [name for name in first.files if name.startswith("files/")]
        assert {name: second.files[name] for name in data} == {name: first.files[name] for name in data}
        assert restore(other, target) == second
        assert ingestion(other).contents() == ingestion(one).contents()
        assert ingestion(other).versions() == ingestion(one).versions()
        with pytest.raises(BackupError, match=r"LAKE_PATH=s3a://shop/other is not empty"):
            restore(other, target)
        simulate(one, events=50, share=0.05, seed=10)
        for settings in (one, other):
            ingestion(settings).run()
        assert ingestion(other).contents() == ingestion(one).contents()
        with streaming(other) as stream:
            stream.run_batch()
