"""Each store of a house, put back alone to an earlier time: it is caught up, or a message names the command.

Between the copy and its return, events went through everything. Afterwards all tables are as they were before it, and
what comes next goes through everything too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from elasticsearch.helpers import bulk, scan
from psycopg import sql

from clickstream_assets.catalogue import SERVED_TABLES, TABLES
from clickstream_assets.commands.stream import rebuild_streams
from clickstream_assets.definitions import defs
from clickstream_assets.defs import dirty_days, runs
from clickstream_assets.defs.dirty_days import dirty_days_sensor
from clickstream_assets.defs.models.sensors import untrained_interactions
from clickstream_assets.defs.put_back import stores_put_back
from clickstream_assets.defs.raw.sensors import new_records
from clickstream_assets.defs.resources import ComputeResource, KafkaResource, LakeResource, SettingsResource
from clickstream_assets.defs.windows.sensors import new_stream_records
from clickstream_assets.engine import DuckDBEngine, SparkEngine
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.reconciliation import reconcile
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import pipeline_environment, with_settings
from clickstream_assets_tests.defs.history import tick
from clickstream_assets_tests.defs.pipeline import Pipeline, in_order, send
from clickstream_assets_tests.faults.account import HISTORIES, STREAMED, Account, Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.proofs.shop import SMALL_MODELS
from clickstream_assets_tests.streaming.streams import click, indexed_alerts

SENSORS = (
    new_records,
    dirty_days_sensor,
    untrained_interactions,
    stores_put_back,
    new_stream_records,
)
NOON = at("2024-05-01 12:00")
HOURS_BETWEEN = 26
PASSES = {
    "batch",
    "batch_id",
    "generated_at",
    "model_version",
    "trained_on",
    "made_from",
    "published_at",
    "seconds",
    "files",
}
"""Columns that say when, or in which batch or files, a row was made."""
OWN = {
    "VIEWS_THRESHOLD": "20",
    "STREAM_IDLE_SECONDS": "0",
    "STREAM_SENSOR_SECONDS": "1",
    "SENSOR_INTERVAL_SECONDS": "5",
    "EVENTS_START_DATE": "2024-01-01",
    "COMPUTE_ENGINE": "duckdb",
    "TRAIN_AFTER_SHARE": "0",
}


def phase(number: int) -> list[dict[str, Any]]:
    """The events of some hours: a flash sale, and eight shoppers of whom some buy; one of them late by a day."""
    start = NOON + timedelta(hours=HOURS_BETWEEN * number)
    events = [
        click(
            start + timedelta(seconds=10 * i),
            i,
            event_id=f"{number}-hot{i}",
            product_id="hot",
            user_id=f"u{i}",
        )
        for i in range(30)
    ]
    for user in range(8):
        moment = start + timedelta(minutes=20 + user)
        product = f"p{(user + number) % 5}"
        kinds = ("view", "add_to_cart", "purchase")[: 1 + (user + number) % 3]
        events += [
            click(
                moment + timedelta(seconds=20 * step),
                user,
                event_id=f"{number}-{user}-{kind}",
                event_type=kind,
                product_id=product,
                user_id=f"u{user}",
                price="9.50",
                **({"order_id": f"o{number}-{user}"} if kind == "purchase" else {}),
            )
            for step, kind in enumerate(kinds)
        ]
    end = start + timedelta(hours=2)
    return [*events, events[0], click(end, 0, event_id=f"{number}-end", product_id="p0")]


class House(Pipeline):
    """A pipeline whose sensors are evaluated until none of them asks for anything."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        definitions: dg.Definitions,
        dagster_yaml: str = "telemetry: {enabled: false}\n",
    ) -> None:
        self.home = folder / "dagster"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text(dagster_yaml)
        super().__init__(settings, dg.DagsterInstance.from_config(str(self.home)), definitions)
        self.sent = 0
        self.asked: list[str] = []
        """What the sensors asked for."""

    def come_in(self) -> None:
        """The next events are in Kafka."""
        send(self.settings, (json.dumps(event).encode() for event in phase(self.sent)))
        self.sent += 1

    def settle(self, sensors: Sequence[dg.SensorDefinition] = SENSORS) -> list[str]:
        """Evaluate the sensors and run what they ask for; return the errors of a job that failed, if one did."""
        for _ in range(20):
            asked = [request for sensor in sensors for request in self.look(sensor)]
            if not asked:
                return []
            self.asked += [f"a run of {job}" for job, _ in asked]
            for job, request in asked:
                result = self._definitions.resolve_job_def(job).execute_in_process(
                    instance=self.instance,
                    tags=request.tags,
                    asset_selection=list(request.asset_selection) if request.asset_selection else None,
                    raise_on_error=False,
                )
                failures = [event for event in result.all_events if event.is_step_failure]
                if failures:
                    return [_cause(event) for event in failures]
        raise AssertionError(f"the sensors still ask for {asked}")

    def work(self, times: int) -> None:
        """Take in events, as often, and make everything of them."""
        for _ in range(times):
            self.come_in()
            assert self.settle() == []

    def look(self, sensor: dg.SensorDefinition) -> list[tuple[str, dg.RunRequest]]:
        storage = self.instance.daemon_cursor_storage
        key = f"cursor of {sensor.name}"
        settings = SettingsResource()
        resources = {
            "kafka": KafkaResource(settings=settings),
            "lake": LakeResource(settings=settings, compute=ComputeResource(settings=settings)),
        }
        needed = {name: resources[name] for name in sensor.required_resource_keys}
        cursor = storage.get_cursor_values({key}).get(key)
        result = tick(sensor, self.instance, self._definitions, cursor, needed)
        if result.cursor:
            storage.set_cursor_values({key: result.cursor})
        return [(request.job_name or sensor.job.name, request) for request in result.run_requests or []]

    def contents(self) -> dict[str, Any]:
        """Return what is in every table and index, without what says when it was made."""
        rows = self.tables()
        with live_events() as live:
            live.client.indices.refresh(index=load_settings().elasticsearch_alias)
            found = scan(live.client, index=load_settings().elasticsearch_alias)
            documents = sorted((hit["_id"], hit["_index"], hit["_source"]) for hit in found)
        return rows | {"documents": documents, "alerts": indexed_alerts(load_settings())}

    def tables(self) -> dict[str, Any]:
        """Return what is in every table, without what says when it was made."""
        names = [path.name for path in Path(self.settings.lake).iterdir() if path.name not in HISTORIES]
        lake = {f"lake {name}": self.lake(TABLES[name]) for name in names}
        served = {f"served {t.name}": self.served(t) for t in SERVED_TABLES if t.name not in HISTORIES}
        return {name: [_without(row) for row in rows] for name, rows in {**lake, **served}.items()}

    def sent_events(self) -> list[dict[str, Any]]:
        """Return all events that came in."""
        return [event for number in range(self.sent) for event in phase(number)]

    def account(self) -> Account:
        """Count what was sent in all places, and what is served."""
        return take_account(load_settings(), self.sent_events(), (*STREAMED, Part.SERVED))

    def assert_agrees(self) -> None:
        """What is served is what the lake has, the lake has what was sent, and the stream what the lake has."""
        sent = self.sent_events()
        ids = sorted({event["event_id"] for event in sent})
        assert sorted(row["event_id"] for row in self.lake(TABLES["events"])) == ids
        assert len(self.lake(TABLES["raw_events"])) == len(sent)
        for table in SERVED_TABLES:
            if table.name not in HISTORIES and (Path(self.settings.lake) / table.name).exists():
                there = [{n: row[n] for n in table.column_names} for row in self.lake(table)]
                assert self.served(table) == in_order(there, table), table.name
        assert [document[0] for document in self.contents()["documents"]] == ids
        settings = load_settings()
        found = reconcile(settings, Lake(settings.lake, DuckDBEngine(settings)), days=30)
        assert (found.differences, found.waiting) == ([], None)
        assert found.compared
        reports = {row["report_date"] for row in self.served(TABLES["daily_report"])}
        assert {at(event["timestamp"][:10]).date() for event in sent} <= reports


