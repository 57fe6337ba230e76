"""The compute engine, as a Dagster resource."""

import os
from typing import Any

import dagster as dg

from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine, spark_config
from clickstream_assets.resources.settings import SettingsResource
from clickstream_assets.settings import EngineName, Settings


class ComputeResource(dg.ConfigurableResource):
    """Gives assets the engine that the settings name; Spark starts when it is first used, and not before."""

    settings: SettingsResource

    def engine(self) -> Engine:
        """Return the engine. A process has one Spark session, so every call shares it."""
        settings = self.settings.get()
        if settings.engine is EngineName.DUCKDB:
            return DuckDBEngine(settings)
        return SparkEngine(lambda: spark_session(settings))


def spark_session(settings: Settings) -> Any:
    """Connect to Spark, or start it, as the settings say."""
    if settings.spark_remote:
        from pyspark.sql import SparkSession

        session = SparkSession.builder.remote(settings.spark_remote).getOrCreate()
        # All else is configured where the server is, but days are UTC wherever that is.
        session.conf.set("spark.sql.session.timeZone", "UTC")
        return session
    from dagster_pyspark import LazyPySparkResource

    from clickstream_assets.local.jars import spark_jars
    from clickstream_assets.local.java import find_java

    # PySpark would take any Java, also one that Spark 4.0 does not start with.
    os.environ.setdefault("JAVA_HOME", str(find_java(settings.java_home).parents[1]))
    # Each of a Java's many threads would have an arena of its own, and keep in it what it frees: 60 MB in all.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    jars = [str(jar) for jar in spark_jars(settings.jars_path)]
    return LazyPySparkResource(spark_config=spark_config(settings, jars)).spark_session
