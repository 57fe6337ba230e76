"""Spark: a local, remote or cluster session, and how it is configured and started."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from clickstream_assets.engine.base import BatchFunction, DataFrame, Engine, Part, SparkSession
from clickstream_assets.engine.jars import spark_jars
from clickstream_assets.engine.java import find_java
from clickstream_assets.files import write_private
from clickstream_assets.settings import EngineName, Settings


class SparkEngine(Engine):
    """Spark: a local, remote or cluster session, given by whoever owns its life."""

    name = EngineName.SPARK

    def __init__(self, session: Callable[[], SparkSession]) -> None:
        self._get_session = session

    @cached_property
    def session(self) -> SparkSession:
        """The Spark session, started at first use."""
        # Local workers would take the first python3 on PATH, which need not be the one with our packages, and
        # PySpark reads its choice from nowhere else.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        return self._get_session()

    def from_arrow(self, data: pa.Table) -> DataFrame:
        """Ship an Arrow table to Spark."""
        # PySpark 4.0 loses rows without a word where one of the table's chunks is empty.
        return self.session.createDataFrame(data.combine_chunks())

    def to_arrow(self, df: DataFrame) -> pa.Table:
        """Collect a DataFrame to the driver."""
        return df.toArrow()

    def to_batches(self, df: DataFrame) -> Generator[pa.RecordBatch, None, None]:
        """Bring a DataFrame to the driver a task's rows after the other's: all of them may be more than it takes.

        A task's rows are in an executor's memory at once, several times, so they are no more than `_ROWS_OF_A_TASK`. To
        know how many tasks that makes the rows are counted first, and kept on the executors' disks meanwhile. Spark has
        no Arrow for rows that come one by one, so each batch comes as the bytes of one value.
        """
        from pyspark import StorageLevel

        is_kept_by_others = df.storageLevel != StorageLevel.NONE
        rows = df if is_kept_by_others else self.persist(df)
        try:
            tasks = -(-rows.count() // _ROWS_OF_A_TASK)
            # As for `map_arrow`.
            written = rows.repartition(max(1, tasks)).mapInArrow(_as_bytes, f"{_BYTES} binary")  # type: ignore[arg-type]
            for row in written.toLocalIterator(prefetchPartitions=True):
                yield from pa.ipc.open_stream(row[_BYTES])
        finally:
            if not is_kept_by_others:
                self.release(rows)

    def read_delta(self, path: str, schema: pa.Schema, version: int, part: Part) -> DataFrame:
        """Read with delta-spark, which skips files by what is asked of their columns."""
        table = self.session.read.format("delta").option("versionAsOf", version).load(path)
        return part.of(table.select(*schema.names))

    def map_arrow(self, df: DataFrame, function: BatchFunction, schema: pa.Schema) -> DataFrame:
        """Run the function on Spark's Python workers."""
        from pyspark.sql.pandas.types import from_arrow_schema

        # Its type takes any iterable; what Spark calls it with is an iterator.
        return df.mapInArrow(function, from_arrow_schema(schema))  # type: ignore[arg-type]

    def start_map_arrow(
        self, df: DataFrame, function: BatchFunction, schema: pa.Schema
    ) -> Callable[[], DataFrame]:
        """Leave it to whoever first asks for rows."""
        mapped = self.map_arrow(df, function, schema)
        return lambda: mapped

    def persist(self, df: DataFrame) -> DataFrame:
        """Keep on the executors' disks: in memory, a batch of ingest would take the heap that its joins need."""
        from pyspark import StorageLevel

        return df.persist(StorageLevel.DISK_ONLY)

    def release(self, df: DataFrame) -> None:
        """Drop the cache."""
        df.unpersist()


# What Spark itself does not show (`spark.redaction.regex`).
_SECRET = re.compile(r"secret|password|token|access\.?key|credential", re.IGNORECASE)
_BYTES = "batch"
_ROWS_OF_A_TASK = 100_000
"""Some 40 MB of sessions, whose rows are among the longest."""


def _as_bytes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write each batch into one value, as a stream of Arrow's."""
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.record_batch([pa.array([sink.getvalue().to_pybytes()], pa.binary())], names=[_BYTES])