def _cause(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    texts = [
        event.step_failure_data.user_failure_data and event.step_failure_data.user_failure_data.description
    ]
    while error:
        texts.append(error.message)
        error = error.cause
    return "\n".join(filter(None, texts))


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in PASSES}
    if "report" in kept:
        kept["report"] = {n: v for n, v in json.loads(kept["report"]).items() if n not in PASSES}
    return kept


@contextmanager
def live_events() -> Iterator[LiveEvents]:
    live = LiveEvents(load_settings())
    try:
        yield live
    finally:
        live.close()


@pytest.fixture(scope="module")
def house(
    stack: Stack, servers: Settings, spark_engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    assert spark_engine.session
    folder = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runs, "FIRST_WAIT_SECONDS", 0)
        # Thousands: the tests' first day is years before these events.
        patch.setattr(dirty_days, "_take_in_days_never_made", lambda *_: None)
        own = (
            OWN
            | SMALL_MODELS
            | {"CLICKSTREAM_HOME": str(folder), "ELASTICSEARCH_ALIAS": f"live_{folder.name}"}
        )
        own["ELASTICSEARCH_ALERTS_INDEX"] = f"alerts_{folder.name}"
        with pipeline_environment(servers, stack.env() | own, patch, folder) as settings:
            for name in ("ELASTICSEARCH_ALIAS", "ELASTICSEARCH_ALERTS_INDEX"):
                patch.setenv(name, f"{name.lower()[14:]}_{settings.postgres_db}")
            built = House(settings, folder, defs())
            built.come_in()
            assert built.settle() == []
            yield built
            built.instance.dispose()


