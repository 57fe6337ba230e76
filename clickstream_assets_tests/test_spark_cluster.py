"""The pipeline on a standalone cluster of real processes, directly and through a Connect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from deltalake import DeltaTable

from clickstream_assets.catalogue import SESSIONS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.engine.jars import fetch_jars
from clickstream_assets.engine.java import find_java
from clickstream_assets.local.ports import LOOPBACK, is_free
from clickstream_assets.local.processes import is_alive
from clickstream_assets.local.spark import Cluster, connect_server, standalone_cluster, standalone_master
from clickstream_assets.settings import Settings
from clickstream_assets_tests.conftest import FOR_A_FEW_ROWS
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.deploy.containers import wait_until
from clickstream_assets_tests.ingestion import Ingestion, made_counts, simulate

pytestmark = pytest.mark.spark

RUN = [sys.executable, "-m", "clickstream_assets_tests.whole_run", "2024-05-01", "2024-05-02"]
ON_A_CLUSTER = FOR_A_FEW_ROWS | {
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss8m"
}
STREAM = [str(Path(sys.executable).parent / "clickstream"), "stream", "--once"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(_env_file=None)
    fetch_jars(settings.jars_path, print)
    with standalone_cluster(settings, tmp_path_factory.mktemp("cluster"), workers=2, cores=1) as running:
        yield running
        running.check()


def executed(command: list[str], **environment: str) -> str:
    """Run a command of the pipeline with the test's environment; return its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def tasks(cluster: Cluster) -> list[int]:
    """Return how many tasks each worker's executors have run so far."""
    return [
        sum(log.read_text(errors="replace").count("Running task") for log in worker.rglob("stderr"))
        for worker in cluster.workers
    ]


def contents(settings: Settings, lake: str) -> dict[str, object]:
    """Return how many rows each table of the ingest has, and the visits themselves."""
    ingestion = Ingestion.of(with_settings(settings, lake_path=lake), DuckDBEngine(settings))
    visits = DeltaTable(f"{lake}/{SESSIONS.name}").to_pyarrow_table().select(SESSIONS.column_names)
    return ingestion.counts() | {"sessions": visits.sort_by(SESSIONS.key[-1]).to_pylist()}


# Three whole runs, two of them on five JVMs that compile what they run once.
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_cluster_and_a_connect_server_compute_what_one_process_does(
    cluster: Cluster, pipeline_env: Settings, tmp_path: Path
):
    made = simulate(pipeline_env, events=400, share=0.02)
    lakes = {engine: str(tmp_path / engine) for engine in ("alone", "cluster", "connect")}
    executed(RUN, LAKE_PATH=lakes["alone"])
    alone = contents(pipeline_env, lakes["alone"])
    assert {name: alone[name] for name in made_counts(made)} == made_counts(made)

    of_a_few_rows = {"SPARK_CONFIG": json.dumps(ON_A_CLUSTER)}
    session = executed(RUN, LAKE_PATH=lakes["cluster"], SPARK_MASTER=cluster.master, **of_a_few_rows)
    assert session.split()[-1] == "pyspark.sql.session"
    assert contents(pipeline_env, lakes["cluster"]) == alone
    of_batch = tasks(cluster)
    assert min(of_batch) > 0
    ((users,),) = query(pipeline_env, "SELECT count(DISTINCT user_id)::int FROM product_recommendations")
    assert users > made.users / 2

    executed(STREAM, LAKE_PATH=lakes["cluster"], SPARK_MASTER=cluster.master, **of_a_few_rows)
    assert query(pipeline_env, "SELECT max(rows) FROM stream_status") == [(made.sent,)]
    of_streams = tasks(cluster)
    assert all(now > before for now, before in zip(of_streams, of_batch, strict=True))

    on_cluster = with_settings(pipeline_env, spark_master=cluster.master, spark_config=ON_A_CLUSTER)
    with connect_server(on_cluster, tmp_path / "connect-server") as (remote, server):
        session = executed(RUN, LAKE_PATH=lakes["connect"], SPARK_REMOTE=remote)
        server.check()
    assert session.split()[-1] == "pyspark.sql.connect.session"
    assert contents(pipeline_env, lakes["connect"]) == alone
    assert all(now > before for now, before in zip(tasks(cluster), of_streams, strict=True))