def _garbage_collector() -> str:
    """Option for the collector that throughput wants, unless the environment names one: Java does not start with two.

    Java's default keeps pauses short at the expense of a seventh more processor time in an ingest.
    """
    named = (os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"))
    return "" if re.search(r"-XX:\+Use\w+GC\b", " ".join(named)) else " -XX:+UseParallelGC"


def authentication(secret: str) -> dict[str, str]:
    """Return the configuration by which processes of a cluster trust those alone that know a secret, and encrypt."""
    return {
        "spark.authenticate": "true",
        "spark.authenticate.secret": secret,
        "spark.network.crypto.enabled": "true",
        # What tasks leave on disks for others.
        "spark.io.encryption.enabled": "true",
    }


def write_properties(path: Path, configuration: Mapping[str, str]) -> None:
    """Write configuration to a file for Spark's `--properties-file`, which only this user can read.

    In a command everybody on the machine could.
    """
    named: dict[str, str | int | None] = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
    escaped = str.maketrans(named)
    lines = (f"{name}={value.translate(escaped)}" for name, value in configuration.items())
    write_private(path, "\n".join([*lines, ""]).encode())


@contextmanager
def _out_of_the_command(configuration: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Have a driver that is started meanwhile read what is secret from a file; yield the rest.

    PySpark puts all that a session is configured with into the command of its Java.
    """
    secret = {name: value for name, value in configuration.items() if _SECRET.search(name)}
    given = {name: value for name, value in configuration.items() if name not in secret}
    if not secret:
        yield given
        return
    arguments = "PYSPARK_SUBMIT_ARGS"
    before = os.environ.get(arguments)
    with tempfile.TemporaryDirectory(prefix="clickstream-spark-") as folder:
        file = Path(folder, "spark.conf")
        write_properties(file, secret)
        # With the user's own defaults, which the file would take the place of.
        options = f"--properties-file {file} --load-spark-defaults"
        os.environ[arguments] = f"{options} {before or 'pyspark-shell'}"
        try:
            yield given
        finally:
            del os.environ[arguments]
            if before is not None:
                os.environ[arguments] = before


def spark_config(settings: Settings, jars: Iterable[str] = ()) -> dict[str, str]:
    """Spark configuration for a session that the pipeline starts itself; `jars` are local files."""
    config = {
        # Of what Kubernetes allows in a name.
        "spark.app.name": "clickstream-assets",
        "spark.master": settings.spark_master or "local[*]",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.spark_shuffle_partitions),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": settings.spark_driver_host,
        "spark.driver.bindAddress": settings.spark_driver_bind_address or settings.spark_driver_host,
        "spark.executor.memory": settings.spark_executor_memory,
        # Java's own serializer holds on to the last hundred objects of a stream: of a DataFrame that is kept on disk,
        # a hundred batches of up to 4 MB a task.
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        # Such a batch is that large by one of its rows, whose record may be of any size.
        "spark.kryoserializer.buffer.max": "512m",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "16384",
        # Records may be large: 16,384 of 1 MB are more than a worker's memory.
        "spark.sql.execution.arrow.maxBytesPerBatch": "67108864",
        # The region is AWS_REGION's, as everywhere else; unset, Hadoop would take it from the endpoint's name. Endpoint
        # and keys come from AWS_ENDPOINT_URL and its like by Spark itself.
        "spark.hadoop.fs.s3a.endpoint.region": "",
        # As delta-rs addresses a bucket, which a server of one's own understands too.
        "spark.hadoop.fs.s3a.path.style.access": "true",
        # Delta's own log cache defaults to a size for clusters.
        "spark.databricks.delta.snapshotPartitions": "2",
        # ALS has a lineage as long as its iterations, and tasks are read recursively: 25 were too many for 1 MB.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.level=warn -Xss8m{_garbage_collector()}",
        "spark.executor.extraJavaOptions": "-Xss8m",
    }
    if (secret := settings.spark_secret) and config["spark.master"].startswith("spark://"):
        config |= authentication(secret.get_secret_value())
    if settings.spark_cores_max:
        config["spark.cores.max"] = str(settings.spark_cores_max)
    jar_list = list(jars)
    if jar_list:
        # The driver hands them to the executors.
        config["spark.jars"] = ",".join(jar_list)
    return config | settings.spark_config


def spark_session(
    settings: Settings, start: Callable[[dict[str, str]], SparkSession] | None = None
) -> SparkSession:
    """Connect to Spark, or start it; a process has one session, so every call shares it.

    `start` makes a session of a configuration (default: PySpark's own builder).
    """
    from pyspark.sql import SparkSession

    if settings.spark_remote:
        session = SparkSession.builder.remote(settings.spark_remote).getOrCreate()
        # All else is configured where the server is, but days are UTC wherever that is.
        session.conf.set("spark.sql.session.timeZone", "UTC")
        return session
    # PySpark would take any Java, also one that Spark 4.0 does not start with.
    os.environ.setdefault("JAVA_HOME", str(find_java(settings.java_home).parents[1]))
    # Each of a Java's many threads would have an arena of its own, and keep in it what it frees: 60 MB in all.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    config = spark_config(settings, [str(jar) for jar in spark_jars(settings.jars_path)])
    with _out_of_the_command(config) as given:
        if start:
            return start(given)
        return SparkSession.builder.config(map={**given}).getOrCreate()