def folder_copy(path: Path) -> Callable[[], None]:
    """Copy a folder; returns what puts it back."""
    copy = path.with_name(f"{path.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)

    def put_back() -> None:
        shutil.rmtree(path)
        shutil.copytree(copy, path)

    return put_back


def copy_lake(house: House) -> Callable[[], None]:
    return folder_copy(Path(house.settings.lake))


def copy_checkpoint(_: House) -> Callable[[], None]:
    return folder_copy(Path(load_settings().checkpoints))


def copy_dagster(house: House) -> Callable[[], None]:
    house.instance.dispose()
    put_folder_back = folder_copy(house.home)
    house.instance = dg.DagsterInstance.from_config(str(house.home))

    def put_back() -> None:
        house.instance.dispose()
        put_folder_back()
        house.instance = dg.DagsterInstance.from_config(str(house.home))

    return put_back


def copy_postgres(house: House) -> Callable[[], None]:
    name = house.settings.postgres_db
    copy = f"{name}_copy"
    _make_database(house.settings, copy, name)
    return lambda: _make_database(house.settings, name, copy)


def _make_database(settings: Settings, name: str, template: str) -> None:
    with connect(with_settings(settings, postgres_db="clickstream"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)",
            [[name, template]],
        )
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))


def copy_elasticsearch(_: House) -> Callable[[], None]:
    settings = load_settings()
    pattern = f"{settings.elasticsearch_alias}*,{settings.elasticsearch_alerts_index}"

    def copied(client: Any, source: str, target: str) -> None:
        client.indices.refresh(index=source)
        client.indices.delete(index=target, ignore_unavailable=True)
        rows = [(hit["_id"], hit["_source"]) for hit in scan(client, index=source)]
        actions = [{"_index": target, "_id": document_id, "_source": row} for document_id, row in rows]
        bulk(client, actions)
        client.indices.refresh(index=target)

    with live_events() as live:
        names = list(live.client.indices.get(index=pattern))
        for name in names:
            copied(live.client, name, f"copy_of_{name}")

    def put_back() -> None:
        with live_events() as live:
            for name in live.client.indices.get(index=pattern):
                live.client.indices.delete(index=name)
            for name in names:
                copied(live.client, f"copy_of_{name}", name)

    return put_back


CAUGHT_UP: dict[str, Callable[[House], Callable[[], None]]] = {
    "lake": copy_lake,
    "elasticsearch": copy_elasticsearch,
    "dagster": copy_dagster,
}
NEED_A_COMMAND = {"postgres": copy_postgres, "checkpoint": copy_checkpoint}


def each_fault(store: str) -> Any:
    return pytest.param(store, marks=pytest.mark.fault(f"restore_{store}"))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", [each_fault(store) for store in CAUGHT_UP])
@pytest.mark.parametrize("refreshed", [True, False], ids=["after all runs", "after the ingest"])
def test_a_store_that_was_put_back_is_caught_up_though_nothing_comes_in(
    house: House, store: str, refreshed: bool, fault: Fault
):
    if refreshed:
        put_back = CAUGHT_UP[store](house)
    house.come_in()
    if not refreshed:
        # As of a moment when the events were there, and nothing that rests on them.
        house.ingest()
        put_back = CAUGHT_UP[store](house)
    assert house.settle() == []
    before = house.contents()
    house.assert_agrees()
    put_back()
    assert house.contents() != before or store == "dagster"
    house.asked.clear()
    with fault.until_healthy():
        assert house.settle() == []
    fault.saw(f"the sensors asked for {', '.join(house.asked) or 'nothing'}")
    assert_same(house.contents(), before)
    house.come_in()
    assert house.settle() == []
    house.assert_agrees()
    fault.settle(house.account())


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", [each_fault(store) for store in NEED_A_COMMAND])
def test_a_store_that_the_stream_cannot_go_on_with_names_the_command(house: House, store: str, fault: Fault):
    put_back = NEED_A_COMMAND[store](house)
    house.come_in()
    assert house.settle() == []
    before = house.contents()
    put_back()
    if store == "checkpoint":
        assert house.settle() == []
        assert_same(house.contents(), before)
        house.come_in()
    errors = house.settle()
    assert any(
        "of an earlier time, as from a backup. Run `clickstream stream --rebuild`" in e for e in errors
    ), errors
    fault.saw("\n".join(errors), r".*as from a backup\. Run .*")
    with fault.until_healthy():
        rebuild_streams(load_settings())
        assert house.settle() == []
    if store == "postgres":
        assert_same(house.contents(), before)
    # Windows of a rebuild are the lake's own, and are not compared with it.
    house.come_in()
    assert house.settle() == []
    house.assert_agrees()
    fault.settle(house.account())


def assert_same(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after.keys() == before.keys()
    for name, rows in before.items():
        assert after[name] == rows, name
