"""Questions of the sensors about runs."""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from clickstream_assets.defs import runs
from clickstream_assets.defs.runs import (
    LONGEST_WAIT_SECONDS,
    look_until_due,
    metadata_value,
    under_way,
    wait_after_failures,
)
from clickstream_assets_tests.defs.history import materialize, past_run, start_run

FAILURE, SUCCESS, CANCELED = DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED


def end_of_newest(instance: dg.DagsterInstance) -> float:
    """Return when the newest run ended, in seconds since 1970."""
    (record,) = instance.get_run_records(dg.RunsFilter(job_name="ingest"), limit=1)
    assert record.end_time
    return record.end_time


@pytest.mark.parametrize(
    "status",
    [
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.QUEUED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    ],
)
def test_a_run_is_under_way_until_it_has_ended(instance: dg.DagsterInstance, status: DagsterRunStatus):
    run = start_run(instance, "ingest", status)
    assert under_way(instance, "ingest") == run.run_id
    assert under_way(instance, "refresh") is None


@pytest.mark.parametrize("status", [SUCCESS, FAILURE, CANCELED])
def test_a_run_that_has_ended_is_not_under_way(instance: dg.DagsterInstance, status: DagsterRunStatus):
    past_run(instance, "ingest", status)
    assert under_way(instance, "ingest") is None


@pytest.mark.parametrize(
    ("history", "seconds"),
    [
        ([], 0),
        ([SUCCESS], 0),
        ([FAILURE], 10),
        ([FAILURE, FAILURE], 20),
        ([FAILURE, FAILURE, FAILURE], 40),
        ([FAILURE, SUCCESS], 0),
        ([FAILURE, FAILURE, SUCCESS, FAILURE], 10),
        # A person has stepped in.
        ([FAILURE, FAILURE, CANCELED], 0),
        ([FAILURE] * 7, LONGEST_WAIT_SECONDS),
        ([FAILURE] * 20, LONGEST_WAIT_SECONDS),
    ],
)
def test_the_wait_doubles_with_each_failure_in_a_row(
    instance: dg.DagsterInstance, history: list[DagsterRunStatus], seconds: float
):
    for status in history:
        past_run(instance, "ingest", status)
    ended = end_of_newest(instance) if history else time.time()
    assert wait_after_failures(instance, "ingest", ended) == seconds
    assert wait_after_failures(instance, "ingest", ended + seconds - 1) == max(0, min(1, seconds))
    assert wait_after_failures(instance, "ingest", ended + seconds) == 0


def looks_until_due(results: list[dg.SensorResult]) -> tuple[dg.SensorResult, int]:
    """Return an evaluation's result, and how many looks it took; from then on each look has the last result."""
    looks: list[dg.SensorResult] = []

    def look() -> dg.SensorResult:
        looks.append(results[min(len(looks), len(results) - 1)])
        return looks[-1]

    return look_until_due(look), len(looks)


SKIPPED = [dg.SensorResult(skip_reason=f"nothing {number}") for number in range(3)]
DUE = dg.SensorResult(run_requests=[dg.RunRequest()])


def test_an_evaluation_ends_with_the_look_that_finds_a_run_due(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "0.1")
    assert looks_until_due([*SKIPPED[:2], DUE, SKIPPED[2]]) == (DUE, 3)


def test_an_evaluation_ends_before_the_next_one_would_begin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "0.1")
    monkeypatch.setattr(runs, "LOOKING_SECONDS", 0.15)
    result, looks = looks_until_due(SKIPPED)
    assert (result, looks) == (SKIPPED[1], 2)


def test_another_jobs_failures_do_not_count(instance: dg.DagsterInstance):
    past_run(instance, "refresh", FAILURE)
    assert wait_after_failures(instance, "ingest", time.time()) == 0


def test_the_wait_counts_from_the_end_of_a_run_not_from_its_start(instance: dg.DagsterInstance):
    started = time.time()
    past_run(instance, "ingest", FAILURE, seconds_ago=-3600)
    ended = end_of_newest(instance)
    assert ended >= started + 3600
    assert wait_after_failures(instance, "ingest", ended) == 10


def test_a_metadata_value_is_none_where_nothing_was_reported(instance: dg.DagsterInstance):
    materialize(instance, "raw_events", offsets={"0": 7})
    event = instance.get_latest_materialization_event(dg.AssetKey("raw_events"))
    assert metadata_value(event, "offsets") == {"0": 7}
    assert metadata_value(event, "batch") is None
    assert metadata_value(None, "offsets") is None
