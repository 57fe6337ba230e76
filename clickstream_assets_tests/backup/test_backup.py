"""A backup of a house that goes on meanwhile, put back into another one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from clickstream_assets.backup import databases
from clickstream_assets.backup import restore as returning
from clickstream_assets.backup.create import back_up
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.manifest import Backup
from clickstream_assets.backup.restore import restore
from clickstream_assets.catalogue import EVENTS, PRODUCT_WINDOWS, RAW_EVENTS
from clickstream_assets.commands.app import app
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.made import Made
from clickstream_assets.stores.kafka.topic import DataLossError, Topics
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.metadata import METADATA
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.query import checkpoint_of, lake_of
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.backup.houses import furnish, house, ingestion, instance, streaming
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.ingestion import simulate
from clickstream_assets_tests.topics import make_anew, new_topic

pytestmark = pytest.mark.slow


@dg.asset
def shelf() -> dg.MaterializeResult:
    """An asset of a house."""
    return dg.MaterializeResult(metadata={"books": 7})


def again_and_again(work: Callable[[], None]) -> Callable[[threading.Event], None]:
    """Work that goes on until it is stopped."""

    def repeat(stop: threading.Event) -> None:
        while not stop.is_set():
            work()

    return repeat


def rows(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        statement = sql.SQL("SELECT * FROM {} AS rows ORDER BY rows::text").format(sql.Identifier(table))
        return connection.execute(statement).fetchall()


@pytest.fixture
def lived_in(kafka: Settings, postgres: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A house with events, windows, a run of Dagster's that has ended and one that goes on."""
    topic = new_topic(kafka, partitions=2)
    server = with_settings(postgres, kafka_bootstrap_servers=kafka.kafka_bootstrap_servers)
    with house(server, tmp_path / "one", topic.kafka_topic) as settings:
        furnish(settings)
        with instance(settings) as history:
            dg.materialize([shelf], instance=history)
            history.create_run_for_job(dg.Definitions([shelf]).resolve_implicit_global_asset_job_def())
        yield settings


@contextmanager
def another(settings: Settings, folder: Path) -> Iterator[Settings]:
    with house(settings, folder / "other", settings.kafka_topic) as own:
        yield own


def test_a_house_comes_back_in_another_home_and_goes_on_from_kafka(lived_in: Settings, tmp_path: Path):
    made = simulate(lived_in, events=80, share=0.05, seed=8)
    lines: list[str] = []
    backup = back_up(lived_in, str(tmp_path / "backups"), lines.append)
    assert [line.partition(":")[0] for line in lines] == ["Stream", "PostgreSQL", "Dagster", "Lake"]
    assert backup.lake.tables[RAW_EVENTS.name].rows == ingestion(lived_in).counts()[RAW_EVENTS.name]
    assert sum(backup.lake.offsets.values()) == backup.lake.tables[RAW_EVENTS.name].rows
    assert backup.topics == {
        lived_in.kafka_topic: str(Topics(lived_in).ids()[lived_in.kafka_topic]),
    }
    with another(lived_in, tmp_path) as other:
        assert restore(other, str(tmp_path / "backups")) == backup
        assert not (Path(other.lake) / "restore.json").exists()
        for table in METADATA.tables:
            assert rows(other, table) == rows(lived_in, table), table
        with instance(lived_in) as before, instance(other) as after:
            key = shelf.key
            assert after.get_latest_materialization_event(key) == before.get_latest_materialization_event(key)
            was = sorted(run.status.value for run in before.get_runs())
            assert was == ["NOT_STARTED", "SUCCESS"]
            # Nobody carries it out any more.
            assert sorted(run.status.value for run in after.get_runs()) == ["CANCELED", "SUCCESS"]
            dg.materialize([shelf], instance=after)
            assert len(after.get_runs()) == 3
        ingested = ingestion(other)
        ingested.run()
        ingestion(lived_in).run()
        assert ingested.contents() == ingestion(lived_in).contents()
        assert ingested.misclassified() == {}
        assert ingested.counts()[RAW_EVENTS.name] - backup.lake.tables[RAW_EVENTS.name].rows == made.sent
        with streaming(other) as stream:
            assert stream.batch == 1
            stream.run_batch()
        update_copies(other, lake_of(other))
        assert lake_of(other).snapshot(PRODUCT_WINDOWS).rows == 2


