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
    assert {"spark-sql-kafka-0-10_2.13-4.0.0.jar", "delta-spark_2.13-4.0.0.jar", "hadoop-aws-3.4.1.jar"} <= {
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
    # Two of that name: JetBrains' and AWS's.
    assert artifacts(spark_jars(jars_path)) & artifacts(shipped) == {"annotations"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_only_what_is_missing_is_fetched_and_a_failure_leaves_the_rest(sparks_jars_only, monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1")
    said: list[str] = []
    with pytest.raises(LocalStackError, match="did not answer"):
        fetch_jars(sparks_jars_only, said.append)
    assert "Fetching the jars of kafka, elasticsearch into" in said[0]
    assert "153 MB" in said[0]
    assert spark_jars(sparks_jars_only)


@pytest.mark.parametrize("configuration", [Configuration.KAFKA, Configuration.SPARK])
def test_what_is_fetched_is_as_much_as_was_said(jars_path, configuration):
    """Of Elasticsearch only the unpacked archive is kept."""
    kept = sum(path.stat().st_size for path in (fetch_jars(jars_path, print) / configuration).iterdir())
    assert kept == pytest.approx(configuration.size, rel=0.05)


@pytest.fixture
def slow_java(tmp_path: Path) -> Path:
    """The home of a program that fetches as Ivy does, from nowhere, and is not too fast to be watched."""
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(
        f"""#!/bin/sh
case "$1" in -XshowSettings*) echo "java.home = {home}"; echo "java.specification.version = 17"; exit ;; esac
ivy=${{1#-Divy.default.ivy.user.dir=}}
for last; do :; done
target=${{last%/*}}
mkdir -p "$ivy/cache" "$target"
for part in 1 2 3; do head -c 1000000 /dev/zero >>"$ivy/cache/a.jar.part"; sleep 0.6; done
mv "$ivy/cache/a.jar.part" "$ivy/cache/a.jar"
cp "$ivy/cache/a.jar" "$target/a.jar"
"""
    )
    java.chmod(0o755)
    return home


@pytest.mark.slow
def test_fetching_says_how_much_it_is_and_how_far_it_has_come(tmp_path, slow_java, monkeypatch):
    monkeypatch.setattr(jars, "_LINE_SECONDS", 0.5)
    wanted = [Configuration.KAFKA, Configuration.SPARK]
    said: list[str] = []
    fetch_jars(tmp_path / "lines", said.append, slow_java, wanted)
    assert "73 MB, once" in said[0]
    steps = [line for line in said if line.startswith("Fetched kafka ")]
    assert steps[0] in {f"Fetched kafka {n} of 46 MB, spark {m} of 27 MB" for n in (1, 2) for m in (0, 1, 2)}
    watched: list[int] = []
    said.clear()
    fetch_jars(
        tmp_path / "bars",
        said.append,
        slow_java,
        wanted,
        lambda now: watched.append(now[Configuration.SPARK]),
    )
    assert watched == sorted(watched)
    assert {1_000_000, 3_000_000} <= set(watched)
    assert not [line for line in said if " of 46 MB" in line]


def test_too_little_disk_space_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(jars, "NEEDED_BYTES", 10**18)
    with pytest.raises(LocalStackError, match=f"JARS_PATH={tmp_path} has .* MB are needed"):
        fetch_jars(tmp_path, print)
