"""Fixtures that all tests share: both engines and the real servers. What a test asks for decides its marks."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.configuration
import pytest

from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine, spark_session
from clickstream_assets.engine.jars import fetch_jars, spark_jars
from clickstream_assets.local.stack import SERVERS, Stack
from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import PrivateServer, pipeline_environment, private_server

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("without_deadline", deadline=None)
hypothesis.settings.load_profile("without_deadline")
# By default in the current folder, which is another in each test: its table of characters, which takes 1.4 s to make,
# would be made in each process, and examples that failed would be forgotten.
hypothesis.configuration.set_hypothesis_home_dir(Path(__file__).parents[1] / ".hypothesis")

# Most of a test's time would be spent on compiling queries, by Spark to Java and by Java to machine code, that then see
# a few rows. Half the time without; the demo's test runs them compiled.
FOR_A_FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.driver.extraJavaOptions": "-Dlog4j2.level=warn -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss8m",
}
# The tests' events are of days that mean something, and of public data sets; before anything reads it.
os.environ.setdefault("EVENTS_START_DATE", "2010-01-01")
DATA = Path(__file__).parents[2] / "shared" / "data"


NEEDS = {
    "duckdb_engine": "duckdb",
    "spark_engine": "spark",
    "stack": "server",
    "private_postgres": "server",
}
"""The mark that a test gets for each of these fixtures, asked for by itself or by another fixture."""
# Tests that take a minute or more. What begins last would have all other processes wait for it.
FIRST = (
    "e2e/test_pipeline.py",
    "test_spark_cluster.py",
    "deploy/test_containers.py",
    "streaming/test_process.py",
)
# Modules with a fixture that takes seconds, once for all of their tests.
TOGETHER = (
    "api/test_app.py",
    "api/test_hung_servers.py",
    "api/test_outages.py",
    "defs/test_launcher.py",
    "deploy/test_helm.py",
    "local/test_stack.py",
    "stores/kafka/test_login.py",
    "test_crashes.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """End on SIGTERM as on Ctrl-C, in each process: what ends at once would leave its servers running.

    Raises:
        UsageError: pytest and xdist are of versions that do not keep the tests of a group in one process.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption("dist", None) == "loadgroup" and not hasattr(pytest.Item, "_nodeid"):
        raise pytest.UsageError(
            "this pytest has no Item._nodeid, by which pytest-xdist keeps groups together: the tests would take "
            "minutes longer; see the pin of pytest in pyproject.toml"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark each test with what it needs, leave what takes Spark long to `make proofs`, and run the longest first."""
    for item in items:
        needs = {NEEDS[name] for name in item.fixturenames if name in NEEDS}
        if "engine" in item.fixturenames:
            needs.add(str(item.callspec.params["engine"]))
        if item.get_closest_marker("long_on_spark") and "spark" in needs:
            needs.add("long")
        for need in sorted(needs):
            item.add_marker(need)
        if "spark" in needs:
            # One process for all of them: each Spark has to compile what runs the first time, for a minute of a core.
            item.add_marker(pytest.mark.xdist_group("spark"))
        elif item.path.as_posix().endswith(TOGETHER):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
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
    """The stack of which the fixtures below start their server; with CLICKSTREAM_TEST_HOME, one that runs there."""
    jars = Settings(_env_file=None).jars_path
    if home := os.environ.get("CLICKSTREAM_TEST_HOME"):
        yield Stack(Path(home), jars)
        return
    with tempfile.TemporaryDirectory(prefix="clickstream-tests-") as home:
        stack = Stack(Path(home), jars)
        try:
            yield stack
        finally:
            stack.down()


def _environment(stack: Stack, *servers: str) -> dict[str, str]:
    """The environment that names these servers of the stack, and none that was not asked for."""
    others = tuple(f"{kind.name.upper()}_" for kind in SERVERS if kind.name not in servers)
    return {name: value for name, value in stack.env().items() if not name.startswith(others)}


def _settings(stack: Stack, *servers: str) -> Settings:
    """Settings that name these servers, which are up."""
    if "CLICKSTREAM_TEST_HOME" not in os.environ:
        only = [kind for kind in SERVERS if kind.name in servers]
        stack.up(dagster_yaml=Path(__file__).parents[1] / "dagster.yaml", only=only)
    values: dict[str, Any] = {name.lower(): value for name, value in _environment(stack, *servers).items()}
    return Settings(_env_file=None, **values)


@pytest.fixture(scope="session")
def kafka(stack: Stack) -> Settings:
    """Settings that name a running Kafka."""
    return _settings(stack, "kafka")


@pytest.fixture(scope="session")
def postgres(stack: Stack) -> Settings:
    """Settings that name a running PostgreSQL."""
    return _settings(stack, "postgres")


@pytest.fixture(scope="session")
def elasticsearch(stack: Stack) -> Settings:
    """Settings that name a running Elasticsearch."""
    return _settings(stack, "elasticsearch")


@pytest.fixture(scope="session")
def servers(stack: Stack) -> Settings:
    """Settings that name a running Kafka, PostgreSQL and Elasticsearch, started at once."""
    return _settings(stack, "kafka", "postgres", "elasticsearch")


@pytest.fixture(scope="module")
def private_postgres() -> Iterator[PrivateServer]:
    """A PostgreSQL of a test module's own, to stop and start."""
    with private_server() as server:
        yield server


@pytest.fixture
def pipeline_env(
    stack: Stack, kafka: Settings, postgres: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Settings]:
    """The environment of a pipeline of its own on Kafka and PostgreSQL: a topic, a database and a lake."""
    environment = _environment(stack, "kafka", "postgres")
    with pipeline_environment(postgres, environment, monkeypatch, tmp_path) as settings:
        yield settings