@pytest.mark.long
def test_backups_under_load_are_each_of_one_moment(lived_in: Settings, tmp_path: Path):
    ingesting = ingestion(lived_in)
    sent: list[Made] = []

    def send_and_ingest() -> None:
        sent.append(simulate(lived_in, events=30, share=0.05, seed=100 + len(sent)))
        ingesting.run()

    backups: list[Backup] = []
    with streaming(lived_in) as stream:

        def run_batches() -> None:
            stream.run_batch()
            update_copies(lived_in, lake_of(lived_in))

        with in_background(again_and_again(send_and_ingest), again_and_again(run_batches)):
            while len(backups) < 3:
                backups.append(back_up(lived_in, str(tmp_path / "backups")))
        batches = stream.batch
    assert batches > 4
    assert [b.lake.tables[RAW_EVENTS.name].rows for b in backups] == sorted(
        b.lake.tables[RAW_EVENTS.name].rows for b in backups
    )
    for number, backup in enumerate(backups):
        with another(lived_in, tmp_path / str(number)) as other:
            restore(other, str(tmp_path / "backups"), backup.name)
            assert backup.stream
            checkpoint = checkpoint_of(other, 1)
            last = backup.stream.batch_id - 1
            assert checkpoint.committed_batch_id() in (last - 1, last)
            assert checkpoint.planned_batch_ids()[-1] in (last, last + 1)
            assert lake_of(other).snapshot(PRODUCT_WINDOWS).batch <= backup.stream.batch_id
            # The stream goes on: it runs a batch again that the tables have, and the next ones.
            with streaming(other) as again:
                for _ in range(3):
                    again.run_batch()
            update_copies(other, lake_of(other))
            counted = query(other, "SELECT count(*), count(DISTINCT window_start) FROM product_windows")
            assert counted == [(again.batch, again.batch)]
            assert lake_of(other).snapshot(PRODUCT_WINDOWS).rows == again.batch
            ingestion(other).run()
            assert ingestion(other).misclassified() == {}
            assert ingestion(other).contents() == ingesting.contents()


FILLED: dict[str, tuple[Callable[[Settings], object], str]] = {
    "lake": (
        lambda other: lake_of(other).snapshot(EVENTS),
        r"LAKE_PATH=\S+ is not empty: it has events/",
    ),
    "checkpoint": (
        lambda other: checkpoint_of(other, 1).open({}),
        r"CHECKPOINT_PATH=\S+ is not empty: it has product_windows-1/query\.json",
    ),
    "postgres": (
        lambda other: query(other, "INSERT INTO publications (asset, stamp) VALUES ('a', 'b') RETURNING 1"),
        r"POSTGRES_DB=\w+ is not empty: its table publications has rows",
    ),
    "dagster": (
        lambda other: materialized(other),
        r"DAGSTER_POSTGRES_DB=\w+ is not empty: its table event_logs has rows",
    ),
}


def materialized(settings: Settings) -> None:
    with instance(settings) as history:
        dg.materialize([shelf], instance=history)


def test_a_store_that_is_not_empty_and_a_stream_that_runs_are_refused(lived_in: Settings, tmp_path: Path):
    target = str(tmp_path / "backups")
    back_up(lived_in, target)
    for name, (fill, says) in FILLED.items():
        with another(lived_in, tmp_path / name) as other:
            fill(other)
            with pytest.raises(BackupError, match=says):
                restore(other, target)
            assert not (Path(other.lake) / "restore.json").exists()
    with (
        another(lived_in, tmp_path) as other,
        ownership(other, "stream"),
        pytest.raises(BackupError, match="the streams are run by clickstream stream, process"),
    ):
        restore(other, target)


