"""Fetching the servers and Spark's jars."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from clickstream_assets.engine import jars
from clickstream_assets.engine.jars import (
    Configuration,
    elasticsearch_home,
    fetch_jars,
    kafka_classpath,
    spark_jars,
)
from clickstream_assets.errors import LocalStackError
from clickstream_assets.settings import Settings


@pytest.fixture(scope="module")
def jars_path() -> Path:
    path = Settings(_env_file=None).jars_path
    fetch_jars(path, print)
    return path


def artifacts(files: list[Path]) -> set[str]:
    """Names without version."""
    return {re.sub(r"-\d[\w.-]*\.jar$", "", file.name) for file in files}


def test_a_second_fetch_does_nothing_and_needs_neither_java_nor_network(jars_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    said: list[str] = []
    before = sorted((path, path.stat().st_mtime_ns) for path in jars_path.iterdir())
    assert fetch_jars(jars_path, said.append, java_home=Path("/nonexistent")).is_dir()
    assert said == []
    assert sorted((path, path.stat().st_mtime_ns) for path in jars_path.iterdir()) == before


def test_the_pinned_servers_and_connectors_are_there(jars_path):
    kafka = {path.name for path in Path(kafka_classpath(jars_path)).parent.iterdir()}
    assert {"kafka_2.13-4.3.1.jar", "kafka-clients-4.3.1.jar", "log4j-slf4j-impl-2.25.4.jar"} <= kafka
    assert {"spark-sql-kafka-0-10_2.13-4.0.0.jar", "delta-spark_2.13-4.0.0.jar"} <= {
        path.name for path in spark_jars(jars_path)
    }
    launcher = elasticsearch_home(jars_path) / "bin" / "elasticsearch"
    assert elasticsearch_home(jars_path).name == "elasticsearch-8.19.21"
    assert os.access(launcher, os.X_OK)


def test_spark_gets_no_jar_twice(jars_path):
    spec = find_spec("pyspark")
    assert spec
    assert spec.submodule_search_locations
    shipped = list(Path(spec.submodule_search_locations[0], "jars").glob("*.jar"))
    assert artifacts(spark_jars(jars_path)).isdisjoint(artifacts(shipped))


def test_a_network_that_does_not_answer_is_named_and_leaves_nothing_to_be_taken_for_whole(
    tmp_path, monkeypatch
):
    # Nothing listens on port 1, so every connection is refused at once.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1")
    with pytest.raises(LocalStackError) as error:
        fetch_jars(tmp_path, print)
    assert "org.apache.kafka#kafka_2.13;4.3.1" in str(error.value)
    assert "did not answer (java.net.ConnectException" in str(error.value)
    with pytest.raises(LocalStackError, match="clickstream fetch-jars"):
        spark_jars(tmp_path)


@pytest.fixture
def sparks_jars_only(jars_path, tmp_path) -> Path:
    """A folder that has nothing but what `--only spark` fetches."""
    fetched = fetch_jars(jars_path, print)
    only = tmp_path / fetched.name / Configuration.SPARK
    only.parent.mkdir()
    only.symlink_to(fetched / Configuration.SPARK)
    return tmp_path


def test_a_part_that_is_there_is_enough_for_who_asks_for_it(sparks_jars_only, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    said: list[str] = []
    fetch_jars(sparks_jars_only, said.append, Path("/nonexistent"), [Configuration.SPARK])
    assert said == []
    assert spark_jars(sparks_jars_only)
    with pytest.raises(LocalStackError, match="The jars of kafka have not been fetched"):
        kafka_classpath(sparks_jars_only)


def test_only_what_is_missing_is_fetched_and_a_failure_leaves_the_rest(sparks_jars_only, monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1")
    said: list[str] = []
    with pytest.raises(LocalStackError, match="did not answer"):
        fetch_jars(sparks_jars_only, said.append)
    assert [line for line in said if "Fetching jars for kafka, elasticsearch into" in line] == said
    assert spark_jars(sparks_jars_only)


def test_too_little_disk_space_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(jars, "NEEDED_BYTES", 10**18)
    with pytest.raises(LocalStackError, match=f"JARS_PATH={tmp_path} has .* MB are needed"):
        fetch_jars(tmp_path, print)
