"""What the always-on process tells Dagster, and what it makes of Spark's errors and reports."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import DataLossError, KafkaError, Offsets
from clickstream_assets.stores.postgres.connection import PostgresError, Problem
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.errors import (
    LOST_TO_LIVE_EVENTS,
    BatchError,
    ServerAwayError,
    StreamError,
    explain,
    guarded,
    needs_person,
)
from clickstream_assets.streaming.report import Reporter, metadata
from clickstream_assets.streaming.status import Status

SETTINGS = Settings(_env_file=None)


def test_materializations_are_in_dagsters_history(tmp_path: Path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    status = Status("product_windows", batch_id=7, rows=100, dropped_late=2, lag={0: 3, 1: 4})
    reporter = Reporter(Settings(_env_file=None, dagster_home=tmp_path))
    reporter.report(["product_windows", "flash_sale_alerts"], metadata(status, 1.5, 2))
    instance = dg.DagsterInstance.from_config(str(tmp_path))
    for asset in ("product_windows", "flash_sale_alerts"):
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event
        assert event.asset_materialization
        values = {name: value.value for name, value in event.asset_materialization.metadata.items()}
        assert values == {
            "batch": 7,
            "rows": 100,
            "dropped_late": 2,
            "lag": 7,
            "offsets_behind": {"0": 3, "1": 4},
            "latency_seconds": 1.5,
            "open_alerts": 2,
        }


def test_a_dagster_that_cannot_be_told_does_not_stop_the_streams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: NOT_SET_ANYWHERE}}}\n")
    Reporter(Settings(_env_file=None, dagster_home=tmp_path)).report(["product_windows"], {})
    (record,) = [record for record in caplog.records if record.name.endswith("report")]
    assert record.getMessage().startswith(f"DAGSTER_HOME={tmp_path}: Dagster was not told of product_windows")
    assert "NOT_SET_ANYWHERE" in record.getMessage()


def test_without_dagster_one_line_says_so(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    reporter = Reporter(SETTINGS)
    for _ in range(2):
        reporter.report(["product_windows"], {})
    assert [record.getMessage() for record in caplog.records] == [
        "DAGSTER_HOME is not set, so Dagster is told nothing of what the streams do"
    ]


class Report:
    def __init__(self, batch_id: int, rows: int, late: int) -> None:
        dedupe = {"operatorName": "dedupeWithinWatermark"}
        self.json = json.dumps(
            {
                "batchId": batch_id,
                "numInputRows": rows,
                "processedRowsPerSecond": 10.0,
                "eventTime": {"watermark": "2024-05-01T12:00:00.000Z"},
                "stateOperators": [
                    {"operatorName": "stateStoreSave", "numRowsDroppedByWatermark": 0},
                    dedupe | {"numRowsDroppedByWatermark": 0},
                    dedupe | {"numRowsDroppedByWatermark": late},
                ],
                "sources": [{"endOffset": '{"events":{"0":5,"1":6}}'}],
            }
        )


class Query:
    def __init__(self, *reports: Report) -> None:
        self.recentProgress = reports


def test_a_batch_is_taken_in_once_however_often_it_is_reported():
    status = Status("q")
    assert status.take_in(Query(Report(0, 10, 1), Report(1, 5, 2))) == (15, 3)  # type: ignore[arg-type]
    assert status.take_in(Query(Report(1, 5, 2), Report(2, 1, 0))) == (1, 0)  # type: ignore[arg-type]
    assert (status.rows, status.dropped_late, status.batch_id) == (16, 3, 2)
    status.compare({0: Offsets(0, 9), 1: Offsets(0, 6), 2: Offsets(3, 4)})
    assert status.lag == {0: 4, 1: 0, 2: 1}
    assert status.watermark == datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "kind", "says", "is_for_a_person"),
    [
        (
            "x\nCaused by: org.apache.kafka.common.errors.TimeoutException: Call(callName=describeTopics) timed out",
            KafkaError,
            "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092: TimeoutException: Call",
            False,
        ),
        ("[KAFKA_DATA_LOSS.INITIAL_OFFSET_NOT_FOUND] gone", DataLossError, "ALLOW_DATA_LOSS=true", True),
        ("[STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE] no", CheckpointError, "--rebuild", True),
        (
            "BatchError: Py4JJavaError: An error\nclickstream_assets.elasticsearch.ElasticsearchError: away: there",
            ServerAwayError,
            "away: there",
            False,
        ),
        (
            "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 6.0 failed 4 times, "
            "most recent failure: Lost task 0.3 (TID 9): ExecutorLostFailure (executor 3 exited) Reason: worker lost",
            ServerAwayError,
            "ExecutorLostFailure",
            False,
        ),
        (
            "x\nCaused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
            ServerAwayError,
            "Python worker exited unexpectedly",
            False,
        ),
        (
            "org.apache.spark.SparkException: [CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log. Multiple "
            "streaming jobs detected for 7.",
            ServerAwayError,
            "Multiple streaming jobs detected for 7",
            False,
        ),
        ("java.lang.IllegalStateException: what", StreamError, "IllegalStateException: what", True),
    ],
)
def test_an_error_of_spark_is_told_as_what_it_means(
    text: str, kind: type[Exception], says: str, is_for_a_person: bool
):
    error = explain(RuntimeError(text), SETTINGS)
    assert type(error) is kind
    assert says in str(error)
    assert needs_person(error) is is_for_a_person


def test_what_kafka_has_deleted_before_it_was_a_live_event_is_not_looked_for_in_the_lake():
    error = explain(RuntimeError("[KAFKA_DATA_LOSS] gone"), SETTINGS, LOST_TO_LIVE_EVENTS)
    assert "run `clickstream stream --rebuild` to begin anew with what Kafka has" in str(error)
    assert "lake" not in str(error)


@pytest.mark.parametrize(("problem", "stays"), [(Problem.UNREACHABLE, False), (Problem.TABLE_MISSING, True)])
def test_of_postgres_errors_some_pass_and_some_do_not(problem: Problem, stays: bool):
    error = PostgresError(problem, "x")
    assert explain(error, SETTINGS) is error
    assert needs_person(error) is stays


def test_a_failing_batch_tells_spark_the_causes_and_no_more():
    trace = "\n".join(f"\tat java.base/some.Class.method(Class.java:{line})" for line in range(5000))

    def write(rows: Any, batch_id: int) -> None:
        raise RuntimeError(f"first\n{trace}\nCaused by: java.io.IOException: last\n{trace}")

    with pytest.raises(BatchError) as caught:
        guarded(write)(None, 0)
    assert str(caught.value) == "RuntimeError: first\nCaused by: java.io.IOException: last"
