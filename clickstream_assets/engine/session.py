"""Spark sessions: connected to, or started, as the settings say."""

import os

from clickstream_assets.engine import SparkSession, spark_config
from clickstream_assets.engine.jars import spark_jars
from clickstream_assets.engine.java import find_java
from clickstream_assets.settings import Settings


def spark_session(settings: Settings) -> SparkSession:
    """Connect to Spark, or start it; a process has one session, so every call shares it."""
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
    jars = [str(jar) for jar in spark_jars(settings.jars_path)]
    builder = SparkSession.builder
    for name, value in spark_config(settings, jars).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
