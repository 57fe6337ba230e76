"""The streams in Dagster: when the sensor asks for a run, what a run reports, and what its checks find."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.defs.resources import KafkaResource, SettingsResource
from clickstream_assets.defs.windows.sensors import new_stream_records, unchecked_streams
from clickstream_assets.engine import SparkEngine
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.streaming import process
from clickstream_assets.streaming import query as query_module
from clickstream_assets.streaming.owner import Presence, ownership
from clickstream_assets.streaming.store import Changes, WindowStore
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.defs.history import past_run, start_run, tick
from clickstream_assets_tests.defs.pipeline import Pipeline, send
from clickstream_assets_tests.streaming.streams import click, indexed_alerts, views

NOON = at("2024-05-01 12:00")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def pipeline(
    pipeline_env: Settings,
    elasticsearch: Settings,
    spark_engine: SparkEngine,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Pipeline:
    monkeypatch.setenv("CLICKSTREAM_HOME", str(tmp_path))
    monkeypatch.setenv("ELASTICSEARCH_URL", elasticsearch.elasticsearch_url)
    monkeypatch.setenv("ELASTICSEARCH_ALIAS", pipeline_env.postgres_db)
    monkeypatch.setenv("ELASTICSEARCH_ALERTS_INDEX", f"alerts_{pipeline_env.postgres_db}")
    # Started first, so that the run joins it: a process has one.
    assert spark_engine.session
    return Pipeline(pipeline_env, instance, definitions)


def run(pipeline: Pipeline, definitions: dg.Definitions) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("stream").execute_in_process(instance=pipeline.instance)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def values(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in check.metadata.items()}


def test_a_run_reports_what_it_did_and_its_checks_agree(pipeline: Pipeline, definitions: dg.Definitions):
    events = [*views(NOON, 101, MINUTE), click(NOON + 40 * MINUTE, 1, product_id="p2")]
    pipeline.ingest(*events)
    result = run(pipeline, definitions)
    found = checks(result)
    assert {name: check.passed for name, check in found.items()} == {
        "keys_are_unique": True,
        "values_are_allowed": True,
        "window_keys_are_unique": True,
        "stream_agrees_with_batch": True,
        "alerts_follow_from_windows": True,
    }
    agreement = values(found["stream_agrees_with_batch"])
    assert (agreement["compared"], agreement["equal"], agreement["lost"], agreement["unexplained"]) == (
        2,
        2,
        0,
        0,
    )
    assert values(found["alerts_follow_from_windows"])["expected"] == 1
    assert pipeline.reported("product_windows", "rows") == 102
    assert pipeline.reported("product_windows", "lag") == 0
    assert pipeline.reported("product_windows", "dagster/row_count") == 4
    assert pipeline.reported("flash_sale_alerts", "dagster/row_count") == 1
    assert pipeline.reported("flash_sale_alerts", "open_alerts") == 0
    assert pipeline.reported("flash_sale_alerts", "elasticsearch") == "up to date"
    assert pipeline.reported("live_events", "rows") == 102
    assert len(pipeline.lake(PRODUCT_WINDOWS)) == 4
    (alert,) = pipeline.lake(FLASH_SALE_ALERTS)
    assert alert["state"] == "resolved"
    assert indexed_alerts(load_settings()) == [alert]


@pytest.mark.long
def test_checks_find_lost_state_and_alerts_that_do_not_follow(
    pipeline: Pipeline, definitions: dg.Definitions
):
    # Acknowledged before the click is sent: of one moment, those that come after it in Kafka would count as late.
    send(pipeline.settings, (json.dumps(event).encode() for event in views(NOON, 101, MINUTE)))
    pipeline.ingest(click(NOON + 40 * MINUTE, 1, product_id="p2"))
    run(pipeline, definitions)
    # As if the stream had counted too little, and somebody had deleted an alert.
    query(
        pipeline.settings,
        "WITH deleted AS (DELETE FROM flash_sale_alerts) "
        "UPDATE product_windows SET views = 101, total_events = 100 WHERE is_final RETURNING 1",
    )
    pipeline.ingest(click(NOON + 41 * MINUTE, 2, product_id="p2"))
    found = checks(run(pipeline, definitions))
    agreement = found["stream_agrees_with_batch"]
    assert not agreement.passed
    assert values(agreement)["lost"] == 2
    alerts = found["alerts_follow_from_windows"]
    assert not alerts.passed
    assert (values(alerts)["expected"], values(alerts)["actual"]) == (1, 0)


@pytest.mark.long
def test_a_run_beside_an_owner_leaves_the_streams_to_it(pipeline: Pipeline, definitions: dg.Definitions):
    pipeline.ingest(click(NOON, 1))
    with ownership(pipeline.settings, "stream"):
        result = run(pipeline, definitions)
        assert result.success
        assert query(pipeline.settings, "SELECT FROM stream_progress") == []
        for asset in ("product_windows", "flash_sale_alerts", "live_events"):
            owner = pipeline.reported(asset, "brought_up_to_date_by")
            assert owner.startswith(f"the streams are run by clickstream stream, process {os.getpid()}")
        # Where the owner brings nothing up to date, a run does not say so.
        query(
            pipeline.settings,
            "INSERT INTO stream_status (query, owner, batch_id, rows, dropped_late, error) "
            "VALUES ('live_events', 'clickstream stream', 1, 1, 0, 'Elasticsearch is full') RETURNING 1",
        )
        failed = pipeline.materialize("live_events")
    assert not failed.success
    (failure,) = (event for event in failed.all_events if event.is_step_failure)
    assert "live_events stands still: Elasticsearch is full" in str(failure.step_failure_data.error)


def unchecked(pipeline: Pipeline, definitions: dg.Definitions) -> str | int:
    """Return why the sensor asks for no checks, or how many runs it asks for."""
    result = tick(unchecked_streams, pipeline.instance, definitions)
    return len(result.run_requests) if result.run_requests else str(result.skip_message)


@pytest.mark.long
def test_checks_run_by_themselves_while_a_process_owns_the_streams(
    pipeline: Pipeline, definitions: dg.Definitions
):
    assert "does not run" in str(unchecked(pipeline, definitions))
    with ownership(pipeline.settings, "stream"):
        assert unchecked(pipeline, definitions) == "the streams have not begun"
    # The lake is behind: windows are closed, and there is nothing to compare them with.
    events = [*views(NOON, 101, MINUTE), click(NOON + 40 * MINUTE, 1, product_id="p2")]
    send(pipeline.settings, (json.dumps(event).encode() for event in events))
    agreement = checks(run(pipeline, definitions))["stream_agrees_with_batch"]
    assert (agreement.passed, values(agreement)["compared"]) == (False, 0)
    assert agreement.severity is dg.AssetCheckSeverity.WARN
    assert "not come as far" in str(agreement.description)
    pipeline.ingest(click(NOON + 41 * MINUTE, 2, product_id="p2"))
    with ownership(pipeline.settings, "stream"):
        assert unchecked(pipeline, definitions) == 1
        result = definitions.resolve_job_def("stream_checks").execute_in_process(instance=pipeline.instance)
        found = checks(result)
        assert {name: check.passed for name, check in found.items()} == {
            "keys_are_unique": True,
            "values_are_allowed": True,
            "window_keys_are_unique": True,
            "stream_agrees_with_batch": True,
            "alerts_follow_from_windows": True,
        }
        assert values(found["stream_agrees_with_batch"])["compared"] == 2
        run_ = start_run(pipeline.instance, "stream_checks")
        assert unchecked(pipeline, definitions) == f"run {run_.run_id} is under way"


def ask(pipeline: Pipeline, definitions: dg.Definitions) -> str | list[dict[str, str]]:
    """Return why the sensor asks for nothing, or the tags of the runs that it asks for."""
    kafka = KafkaResource(settings=SettingsResource())
    result = tick(new_stream_records, pipeline.instance, definitions, resources={"kafka": kafka})
    if result.run_requests:
        return [
            {name: tag for name, tag in request.tags.items() if "waiting" in name}
            for request in result.run_requests
        ]
    return str(result.skip_message)


@pytest.mark.long
def test_sensor_asks_for_a_run_when_there_is_more_than_the_stream_has_read(
    pipeline: Pipeline, definitions: dg.Definitions
):
    assert ask(pipeline, definitions) == "no new records"
    send(pipeline.settings, [json.dumps(click(NOON, number)).encode() for number in range(3)])
    assert ask(pipeline, definitions) == [{"clickstream/waiting_records": "3"}]
    run(pipeline, definitions)
    assert ask(pipeline, definitions) == "no new records"
    send(pipeline.settings, [b"no event"])
    assert ask(pipeline, definitions) == [{"clickstream/waiting_records": "1"}]
    # Records come no more, and windows are open that only the clock can close.
    run(pipeline, definitions)
    query(pipeline.settings, "UPDATE stream_progress SET read_at = read_at - interval '1 hour' RETURNING 1")
    assert ask(pipeline, definitions) == [{"clickstream/waiting_records": "0"}]
    run(pipeline, definitions)
    assert {row["is_final"] for row in pipeline.lake(PRODUCT_WINDOWS)} == {True}
    assert ask(pipeline, definitions) == "no new records"


def test_sensor_leaves_the_streams_to_who_runs_them(pipeline: Pipeline, definitions: dg.Definitions):
    send(pipeline.settings, [b"{}"])
    with ownership(pipeline.settings, "stream"):
        assert str(ask(pipeline, definitions)).startswith(
            "the streams are run by clickstream stream, process"
        )
    presence = Presence(pipeline.settings, "stream")
    presence.show()
    assert str(ask(pipeline, definitions)).startswith("the streams are left to clickstream stream, process")
    presence.close()
    # PostgreSQL may take a moment to find out that the connection is closed.
    deadline = time.monotonic() + 10
    while not isinstance(asked := ask(pipeline, definitions), list):
        assert time.monotonic() < deadline, asked
        time.sleep(0.05)


@pytest.mark.long
def test_a_run_gives_way_to_a_process_that_waits_and_takes_over_from_one_that_is_gone(
    pipeline: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "TURN_SECONDS", 0)
    monkeypatch.setattr(process, "RETURN_SECONDS", 1)
    monkeypatch.setenv("STREAM_BATCH_RECORDS", "2")
    send(pipeline.settings, [json.dumps(click(NOON, number)).encode() for number in range(20)])
    presence = Presence(pipeline.settings, "stream")

    def read() -> list[tuple[Any, ...]]:
        every = "SELECT sum(value::int)::int FROM stream_progress, jsonb_each_text(offsets)"
        return query(pipeline.settings, every)

    class Arriving(WindowStore):
        def record(self, *batch: Any) -> Changes:
            changes = super().record(*batch)
            presence.show()
            return changes

    with monkeypatch.context() as patch:
        patch.setattr(query_module, "WindowStore", Arriving)
        assert run(pipeline, definitions).success
    assert 0 < read()[0][0] < 20
    assert "clickstream stream, process" in pipeline.reported("product_windows", "brought_up_to_date_by")
    assert run(pipeline, definitions).success
    assert 0 < read()[0][0] < 20
    presence.close()
    # As the process that is gone has left it.
    query(
        pipeline.settings,
        "INSERT INTO stream_status (query, owner, batch_id, rows, dropped_late, lag) "
        "VALUES ('product_windows', 'clickstream stream', 1, 2, 0, '{}') RETURNING 1",
    )
    began = time.monotonic()
    assert run(pipeline, definitions).success
    assert time.monotonic() - began > process.RETURN_SECONDS
    assert read() == [(20,)]
    (window,) = [row for row in pipeline.lake(PRODUCT_WINDOWS) if row["window_start"] == NOON]
    assert window["views"] == 20


def test_sensor_waits_for_a_run_and_after_failures(pipeline: Pipeline, definitions: dg.Definitions):
    send(pipeline.settings, [b"{}"])
    past_run(pipeline.instance, "stream", DagsterRunStatus.FAILURE)
    assert str(ask(pipeline, definitions)).startswith("the last run failed; trying again in")
    run_ = start_run(pipeline.instance, "stream")
    assert ask(pipeline, definitions) == f"run {run_.run_id} is under way"
