"""The measurements of the batch side: jobs, checks, records and lag, as the API shows them."""

from __future__ import annotations

import json
import time

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from clickstream_assets.catalogue.metrics import (
    CHECK_FAILING,
    CHECKED,
    INGEST_LAG,
    INGEST_RECORDS,
    INGESTED_EVENT,
    JOB_FAILURE,
    JOB_SUCCESS,
    Metric,
)
from clickstream_assets.defs.measurements import measure_dagster, measurements
from clickstream_assets.defs.resources import KafkaResource, SettingsResource
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.measurements import Sample, read_measurements
from clickstream_assets_tests.defs.history import check_events, materialize, past_run, start_run, tick
from clickstream_assets_tests.defs.pipeline import Pipeline, send

VIEW = {"event_type": "view", "user_id": "u1", "product_id": "p1", "timestamp": "2024-05-01T12:00:00Z"}


def of(metric: Metric, samples: list[Sample]) -> dict[tuple[str, ...], float]:
    """A metric's values by their labels."""
    return {sample.labels: sample.value for sample in samples if sample.metric is metric}


def test_each_job_shows_how_it_last_ended_whatever_ended_it(instance: dg.DagsterInstance):
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=500)
    past_run(instance, "ingest", DagsterRunStatus.SUCCESS, seconds_ago=400)
    past_run(instance, "ingest", DagsterRunStatus.CANCELED, seconds_ago=200)
    past_run(instance, "refresh", DagsterRunStatus.SUCCESS, seconds_ago=300)
    # Its process is gone: nothing but Dagster's run monitoring says that it has ended.
    lost = start_run(instance, "refresh")
    start_run(instance, "stream")
    instance.report_run_failed(lost, "its code server is gone")
    now = time.time()
    samples = list(measure_dagster(instance, ["ingest", "refresh", "stream"], []))
    ago = {
        metric: {job: now - at for (job,), at in of(metric, samples).items()}
        for metric in (JOB_SUCCESS, JOB_FAILURE)
    }
    assert ago[JOB_SUCCESS] == {
        "ingest": pytest.approx(400, abs=60),
        "refresh": pytest.approx(300, abs=60),
        "stream": now,
    }
    assert ago[JOB_FAILURE] == {
        "ingest": pytest.approx(500, abs=60),
        "refresh": pytest.approx(0, abs=60),
        "stream": now,
    }


def test_a_check_shows_what_it_last_found_and_when(instance: dg.DagsterInstance):
    key = dg.AssetKey("events")
    checks = [dg.AssetCheckKey(key, name) for name in ("counts_close", "event_ids_are_unique", "never_run")]
    materialize(instance, "events", batch=1)
    check_events(instance, passed=False)
    check_events(instance, passed=True, only="event_ids_are_unique")
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=key, check_name="warns", passed=False, severity=dg.AssetCheckSeverity.WARN
        )
    )
    samples = list(measure_dagster(instance, [], [*checks, dg.AssetCheckKey(key, "warns")]))
    assert of(CHECK_FAILING, samples) == {
        ("events", "counts_close", "error"): 1,
        ("events", "event_ids_are_unique", "error"): 0,
        ("events", "warns", "warn"): 1,
    }
    evaluated = of(CHECKED, samples)
    assert evaluated.keys() == {
        ("events", name) for name in ("counts_close", "event_ids_are_unique", "warns")
    }
    assert all(abs(at - time.time()) < 60 for at in evaluated.values())


def measured(settings: Settings) -> tuple[set[str], list[Sample]]:
    with connect(settings) as connection:
        ages, samples, _ = read_measurements(connection)
    return set(ages), samples


def test_ingest_is_measured_by_what_came_in_and_what_waits(
    pipeline_env: Settings,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
):
    kafka = {"kafka": KafkaResource(settings=SettingsResource())}
    pipeline = Pipeline(pipeline_env, instance, definitions)
    said = tick(measurements, instance, definitions, resources=kafka)
    assert said.skip_message == "measured"
    sources, samples = measured(pipeline_env)
    assert sources == {"dagster", "kafka"}
    assert sum(of(INGEST_LAG, samples).values()) == 0
    assert of(INGESTED_EVENT, samples) == of(INGEST_RECORDS, samples) == {}

    first, other = {**VIEW, "event_id": "e1"}, {**VIEW, "event_id": "e2"}
    pipeline.ingest(first, first, other, {**other, "user_id": "u2"}, {**VIEW, "event_type": "unknown"})
    send(pipeline_env, [json.dumps({**VIEW, "event_id": event_id}).encode() for event_id in ("e3", "e4")])
    tick(measurements, instance, definitions, resources=kafka)
    _, samples = measured(pipeline_env)
    assert of(INGEST_RECORDS, samples) == {
        ("raw_events",): 5,
        ("events",): 2,
        ("duplicate_events",): 1,
        ("conflicting_events",): 1,
        ("rejected_events",): 1,
    }
    assert of(INGESTED_EVENT, samples) == {(): 1714564800}
    assert sum(of(INGEST_LAG, samples).values()) == 2
    assert of(CHECK_FAILING, samples)["events", "counts_close", "error"] == 0
    assert {job for (job,) in of(JOB_SUCCESS, samples)} >= {"ingest", "refresh", "stream", "upkeep"}
    assert abs(of(JOB_SUCCESS, samples)["ingest",] - time.time()) < 300

    # Kafka is away: what it said last stays, and Dagster's own is measured all the same.
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("KAFKA_TIMEOUT_SECONDS", "1")
    away = {"kafka": KafkaResource(settings=SettingsResource())}
    past_run(instance, "refresh", DagsterRunStatus.FAILURE)
    said = tick(measurements, instance, definitions, resources=away)
    assert "kafka was not measured: No Kafka broker answered at KAFKA_BOOT" in str(said.skip_message)
    _, samples = measured(pipeline_env)
    assert sum(of(INGEST_LAG, samples).values()) == 2
    assert of(JOB_FAILURE, samples)["refresh",] > 0
