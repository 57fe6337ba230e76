"""Dagster's private names as this package relies on them: a failure here says what an upgrade changed."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import quote_plus

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster_postgres import DagsterPostgresStorage

from clickstream_assets.defs import dagster_private, runs
from clickstream_assets.defs.partitions import daily
from clickstream_assets.defs.storage import PooledPostgresStorage
from clickstream_assets.settings import Settings
from clickstream_assets_tests.dagster_private import MIN_INTERVAL_LOOP_TIME, freeze_time, tags


def test_the_names_were_read_from_the_version_that_is_installed():
    assert version("dagster") == dagster_private.READ_FROM, "read what dagster_private.py relies on again"


def test_tags_of_runs_and_steps_are_spelt_as_dagster_spells_them():
    assert (
        dagster_private.PARTITION_TAG,
        dagster_private.FIRST_PARTITION_TAG,
        dagster_private.LAST_PARTITION_TAG,
        dagster_private.PRIORITY_TAG,
        dagster_private.WILL_RETRY_TAG,
    ) == (
        tags.PARTITION_NAME_TAG,
        tags.ASSET_PARTITION_RANGE_START_TAG,
        tags.ASSET_PARTITION_RANGE_END_TAG,
        tags.PRIORITY_TAG,
        tags.WILL_RETRY_TAG,
    )


def test_runs_of_chosen_assets_are_of_the_job_that_dagster_makes_for_them(definitions: dg.Definitions):
    assert definitions.resolve_implicit_global_asset_job_def().name == dagster_private.ASSET_JOB


def test_a_text_is_kept_in_the_instances_storage(instance: dg.DagsterInstance):
    assert dagster_private.kept_text(instance, "a key") is None
    for text in ("one", "another"):
        dagster_private.keep_text(instance, "a key", text)
        assert dagster_private.kept_text(instance, "a key") == text


def test_a_run_is_unfinished_until_it_succeeded_failed_or_was_canceled():
    ended = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
    assert set(dagster_private.UNFINISHED) == set(DagsterRunStatus) - ended - {DagsterRunStatus.MANAGED}


def test_the_daemon_begins_evaluations_later_than_ours_end():
    assert runs.LOOKING_SECONDS < MIN_INTERVAL_LOOP_TIME


@pytest.mark.parametrize("now", [datetime(2024, 5, 1, 23, 59, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)])
def test_the_days_are_those_that_dagster_would_list(monkeypatch: pytest.MonkeyPatch, now: datetime):
    monkeypatch.setenv("EVENTS_START_DATE", "2024-02-27")
    daily.cache_clear()
    try:
        theirs = dg.DailyPartitionsDefinition(start_date="2024-02-27", timezone="UTC", end_offset=1)
        assert daily() == theirs
        assert parameters(daily().get_partition_keys) == parameters(theirs.get_partition_keys)
        with freeze_time(now):
            assert list(daily().get_partition_keys()) == list(theirs.get_partition_keys())
            assert len(daily().get_partition_keys()) == 65 + (now.day - 1)
        assert list(daily().get_partition_keys(now)) == list(theirs.get_partition_keys(now))
        assert parameters(daily().get_partition_keys_in_range) == parameters(
            theirs.get_partition_keys_in_range
        )
        some = dg.PartitionKeyRange("2024-02-28", "2024-03-02")
        with freeze_time(now):
            assert list(daily().get_partition_keys_in_range(some)) == list(
                theirs.get_partition_keys_in_range(some)
            )
        with freeze_time(datetime(2024, 2, 1, tzinfo=UTC)):
            assert list(daily().get_partition_keys()) == []
    finally:
        daily.cache_clear()


@pytest.mark.parametrize("method", ["__init__", "from_config_value"])
def test_the_pooled_storage_takes_all_that_dagsters_takes(method: str):
    ours, theirs = getattr(PooledPostgresStorage, method), getattr(DagsterPostgresStorage, method)
    assert parameters(ours) == parameters(theirs)


def test_the_pooled_storage_knows_each_key_of_the_configuration():
    known = {"postgres_url", "postgres_db", "auth_provider", "should_autocreate_tables"}
    assert set(cast(dict[str, Any], PooledPostgresStorage.config_type())) == known


@pytest.mark.server
def test_the_pooled_storage_does_not_wait_for_the_disk_on_any_connection(postgres: Settings):
    password = quote_plus(postgres.postgres_password.get_secret_value())
    address = f"{postgres.postgres_host}:{postgres.postgres_port}/{postgres.postgres_db}"
    storage: Any = PooledPostgresStorage(
        f"postgresql://{postgres.postgres_user}:{password}@{address}", should_autocreate_tables=False
    )
    with storage.event_log_storage.index_connection() as one, storage.run_storage.connect() as other:
        for connection in (one, other):
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off"


def parameters(method: object) -> list[tuple[str, object]]:
    """Names and defaults of what a method takes."""
    assert callable(method)
    return [(name, parameter.default) for name, parameter in inspect.signature(method).parameters.items()]
