"""Errors of Spark's queries, as the streams report them."""

from typing import Any

import pytest

from clickstream_assets.errors import DiskFullError, is_retryable
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.topic import DataLossError, TimestampError
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem
from clickstream_assets.streaming.checkpoint import CheckpointError
from clickstream_assets.streaming.errors import (
    LOST_TO_LIVE_EVENTS,
    BatchError,
    ServerAwayError,
    StreamError,
    guarded,
    query_error,
)

SETTINGS = Settings(_env_file=None)


@pytest.mark.parametrize(
    ("partition", "named"),
    [
        ("web-3", "records of web that"),
        ("web-app-0.", "records of web-app that"),
        ("[web-0, web-app-12]", "records of web, web-app that"),
        ("other-0", "records of clicks, web, web-app that"),
    ],
)
def test_lost_records_are_said_with_their_topic(partition: str, named: str):
    settings = Settings(_env_file=None, kafka_topic="clicks,web=segment,web-app=ga4")
    text = (
        f"[KAFKA_DATA_LOSS.START_OFFSET_RESET] Starting offset for {partition} was 3 but consumer reset to 7."
    )
    assert named in str(query_error(Exception(text), settings))


@pytest.mark.parametrize(
    ("text", "kind", "says", "retryable"),
    [
        (
            "x\nCaused by: org.apache.kafka.common.errors.TimeoutException: Call(callName=describeTopics) timed out",
            TopicError,
            "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092: TimeoutException: Call",
            True,
        ),
        (
            "x\njava.lang.ArithmeticException: long overflow\n\tat Math.multiplyExact\n\tat X.millisToMicros",
            TimestampError,
            "message.timestamp.after.max.ms",
            False,
        ),
        ("[KAFKA_DATA_LOSS.INITIAL_OFFSET_NOT_FOUND] gone", DataLossError, "ALLOW_DATA_LOSS=true", False),
        ("[STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE] no", CheckpointError, "--rebuild", False),
        (
            "BatchError: Py4JJavaError: An error\nclickstream_assets.elasticsearch.ElasticsearchError: away: there",
            ServerAwayError,
            "away: there",
            True,
        ),
        (
            "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 6.0 failed 4 times, "
            "most recent failure: Lost task 0.3 (TID 9): ExecutorLostFailure (executor 3 exited) Reason: worker lost",
            ServerAwayError,
            "ExecutorLostFailure",
            True,
        ),
        (
            "x\nCaused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
            ServerAwayError,
            "Python worker exited unexpectedly",
            True,
        ),
        (
            "org.apache.spark.SparkException: [CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log. Multiple "
            "streaming jobs detected for 7.",
            ServerAwayError,
            "Multiple streaming jobs detected for 7",
            True,
        ),
        (
            "x\norg.apache.spark.sql.execution.streaming.CheckpointFileManager\nCaused by: java.io.IOException: "
            "No space left on device",
            DiskFullError,
            "bytes free, LAKE_PATH=",
            True,
        ),
        ("java.lang.IllegalStateException: what", StreamError, "IllegalStateException: what", False),
    ],
)
def test_an_error_of_spark_becomes_one_of_ours(text: str, kind: type[Exception], says: str, retryable: bool):
    error = query_error(RuntimeError(text), SETTINGS)
    assert type(error) is kind
    assert says in str(error)
    assert is_retryable(error) is retryable


def test_what_kafka_has_deleted_before_it_was_a_live_event_is_not_looked_for_in_the_lake():
    error = query_error(RuntimeError("[KAFKA_DATA_LOSS] gone"), SETTINGS, LOST_TO_LIVE_EVENTS)
    assert "run `clickstream stream --rebuild` to begin anew with what Kafka has" in str(error)
    assert "lake" not in str(error)


def test_an_error_of_ours_stays_as_it_is():
    error = PostgresError(PostgresProblem.TABLE_MISSING, "x")
    assert query_error(error, SETTINGS) is error


def test_a_failing_batch_gives_spark_the_causes_alone():
    trace = "\n".join(f"\tat java.base/some.Class.method(Class.java:{line})" for line in range(5000))

    def write(rows: Any, batch_id: int) -> None:
        raise RuntimeError(f"first\n{trace}\nCaused by: java.io.IOException: last\n{trace}")

    with pytest.raises(BatchError) as caught:
        guarded(write)(None, 0)
    assert str(caught.value) == "RuntimeError: first\nCaused by: java.io.IOException: last"