APPLICATION = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master(sys.argv[1]).config("spark.ui.enabled", "false").getOrCreate()
for _ in sys.stdin:
    print(spark.range(1000).repartition(2).count(), flush=True)
"""


def applications(cluster: Cluster) -> list[tuple[str, str]]:
    """The applications that the master knows, with their states; none while it is away or has no worker."""
    try:
        with urlopen(f"{cluster.page}/json/", timeout=5) as answer:
            said = json.load(answer)
    except OSError:
        return []
    ready = said["status"] == "ALIVE" and said["aliveworkers"]
    return [(app["id"], app["state"]) for app in said["activeapps"]] if ready else []


@pytest.mark.long
def test_an_application_goes_on_with_a_master_that_is_started_again(tmp_path: Path):
    settings = Settings(_env_file=None)
    environment = {
        "JAVA_HOME": str(find_java(settings.java_home).parents[1]),
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "SPARK_LOCAL_IP": LOOPBACK,
    }
    with (
        standalone_cluster(settings, tmp_path, workers=1, cores=1) as cluster,
        (tmp_path / "application.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", APPLICATION, cluster.master],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as application,
    ):
        asking, answers = application.stdin, application.stdout
        assert asking
        assert answers

        def count() -> str:
            asking.write("\n")
            asking.flush()
            return answers.readline()

        assert count() == "1000\n"
        (before,) = applications(cluster)
        assert before[1] == "RUNNING"
        cluster.processes[0].kill()
        ports = [int(address.rsplit(":", 1)[1]) for address in (cluster.master, cluster.page)]
        with standalone_master(settings, tmp_path, *ports):
            wait_until(lambda: applications(cluster) == [before])
            assert count() == "1000\n"
            asking.close()
            assert application.wait(60) == 0


SECRET = "marked-secret-of-the-cluster"
COUNTS = """
import sys
from clickstream_assets.engine import spark_session
from clickstream_assets.settings import load_settings
session = spark_session(load_settings())
print(session.range(1000).repartition(2).count())
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.long
def test_a_cluster_with_a_secret_runs_programs_of_those_who_know_it(tmp_path: Path):
    settings = Settings(_env_file=None, spark_secret=SECRET)
    environment = {"SPARK_CONFIG": json.dumps(ON_A_CLUSTER | {"spark.task.maxFailures": "1"})}

    def start(**variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COUNTS],
            env=os.environ | environment | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def commands(process: psutil.Process) -> str:
        family = [process, *process.children(recursive=True)]
        return "\0".join(argument for each in family if is_alive(each) for argument in each.cmdline())

    with standalone_cluster(settings, tmp_path, workers=1, cores=1) as cluster:
        with start(SPARK_MASTER=cluster.master, SPARK_SECRET=SECRET) as application:
            assert application.stdout
            # Java says first on which address it listens.
            assert "1000\n" in iter(application.stdout.readline, "")
            (worker,) = cluster.processes[1:]
            shown = commands(psutil.Process(application.pid)) + commands(psutil.Process(worker.pid))
            assert "CoarseGrainedExecutorBackend" in shown
            assert "spark.network.crypto.enabled" in shown
            assert SECRET not in shown
            application.communicate()
        with start(SPARK_MASTER=cluster.master, SPARK_SECRET="another") as stranger:
            counted, said = stranger.communicate()
        assert stranger.returncode
        assert "1000\n" not in counted
        assert SECRET not in counted + said


@pytest.mark.long
def test_nothing_is_left_when_a_cluster_ends(tmp_path: Path):
    with standalone_cluster(Settings(_env_file=None), tmp_path / "cluster", workers=1, cores=1) as running:
        ports = [int(address.rsplit(":", 1)[1]) for address in (running.master, running.page)]
        assert not any(is_free(port) for port in ports)
    assert all(is_free(port) for port in ports)
