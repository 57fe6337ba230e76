"""The measurements of the batch side: jobs, checks, records and lag, as the API shows them."""

from __future__ import annotations

import json
import time

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from clickstream_assets.catalogue import REJECTED_EVENTS
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
from clickstream_assets.defs.incidents import record as incidents
from clickstream_assets.defs.incidents.keeping import keep
from clickstream_assets.defs.measurements import measure_dagster, measurements, state_of_dagster
from clickstream_assets.defs.resources import KafkaResource, SettingsResource
from clickstream_assets.settings import Settings
from clickstream_assets.silences import Kind
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.measurements import (
    Agreement,
    Problem,
    Sample,
    State,
    read_measurements,
)
from clickstream_assets_tests.api.conftest import clients_of
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


def test_the_state_names_what_was_made_which_run_failed_and_what_is_wrong(
    instance: dg.DagsterInstance, definitions: dg.Definitions
):
    graph = definitions.resolve_asset_graph()
    assert state_of_dagster(instance, ["ingest"], graph) == State()

    materialize(instance, "events", batch=1)
    materialize(instance, "product_windows")
    past_run(instance, "ingest", DagsterRunStatus.FAILURE, seconds_ago=500)
    past_run(instance, "ingest", DagsterRunStatus.SUCCESS, seconds_ago=400)
    past_run(instance, "refresh", DagsterRunStatus.SUCCESS)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("product_windows"),
            check_name="stream_agrees_with_batch",
            passed=True,
            description="9 windows were compared",
            metadata={"compared": 9, "equal": 7, "late": 2, "repeated": 0, "lost": 0, "unexplained": 0},
        )
    )
    wrong = incidents.Problem(
        kind=Kind.CHECK_FAILED,
        subject="events/counts_close",
        summary="check counts_close of events does not pass",
        reason="sample ids: ann",
        path="/assets/events?view=checks&checkDetail=counts_close",
    )
    over = incidents.Incident(id="2", problem=wrong, since=1.0, ended=2.0)
    keep(instance, incidents.Record(incidents=[incidents.Incident(id="1", problem=wrong, since=1.5e9), over]))

    state = state_of_dagster(instance, ["ingest", "refresh"], graph)
    assert state.groups == {"events": "raw", "product_windows": "windows"}
    assert all(abs(at - time.time()) < 60 for at in state.updated.values())
    (failed,) = instance.get_run_ids(dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
    assert state.failed_runs == {"ingest": failed}
    # Its reason may have ids of persons, and stays in Dagster.
    assert state.problems == [
        Problem("check_failed", "events/counts_close", "error", wrong.summary, 1.5e9, wrong.path)
    ]
    assert state.agreement == Agreement(
        True, "9 windows were compared", 9, {"late": 2, "repeated": 0, "lost": 0, "unexplained": 0}
    )


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
    for client in clients_of(pipeline_env):
        said = client.get("/api/data").json
        assert (said["ingest"]["waiting_records"], said["ingest"]["newest_event_at"]) == (
            2,
            "2024-05-01T12:00:00Z",
        )
        [day] = said["days"]
        # Both events are of an earlier day than that on which they came.
        counts = {"received": 5, "events": 2, "duplicates": 1, "conflicts": 1, "rejected": 1}
        counts |= {"late": 2, "left_out": 0, "refused": 0}
        assert day == {"date": day["date"], **counts}
        assert "rejected_counts" in [table["asset"] for table in said["tables"]]
        listed = client.get("/api/records").json["records"]
        assert {(row["outcome"], row["rule"], row["field"]): row["records"] for row in listed} == {
            ("event", "", ""): 2,
            ("late", "", ""): 2,
            ("duplicate", "", ""): 1,
            ("conflict", "", ""): 1,
            ("rejected", "unknown", "event_type"): 1,
        }
        [sample] = client.get("/api/rejected/samples").json["samples"]
        shown = (sample["rule"], sample["field"], sample["rejected_value"], sample["item"])
        assert shown == ("unknown", "event_type", "unknown", 1)
        [rejected] = pipeline.lake(REJECTED_EVENTS)
        place = ("topic", "partition", "offset", "item")
        assert [sample[name] for name in place] == [rejected[name] for name in place]
        page = client.get("/data").text
        assert "<code>unknown</code> event_type" in page

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
