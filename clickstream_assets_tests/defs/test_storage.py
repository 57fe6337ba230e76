"""Dagster's storage on a real PostgreSQL: few connections for many queries, and it outlives each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_postgres.auth import GcpWifTokenProvider
from sqlalchemy import Engine, event

from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import fresh_database, query

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"
OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = "
)


@pytest.fixture
def settings(postgres: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        (tmp_path / "dagster.yaml").write_bytes(DAGSTER_YAML.read_bytes())
        for name in ("host", "port", "user"):
            monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(getattr(own, f"postgres_{name}")))
        monkeypatch.setenv("POSTGRES_PASSWORD", own.postgres_password.get_secret_value())
        monkeypatch.setenv("DAGSTER_POSTGRES_DB", own.postgres_db)
        yield own


def report(instance: dg.DagsterInstance, times: int) -> None:
    for number in range(times):
        instance.report_runless_asset_event(dg.AssetMaterialization("sessions", metadata={"rows": number}))


@pytest.mark.long
def test_instances_of_a_process_share_a_few_connections(settings: Settings, tmp_path: Path):
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        report(instance, 1)
    count = f"SELECT count(*)::int {OTHERS} 'client backend'"
    ((before,),) = query(settings, count)
    for _ in range(5):
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            report(instance, 10)
    assert query(settings, count) == [(before,)]
    assert 0 < before <= 2


def test_columns_of_its_tables_are_looked_up_once(settings: Settings, tmp_path: Path):
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        report(instance, 1)
        instance.get_asset_records([dg.AssetKey("sessions")])
        event.listen(Engine, "before_cursor_execute", note)
        try:
            for _ in range(3):
                report(instance, 1)
                assert instance.get_asset_records([dg.AssetKey("sessions")])
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert sum("INSERT INTO event_logs" in statement for statement in asked) == 3
    assert not [statement for statement in asked if "pg_attribute" in statement]


def test_it_goes_on_when_its_connections_were_cut(settings: Settings, tmp_path: Path):
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        report(instance, 1)
        cut = query(settings, f"SELECT pg_terminate_backend(pid) {OTHERS} 'client backend'")
        assert cut
        report(instance, 1)
        assert len(instance.fetch_materializations(dg.AssetKey("sessions"), limit=10).records) == 2


@pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")
def test_what_a_run_plans_and_makes_for_many_days_is_written_at_once(settings: Settings, tmp_path: Path):
    year = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_date="2024-01-01", timezone="UTC")
    one_run = dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=year, backfill_policy=one_run)
    def first() -> None: ...

    @dg.asset(partitions_def=year, backfill_policy=one_run, deps=[first])
    def second() -> None: ...

    tags = {
        "dagster/asset_partition_range_start": "2023-01-01",
        "dagster/asset_partition_range_end": "2023-12-31",
    }
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dg.materialize([first, second], instance=instance, tags=tags)
        found = query(
            settings,
            "SELECT dagster_event_type, asset_key, count(*)::int, count(DISTINCT partition)::int, "
            "count(DISTINCT xmin::text)::int FROM event_logs WHERE partition IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
        )
        assert found == [
            (event, f'["{asset}"]', 365, 365, 1)
            for event in ("ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED")
            for asset in ("first", "second")
        ]
        for asset in ("first", "second"):
            (record,) = instance.get_asset_records([dg.AssetKey(asset)])
            assert record.asset_entry.last_run_id == run.run_id
            assert len(instance.get_materialized_partitions(dg.AssetKey(asset))) == 365


def test_a_cloud_login_takes_its_passwords_from_the_provider(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked = []

    def fetch(provider: GcpWifTokenProvider) -> tuple[str, float]:
        asked.append(provider)
        return settings.postgres_password.get_secret_value(), time.time() + 3600

    monkeypatch.setattr(GcpWifTokenProvider, "_fetch_token", fetch)
    monkeypatch.setenv("POSTGRES_PASSWORD", "no longer valid")
    config = yaml.safe_load(DAGSTER_YAML.read_text())
    config["storage"]["custom"]["config"]["auth_provider"] = {"gcp_wif": {}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    for _ in range(2):
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            report(instance, 1)
    assert len(asked) == 1
    ((connections,),) = query(settings, f"SELECT count(*)::int {OTHERS} 'client backend'")
    assert 0 < connections <= 2
