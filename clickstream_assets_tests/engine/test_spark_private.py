"""Spark's undocumented parts that we use are as they were when they were read."""

from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pyspark
import pytest

from clickstream_assets.engine import spark_private
from clickstream_assets.engine.jars import fetch_jars, spark_jars
from clickstream_assets.settings import Settings

_STREAMING = "org/apache/spark/sql/execution/streaming"
_CONDITIONS = "spark-common-utils", "error/error-conditions.json"


def test_it_is_the_version_that_was_read():
    assert version("pyspark") == "4.0.5", (
        "read engine/spark_private.py against the new version, then raise this one"
    )


@pytest.mark.parametrize(
    ("jar", "entry", "text"),
    [
        ("spark-sql-kafka", "org/apache/spark/sql/kafka010/KafkaExceptions$.class", "KAFKA_DATA_LOSS"),
        ("spark-sql-kafka", "org/apache/spark/sql/kafka010/KafkaMicroBatchStream.class", "failOnDataLoss"),
        (
            "kafka-clients",
            "org/apache/kafka/clients/consumer/internals/FetchCollector.class",
            "OffsetOutOfRange",
        ),
        ("spark-core", "org/apache/spark/ExecutorLostFailure.class", "ExecutorLostFailure"),
        ("spark-core", "org/apache/spark/scheduler/TaskSchedulerImpl.class", "Lost executor"),
        ("spark-core", "org/apache/spark/FetchFailed.class", "FetchFailed"),
        (
            "spark-core",
            "org/apache/spark/api/python/BasePythonRunner$ReaderIterator$$anonfun$1.class",
            "Python worker exited unexpectedly",
        ),
        ("spark-core", "org/apache/spark/api/python/PythonWorkerFactory.class", "failed to connect back"),
        (*_CONDITIONS, "CONCURRENT_STREAM_LOG_UPDATE"),
        (*_CONDITIONS, "Multiple streaming jobs detected"),
        (*_CONDITIONS, '"STATE_STORE_'),
        (*_CONDITIONS, '"STATEFUL_'),
        ("spark-sql_", f"{_STREAMING}/state/StateSchemaCompatibilityChecker.class", "StateSchema"),
        ("spark-sql_", f"{_STREAMING}/CheckpointFileManager.class", "CheckpointFileManager"),
        ("spark-sql_", f"{_STREAMING}/StreamExecution$.class", spark_private.QUERY_ID),
        ("spark-sql_", f"{_STREAMING}/MicroBatchExecution.class", "batchWatermarkMs"),
        (
            "spark-sql_",
            f"{_STREAMING}/StreamingDeduplicateWithinWatermarkExec.class",
            "dedupeWithinWatermark",
        ),
        ("hadoop-aws", "org/apache/hadoop/fs/s3a/AWSClientIOException.class", "s3a/AWSClientIOException"),
    ],
)
def test_texts_are_in_its_jars(jar: str, entry: str, text: str):
    settings = Settings(_env_file=None)
    fetch_jars(settings.jars_path, print)
    jars = [*Path(pyspark.__path__[0], "jars").glob("*.jar"), *map(Path, spark_jars(settings.jars_path))]
    (path,) = [path for path in jars if path.name.startswith(jar)]
    assert text.encode() in ZipFile(path).read(entry)


def test_the_innermost_error_of_a_stack_trace_is_found():
    trace = "org.apache.spark.SparkException: Job aborted\n\tat a.B.c\nCaused by: java.io.IOException: disk\n\tat d"
    assert spark_private.innermost(trace) == "IOException: disk"
    assert spark_private.innermost("plain words\nand more") == "plain words"
