"""What all tests share: both engines, and one stack of real servers."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine
from clickstream_assets.engine.jars import fetch_jars, spark_jars
from clickstream_assets.engine.session import spark_session
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.prepare import prepare_servers

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("without_deadline", deadline=None)
hypothesis.settings.load_profile("without_deadline")

# Most of a test's time would be spent on compiling queries, by Spark to Java and by Java to machine code, that then see
# a few rows. Half the time without; the demo's test runs them compiled.
FOR_A_FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.driver.extraJavaOptions": "-Dlog4j2.level=warn -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss8m",
}
DATA = Path(__file__).parents[2] / "shared" / "data"


# Tests that take a minute or more. What begins last would have all other processes wait for it.
FIRST = (
    "e2e/test_pipeline.py",
    "test_spark_cluster.py",
    "deploy/test_containers.py",
    "streaming/test_process.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes Spark long to `make proofs`, and run first what takes longest."""
    for item in items:
        if item.get_closest_marker("long_on_spark") and "spark" in item.nodeid.partition("[")[2]:
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: not item.path.as_posix().endswith(FIRST))


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep a developer's own .env, which is read from the current folder, out of the tests."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def duckdb_engine() -> DuckDBEngine:
    return DuckDBEngine(Settings(_env_file=None))


@pytest.fixture(scope="session")
def spark_engine() -> Iterator[SparkEngine]:
    settings = Settings(
        _env_file=None, spark_master="local[2]", spark_shuffle_partitions=2, spark_config=FOR_A_FEW_ROWS
    )
    fetch_jars(settings.jars_path, print)
    assert spark_jars(settings.jars_path)
    engine = SparkEngine(lambda: spark_session(settings))
    yield engine
    engine.session.stop()


@pytest.fixture(params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, PostgreSQL and Elasticsearch: started here, or those that run in CLICKSTREAM_TEST_HOME."""
    if home := os.environ.get("CLICKSTREAM_TEST_HOME"):
        yield Stack(Path(home), Settings(_env_file=None).jars_path)
        return
    with tempfile.TemporaryDirectory(prefix="clickstream-tests-") as home:
        stack = Stack(Path(home), Settings(_env_file=None).jars_path)
        try:
            stack.up(dagster_yaml=Path(__file__).parents[1] / "dagster.yaml")
            yield stack
        finally:
            stack.down()


@pytest.fixture(scope="session")
def settings_for_stack(stack: Stack) -> Settings:
    """Settings that point to the running servers."""
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in stack.env().items()})
    prepare_servers(settings)
    return settings


@pytest.fixture
def pipeline_env(
    stack: Stack, settings_for_stack: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Settings]:
    """The environment of a pipeline of its own on the running servers: a topic, a database and a lake."""
    from clickstream_assets.settings import load_settings
    from clickstream_assets_tests.databases import fresh_database

    with fresh_database(settings_for_stack) as database:
        environment = stack.env() | {
            "KAFKA_TOPIC": f"events-{uuid.uuid4().hex[:12]}",
            "LAKE_PATH": str(tmp_path / "lake"),
            "RAW_LOGS_PATH": str(tmp_path / "raw_logs"),
            "POSTGRES_DB": database.postgres_db,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        prepare_servers(settings)
        yield settings