def test_a_damaged_backup_changes_nothing(lived_in: Settings, tmp_path: Path):
    target = tmp_path / "backups"
    back_up(lived_in, str(target))
    damaged = next(target.glob("*/postgres/product_windows.copy.zst"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with another(lived_in, tmp_path) as other:
        with pytest.raises(
            BackupError, match=r"product_windows\.copy\.zst is damaged: it has another checksum"
        ):
            restore(other, str(target))
        assert not Path(other.lake).exists()
        assert rows(other, "product_windows") == []


@pytest.mark.parametrize(
    "step",
    [
        "put_back_rows",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("put_back_tables", "put_back_checkpoints", "end_runs")
        ),
    ],
)
def test_a_return_that_was_killed_is_run_again(
    lived_in: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    target = str(tmp_path / "backups")
    backup = back_up(lived_in, target)
    do = getattr(returning, step)

    def die(*arguments: Any) -> None:
        do(*arguments)
        raise KeyboardInterrupt

    with another(lived_in, tmp_path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(returning, step, die)
            with pytest.raises(KeyboardInterrupt):
                restore(other, target)
        with pytest.raises(BackupError, match=f"the return of backup {backup.name} has not ended"):
            back_up(other, str(tmp_path / "elsewhere"))
        with another(lived_in, tmp_path / "third") as third:
            mixed = with_settings(other, postgres_db=third.postgres_db)
            with pytest.raises(BackupError, match=f"PostgreSQL at .*/{other.postgres_db}, Dagster at"):
                restore(mixed, target)
        restore(other, target)
        assert ingestion(other).contents() == ingestion(lived_in).contents()
        for table in METADATA.tables:
            assert rows(other, table) == rows(lived_in, table), table


def test_a_number_that_was_given_is_not_given_again(lived_in: Settings, tmp_path: Path):
    insert = (
        "INSERT INTO alert_notifications (notified_id, sequence, kind, sink) "
        "VALUES ('{}', 1, 'opened', 'console') RETURNING id"
    )
    for name in "ab":
        query(lived_in, insert.format(name))
    query(lived_in, "DELETE FROM alert_notifications WHERE notified_id = 'b' RETURNING 1")
    back_up(lived_in, str(tmp_path / "backups"))
    with another(lived_in, tmp_path) as other:
        restore(other, str(tmp_path / "backups"))
        assert query(other, insert.format("c")) == [(3,)]


def test_a_database_is_read_as_of_one_moment(lived_in: Settings):
    with databases.moment(lived_in) as connection:
        assert databases.filled_table(connection, ["publications"]) is None
        query(lived_in, "INSERT INTO publications (asset, stamp) VALUES ('a', 'b') RETURNING 1")
        assert databases.filled_table(connection, ["publications"]) is None


def test_a_backup_in_the_lake_itself_is_refused(lived_in: Settings):
    with pytest.raises(BackupError, match="is in LAKE_PATH="):
        back_up(lived_in, f"{lived_in.lake}/backups")


def test_a_lost_checkpoint_is_named(lived_in: Settings, tmp_path: Path):
    checkpoint_of(lived_in, 1).remove()
    with pytest.raises(BackupError, match=r"CHECKPOINT_PATH=\S+ has no product_windows-1.*--rebuild"):
        back_up(lived_in, str(tmp_path / "backups"))


def test_another_topic_of_the_same_name_is_said(lived_in: Settings, tmp_path: Path):
    back_up(lived_in, str(tmp_path / "backups"))
    lines: list[str] = []
    make_anew(lived_in, partitions=2)
    with another(lived_in, tmp_path) as other:
        restore(other, str(tmp_path / "backups"), progress=lines.append)
        (line,) = [line for line in lines if line.startswith("Kafka")]
        assert f"{other.kafka_topic} is another topic than the one that this lake was read from" in line
        with pytest.raises(DataLossError, match="is another topic than the one that was ingested"):
            ingestion(other).land()


def test_the_commands_say_on_their_last_line_what_was_copied(
    lived_in: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run(settings: Settings, *arguments: str) -> dict[str, Any]:
        for name in (
            *("clickstream_home", "lake_path", "checkpoint_path", "dagster_home"),
            *("kafka_bootstrap_servers", "kafka_topic"),
            *("postgres_host", "postgres_port", "postgres_user", "postgres_db"),
        ):
            monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
        monkeypatch.setenv("POSTGRES_PASSWORD", settings.postgres_password.get_secret_value())
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    copied = run(lived_in, "backup", "backups")
    assert copied["lake"]["raw_events"]["rows"] == sum(copied["offsets"].values()) > 120
    assert (copied["stream_batch"], copied["postgres"]["rows"] > 0) == (1, True)
    assert copied["place"] == str(tmp_path / "backups")
    with another(lived_in, tmp_path) as other:
        assert run(other, "restore", "backups", "--which", copied["backup"]) == copied
