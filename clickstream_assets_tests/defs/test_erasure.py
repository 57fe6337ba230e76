"""A person is erased, from the command to the last file, and all others stay as they were."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from typer.testing import CliRunner

from clickstream_assets.backup import restore as returning
from clickstream_assets.backup.create import back_up
from clickstream_assets.backup.erasures import erase_since
from clickstream_assets.backup.restore import restore
from clickstream_assets.catalogue import (
    CARTS,
    CUSTOMER_SEGMENTS,
    ERASED_RECORDS,
    EVENTS,
    IDENTITIES,
    IDENTITY_TIES,
    RAW_EVENTS,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.commands.app import app
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.classification import misclassified_records
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.databases import fresh_database, query
from clickstream_assets_tests.defs.pipeline import Pipeline, Rows
from clickstream_assets_tests.erased import texts_in_files

MADE = (
    *("sessions", "shopper_events", "carts", "user_segments", "customer_segments", "funnel"),
    *("campaign_touches", "campaign_attribution", "product_performance", "interaction_days", "interactions"),
    *("category_conversion", "daily_summary", "hourly_summary", "daily_report", "cohort_retention"),
    *("published_days", "published_shoppers"),
)
SERVED = (SESSIONS, CARTS, USER_SEGMENTS, CUSTOMER_SEGMENTS, IDENTITIES)
IDS = ("ann-7", "phone-a")


def sent(number: str, moment: str, kind: str = "view", **more: Any) -> dict[str, Any]:
    return {
        "event_id": number,
        "event_type": kind,
        "timestamp": f"2024-05-{moment.replace(' ', 'T')}:00Z",
        "product_id": "P-1",
        "price": "12.50",
        **more,
    }


ANN, BOB = {"user_id": "ann-7"}, {"user_id": "bob-8"}
EVENTS_OF_ANN = [
    sent("a1", "01 10:00", anonymous_id="phone-a", consent=True),
    sent("a2", "01 10:05", anonymous_id="phone-a", **ANN),
    sent("a3", "01 10:10", "add_to_cart", **ANN),
    sent("a4", "02 10:00", "purchase", order_id="o1", campaign="spring", **ANN),
    sent("a4", "02 10:00", "purchase", order_id="o1", campaign="spring", **ANN),
    sent("a6", "02 11:00", "teleport", **ANN),
]
EVENTS_OF_BOB = [
    sent("b1", "01 10:00", anonymous_id="phone-b", **BOB),
    sent("b2", "01 10:10", "add_to_cart", **BOB),
    sent("b3", "02 12:00", "purchase", order_id="o2", **BOB),
    sent("b4", "03 12:00", "add_to_cart", **BOB),
]


@pytest.fixture
def shop(
    pipeline_env: Settings,
    elasticsearch: Settings,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
) -> Pipeline:
    monkeypatch.setenv("ELASTICSEARCH_URL", elasticsearch.elasticsearch_url)
    monkeypatch.setenv("ELASTICSEARCH_ALIAS", f"live_{uuid4().hex}")
    return Pipeline(pipeline_env, instance, definitions, dg.AssetSelection.assets(*MADE))


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def of_bob(rows: Rows) -> Rows:
    """Rows that are his, without the moments at which they were written."""
    return [
        {name: value for name, value in row.items() if name not in ("created_at", "updated_at")}
        for row in rows
        if row["user_id"] == "bob-8"
    ]


def tables_of_bob(shop: Pipeline) -> dict[str, Rows]:
    return {table.name: of_bob(shop.served(table)) for table in SERVED} | {
        f"lake/{table.name}": of_bob(shop.lake(table)) for table in (SESSIONS, SHOPPER_EVENTS, IDENTITY_TIES)
    }


def place_of(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["topic"], row["partition"], row["offset"]


def is_served(shop: Pipeline, table: Table) -> bool:
    return any(row["user_id"] in ("ann-7", "anonymous:phone-a") for row in shop.served(table))


@pytest.mark.slow
def test_a_person_is_gone_from_every_store_and_file(shop: Pipeline, definitions: dg.Definitions):
    shop.ingest(*EVENTS_OF_ANN, *EVENTS_OF_BOB)
    shop.catch_up()
    shop.train()
    before = tables_of_bob(shop)
    assert all(is_served(shop, table) for table in SERVED)
    held = run("export", "ann-7")
    assert held["ids"]["anonymous_ids"] == ["phone-a"]
    assert [row["event_id"] for row in held["lake"]["events"]] == ["a1", "a2", "a3", "a4"]
    assert [row["rule"] for row in held["lake"]["rejected_events"]] == ["unknown"]
    assert len(held["lake"]["raw_events"]) == 6
    assert {row["user_id"] for row in held["postgres"]["clickstream_sessions"]} == {"ann-7"}

    said = run("erase", "ann-7", "--dry-run")
    assert (said["persons"], said["lake"]["events"], said["postgres"]["carts"]) == (1, 4, 1)
    assert is_served(shop, SESSIONS)
    asked = run("erase", "ann-7")
    assert asked["erasure"] == 1
    assert asked["postgres"] == said["postgres"]
    assert not any(is_served(shop, table) for table in SERVED)
    # A refresh before the night does not bring them back.
    shop.refresh("2024-05-01", "2024-05-03")
    assert not any(is_served(shop, table) for table in SERVED)
    assert tables_of_bob(shop) == before

    erase = definitions.resolve_job_def("erase")
    assert erase.execute_in_process(instance=shop.instance).success
    assert shop.reported("erased_records", "dirty_days") == ["2024-05-01", "2024-05-02"]
    assert shop.reported("erased_records", "records") == 6
    shop.catch_up()
    shop.train()
    upkeep = definitions.resolve_job_def("upkeep")
    assert upkeep.execute_in_process(instance=shop.instance).success
    assert query(shop.settings, "SELECT done_at > erased_at, cardinality(persons) FROM erasures") == [
        (True, 2)
    ]
    receipt = run("erasures", "1")
    assert receipt["rows_before"]["lake"]["events"] == 4
    assert receipt["records_erased"] == 6
    assert set(receipt["versions_before_and_after"]) == {
        "raw_events",
        "events",
        "duplicate_events",
        "rejected_events",
    }
    assert receipt["rows_left"] == 0
    assert receipt["removed_files"] > 0
    assert receipt["in_kafka_until"] == {shop.settings.kafka_topic: "for ever: set retention.ms of the topic"}
    assert receipt["in_backups_until"] == "not known: set BACKUP_RETENTION_DAYS"
    assert "ann" not in json.dumps(receipt)
    texts = texts_in_files(Path(shop.settings.lake))
    assert not [each for each in IDS if each in texts]
    assert tables_of_bob(shop) == before
    # Whom it was about is forgotten when nothing of Kafka's last minutes has to be left out any more.
    query(shop.settings, "UPDATE erasures SET asked_at = asked_at - interval '2 days' RETURNING 1")
    assert upkeep.execute_in_process(instance=shop.instance).success
    assert query(shop.settings, "SELECT persons FROM erasures") == [(None,)]
    # The next one finds nothing to do, and who comes back is new.
    assert erase.execute_in_process(instance=shop.instance).success
    assert shop.reported("erased_records", "dirty_days") == []
    shop.ingest(sent("a9", "03 15:00", **ANN))
    shop.catch_up()
    assert is_served(shop, SESSIONS)


@pytest.mark.long
def test_a_lake_that_is_lost_is_made_anew_without_the_erased(
    shop: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    shop.ingest(*EVENTS_OF_ANN, *EVENTS_OF_BOB)
    run("erase", "ann-7")
    assert definitions.resolve_job_def("erase").execute_in_process(instance=shop.instance).success
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "anew"))
    # Not all of Kafka in one run.
    monkeypatch.setenv("INGEST_RUN_RECORDS", "4")
    shop.settings = shop.settings.model_copy(update={"lake_path": str(tmp_path / "anew")})
    lake = Lake(shop.settings.lake, DuckDBEngine(shop.settings))
    for landed in (4, 8, 10):
        shop.ingest()
        assert lake.snapshot(RAW_EVENTS).rows == landed
        texts = texts_in_files(Path(shop.settings.lake) / EVENTS.name)
        assert not [each for each in IDS if each in texts]
    assert misclassified_records(lake, 10, first_batch=1) == []
    emptied = {place_of(row) for row in shop.lake(RAW_EVENTS) if row["value"] is None}
    assert len(emptied) == 6
    assert {place_of(row) for row in shop.lake(ERASED_RECORDS)} == emptied
    shop.catch_up()
    assert {row["user_id"] for row in shop.lake(SHOPPER_EVENTS)} == {"bob-8"}
    assert {row["user_id"] for row in shop.served(SESSIONS)} == {"bob-8"}


@pytest.mark.slow
def test_a_database_that_is_put_back_learns_of_erasures_from_the_lake(
    shop: Pipeline, definitions: dg.Definitions
):
    erase = definitions.resolve_job_def("erase")
    shop.ingest(*EVENTS_OF_ANN, *EVENTS_OF_BOB)
    run("erase", "ann-7")
    assert erase.execute_in_process(instance=shop.instance).success
    query(shop.settings, "DELETE FROM erased_places RETURNING 1")
    query(shop.settings, "DELETE FROM erasures RETURNING 1")
    query(shop.settings, "SELECT setval('erasures_erasure_seq', 1, false)")
    assert erase.execute_in_process(instance=shop.instance).success
    known = query(shop.settings, 'SELECT topic, partition, "offset" FROM erased_places')
    assert len(known) == 6
    assert set(known) == {place_of(row) for row in shop.lake(ERASED_RECORDS)}
    assert run("erase", "bob-8")["erasure"] == 2
    assert erase.execute_in_process(instance=shop.instance).success
    assert shop.lake(EVENTS) == []


@pytest.mark.long
def test_who_was_erased_after_a_backup_is_not_in_what_it_is_put_back_into(
    shop: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The first try is killed when all stores are back, and the second goes on."""
    erase = definitions.resolve_job_def("erase")
    target = str(tmp_path / "backups")
    shop.ingest(*EVENTS_OF_ANN, *EVENTS_OF_BOB)
    shop.catch_up()
    before = tables_of_bob(shop)
    first = back_up(load_settings(), target)
    run("erase", "ann-7")
    assert erase.execute_in_process(instance=shop.instance).success
    time.sleep(1)
    back_up(load_settings(), target)

    with fresh_database(shop.settings) as database:
        for name, value in {
            "POSTGRES_DB": database.postgres_db,
            "LAKE_PATH": str(tmp_path / "other" / "lake"),
            "CHECKPOINT_PATH": str(tmp_path / "other" / "checkpoints"),
        }.items():
            monkeypatch.setenv(name, value)
        other = load_settings()

        def die(*arguments: Any) -> None:
            erase_since(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(returning, "erase_since", die)
            with pytest.raises(KeyboardInterrupt):
                restore(other, target, first.name)
        said: list[str] = []
        restore(other, target, first.name, said.append)
        assert "Erasure 1, of after this backup, is applied: 6 records" in said
        with dg.DagsterInstance.ephemeral() as instance:
            home = Pipeline(other, instance, definitions, dg.AssetSelection.assets(*MADE))
            assert not any(is_served(home, table) for table in SERVED)
            assert {row["user_id"] for row in home.lake(EVENTS)} == {"bob-8"}
            assert {row["user_id"] for row in home.lake(IDENTITY_TIES)} == {"bob-8"}
            # Who comes back before the days are made anew is somebody new.
            home.ingest(sent("a9", "03 15:00", **ANN))
            assert erase.execute_in_process(instance=instance).success
            home.catch_up()
            assert tables_of_bob(home) == before
            assert [row["event_id"] for row in home.lake(EVENTS) if row["user_id"] == "ann-7"] == ["a9"]
            assert {
                row["event_date"].day for row in home.lake(SHOPPER_EVENTS) if row["user_id"] == "ann-7"
            } == {3}
