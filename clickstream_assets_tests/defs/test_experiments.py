"""Experiments, from the topic of exposures to the API's answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from clickstream_assets.analytics.money import as_sent
from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    EXPERIMENT_EXPOSURES,
    EXPERIMENT_RESULTS,
    IDENTITY_TIES,
    RAW_EXPOSURES,
    REJECTED_EXPOSURES,
    SHOPPER_EVENTS,
)
from clickstream_assets.defs.experiments.assets import counted_in_lake
from clickstream_assets.defs.experiments.sensors import new_exposures
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.recommender.experiment_results import result_rows
from clickstream_assets.recommender.experiments import parse_experiments
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests import topics
from clickstream_assets_tests.analytics.records import at, day, event, event_table, money
from clickstream_assets_tests.analytics.test_experiments import HAPPENED, SHOWN, tie
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.dagster_private import SensorExecutionData
from clickstream_assets_tests.defs.history import end_run, past_run, start_run, tick
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_new_records import lake_resource

DECLARED = """
[[experiment]]
name = "x"
start = 2024-05-01T00:00:00Z
end = 2024-06-01T00:00:00Z
arms = [{name = "a", share = 0.5}, {name = "b", share = 0.5, serves = "lists"}]

[[experiment]]
name = "y"
start = 2024-05-01T00:00:00Z
metric = "revenue"
who = ["visitors"]
arms = [{name = "a", share = 0.5}, {name = "b", share = 0.5}]
"""


@pytest.fixture
def experimenting(pipeline_env: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lake:
    """The lake of a pipeline with experiments, a topic of exposures, and two days of events."""
    (tmp_path / "experiments.toml").write_text(DECLARED)
    monkeypatch.setenv("EXPERIMENTS", str(tmp_path / "experiments.toml"))
    monkeypatch.setenv("KAFKA_EXPOSURES_TOPIC", f"{pipeline_env.kafka_topic}-shown")
    settings = load_settings()
    lake = Lake(settings.lake, DuckDBEngine(settings))
    happened = [
        event("click", "2024-05-01 10:01", "u1", product_id="p"),
        event("purchase", "2024-05-01 11:00", "u1", product_id="p", price=money("7.5"), order_id="o"),
        # Without a name when it was exposed.
        event("purchase", "2024-05-01 12:00", "u2", product_id="p", price=money("2"), order_id="o2"),
        event("click", "2024-05-01 12:00", "refuser", product_id="p"),
        event("page_view", "2024-05-03 10:00", "u1", product_id=None),
    ]
    lake.replace(SHOPPER_EVENTS, as_sent(lake.engine.from_arrow(event_table(happened))))
    ties = pa.Table.from_pylist([tie("v", "u2", "2024-05-02 10:00")], schema=IDENTITY_TIES.arrow)
    lake.replace(IDENTITY_TIES, lake.engine.from_arrow(ties))
    refused = {"event_date": day("2024-05-02"), "user_id": "refuser", "refused": at("2024-05-02 10:00")}
    row = dict.fromkeys(CONSENT_DAYS.column_names) | refused
    lake.replace(CONSENT_DAYS, lake.engine.from_arrow(pa.Table.from_pylist([row], schema=CONSENT_DAYS.arrow)))
    return lake


def show(unit: str, arm: str, time: str = "2024-05-01T10:00:00Z", experiment: str = "x") -> None:
    """Have the topic hold an exposure."""
    settings = load_settings()
    record = {"exposure_id": f"{unit}-{time}", "experiment": experiment, "arm": arm, "unit": unit}
    value = json.dumps(record | {"products": ["p"], "time": time}).encode()
    topics.send(settings, {0: [value]}, unit.encode(), topic=settings.kafka_exposures_topic)


def look(instance: dg.DagsterInstance, definitions: dg.Definitions) -> SensorExecutionData:
    return tick(new_exposures, instance, definitions, None, {"lake": lake_resource()})


def test_what_the_api_has_noted_is_answered_by_arm_and_counts_once(
    experimenting: Lake,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
):
    settings = load_settings()
    assert "has no topic" in str(look(instance, definitions).skip_message)
    ensure_topics(settings)
    for unit, arm in (("u1", "a"), ("anonymous:v", "b"), ("u3", "b"), ("refuser", "a")):
        show(unit, arm)
    # Of another time, when the name stood for something else.
    show("u3", "a", "2024-04-30T23:59:59Z")
    show("u4", "a", "2024-06-01T00:00:00Z")
    topics.send(settings, {0: [b"{"]}, topic=settings.kafka_exposures_topic)
    (request,) = look(instance, definitions).run_requests or []
    assert request.tags["clickstream/waiting_records"] == "7"
    job = definitions.resolve_job_def("experiments")
    made = job.execute_in_process(instance=instance)
    checks = {check.check_name: check.passed for check in made.get_asset_check_evaluations()}
    assert checks["exposures_close"]
    assert checks["sizes_are_those_of_the_shares"]
    assert [
        len(experimenting.rows(table)) for table in (RAW_EXPOSURES, EXPERIMENT_EXPOSURES, REJECTED_EXPOSURES)
    ] == [7, 6, 1]
    assert "moment ago" in str(look(instance, definitions).skip_message)
    monkeypatch.setenv("EXPERIMENT_RESULTS_MINUTES", "0")
    assert look(instance, definitions).skip_message == "the results are of all that there is"
    # Again, by somebody who was exposed already: another exposure, and no other person.
    show("u1", "a", "2024-05-01T10:30:00Z")
    assert len(look(instance, definitions).run_requests or []) == 1
    assert job.execute_in_process(instance=instance).success
    pipeline = Pipeline(settings, instance, definitions)
    assert pipeline.served(EXPERIMENT_RESULTS) == pipeline.lake(EXPERIMENT_RESULTS)
    (client,) = (client for client in clients_of(settings))
    x, y = client.get("/api/experiments").json["experiments"]
    assert client.get("/api/experiments/x").json == x
    assert {name: value for name, value in x.items() if name != "arms"} == {
        **{"name": "x", "start": "2024-05-01T00:00:00Z", "end": "2024-06-01T00:00:00Z", "is_running": False},
        **{"who": ["persons", "visitors"], "metric": "conversion", "window_hours": 24},
        **{"as_of": "2024-05-03T10:00:00Z", "sizes_p_value": pytest.approx(0.5637, abs=1e-4)},
    }
    names = ("arm", "serves", "exposures", "units", "judged_units", "click_through", "conversion", "revenue")
    assert [tuple(arm[name] for name in (*names, "decision")) for arm in x["arms"]] == [
        ("a", "control", 2, 1, 1, 1.0, 1.0, 7.5, "control"),
        ("b", "lists", 2, 2, 2, 0.0, 0.5, 2.0, "undecided"),
    ]
    assert (y["is_running"], y["as_of"], [arm["units"] for arm in y["arms"]]) == (True, None, [0, 0])
    answer = client.get("/api/experiments/z")
    assert (answer.status_code, answer.json["code"]) == (404, "unknown_experiment")


@pytest.mark.long_on_spark
def test_an_experiment_is_counted_from_the_lake_of_either_engine(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    lake.append_rows(EXPERIMENT_EXPOSURES, SHOWN, 1)
    lake.replace(SHOPPER_EVENTS, as_sent(engine.from_arrow(event_table(HAPPENED))))
    refused = dict.fromkeys(CONSENT_DAYS.column_names)
    refused |= {"event_date": day("2024-05-01"), "user_id": "u4", "refused": at("2024-05-01 10:00")}
    consents = pa.Table.from_pylist([refused], schema=CONSENT_DAYS.arrow)
    lake.replace(CONSENT_DAYS, engine.from_arrow(consents))
    experiment, _ = parse_experiments(DECLARED, "the test")
    a, b = result_rows(experiment, counted_in_lake(experiment, Settings(_env_file=None), lake))
    names = (
        "exposures",
        "units",
        "units_of_several_arms",
        "judged_units",
        "clicked_units",
        "converted_units",
    )
    assert [a[name] for name in names] == [2, 2, 1, 1, 0, 1]
    assert [b[name] for name in names] == [4, 2, 0, 2, 1, 1]
    assert (a["revenue"], a["as_of"]) == (money("35"), at("2024-05-03 11:00"))


def test_a_look_is_asked_for_when_there_is_something_new_and_no_run_is_under_way(
    experimenting: Lake,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
):
    ensure_topics(load_settings())
    assert len(look(instance, definitions).run_requests or []) == 1
    run = start_run(instance, "experiments")
    assert look(instance, definitions).skip_message == f"run {run.run_id} is under way"
    end_run(instance, run, dg.DagsterRunStatus.SUCCESS)
    monkeypatch.setenv("EXPERIMENT_RESULTS_MINUTES", "0")
    job = definitions.resolve_job_def("experiments")
    results = [dg.AssetKey("experiment_exposures"), dg.AssetKey("experiment_results")]
    job.execute_in_process(instance=instance, asset_selection=results)
    # It was killed before it published them.
    assert len(look(instance, definitions).run_requests or []) == 1
    job.execute_in_process(instance=instance)
    assert look(instance, definitions).skip_message == "the results are of all that there is"
    # New events, another declaration.
    experimenting.append(SHOPPER_EVENTS, experimenting.read(SHOPPER_EVENTS))
    assert len(look(instance, definitions).run_requests or []) == 1
    job.execute_in_process(instance=instance)
    path = load_settings().experiments
    assert path
    path.write_text(DECLARED.replace('metric = "revenue"', 'metric = "click_through"'))
    assert len(look(instance, definitions).run_requests or []) == 1
    # What is over for a week is settled, whatever comes in.
    path.write_text(DECLARED.partition('[[experiment]]\nname = "y"')[0])
    job.execute_in_process(instance=instance)
    experimenting.append(SHOPPER_EVENTS, experimenting.read(SHOPPER_EVENTS))
    assert look(instance, definitions).skip_message == "the results are of all that there is"
    past_run(instance, "experiments", dg.DagsterRunStatus.FAILURE)
    assert "the last run failed" in str(look(instance, definitions).skip_message)
    monkeypatch.delenv("EXPERIMENTS")
    assert "EXPERIMENTS is not set" in str(look(instance, definitions).skip_message)
