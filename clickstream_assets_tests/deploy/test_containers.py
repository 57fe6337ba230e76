"""Our containers in earnest: their commands, variables and health checks, on real servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import yaml
from deltalake import DeltaTable

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.local.ports import free_port
from clickstream_assets.local.postgres import installed_programs
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets_tests.conftest import FOR_A_FEW_ROWS
from clickstream_assets_tests.databases import PrivateServer, with_settings
from clickstream_assets_tests.deploy.containers import LOOPBACK, Containers, Processes, wait_until
from clickstream_assets_tests.deploy.files import (
    OURS,
    PASSWORDS,
    ROOT,
    SECRETS_FOLDER,
    SERVICES,
    compose_secrets,
    compose_services,
    make_databases,
)

pytestmark = pytest.mark.long

SERVERS = {"kafka", "postgres", "elasticsearch"}
FREQUENT_EVENTS = {"SIMULATOR_INTERVAL": "0.01"}
# Of the two workers there is one here, whose cores the streams have.
RUNS_BESIDE_THE_CLUSTER = {"COMPUTE_ENGINE": "duckdb"}
# Half the time that these JVMs take to start goes into compiling what then runs once.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"


@pytest.fixture(scope="module")
def own_settings(
    servers: Settings, private_postgres: PrivateServer, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A topic's and an alias's names, and a PostgreSQL as its container makes it when it is new."""
    name = uuid4().hex[:12]
    server = private_postgres.settings
    make_databases(
        with_settings(server, postgres_db="postgres"),
        PASSWORDS["DATABASE_PASSWORD"],
        tmp_path_factory.mktemp("databases"),
    )
    return with_settings(
        servers,
        postgres_port=server.postgres_port,
        kafka_topic=f"events-{name}",
        elasticsearch_alias=f"live_{name}",
        elasticsearch_alerts_index=f"alerts_{name}",
    )


@pytest.fixture(scope="module")
def ports(stack: Stack, own_settings: Settings) -> dict[int, int]:
    """The containers' ports, and what they are here."""
    env = stack.env()
    return {
        9092: int(env["KAFKA_BOOTSTRAP_SERVERS"].split(":")[1]),
        5432: own_settings.postgres_port,
        9200: int(env["ELASTICSEARCH_URL"].rpartition(":")[2]),
        **{port: free_port() for port in (3000, 4000, 7077, 8000, 8080, 8081)},
    }


@pytest.fixture(scope="module")
def containers(
    own_settings: Settings, ports: dict[int, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    """All containers of ours but the simulator, healthy; sensors look once, before there is anything to do."""
    folder = tmp_path_factory.mktemp("containers")
    folders = {
        path: folder / path.strip("/")
        for path in ("/opt/dagster", "/opt/clickstream", "/var/lib/clickstream", "/var/lib/spark", "/backups")
    }
    for path in (*folders.values(), folder / "tmp"):
        path.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", folders["/opt/dagster"])
    workspace = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    assert server["host"] in SERVICES
    server |= {"host": LOOPBACK, "port": ports[server["port"]]}
    (folders["/opt/clickstream"] / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    (folder / "secrets").mkdir(mode=0o700)
    folders |= {
        SECRETS_FOLDER: folder / "secrets",
        "/opt/venv/bin": Path(sys.executable).parent,
        "/opt/jars": Settings(_env_file=None).jars_path,
        "/tmp": folder / "tmp",
    }
    variables = PASSWORDS | FREQUENT_EVENTS | RUNS_BESIDE_THE_CLUSTER
    services = compose_services(variables)
    for name, secret in compose_secrets(variables).items():
        (folder / "secrets" / name).write_text(secret)
    environment = {
        "KAFKA_TOPIC": own_settings.kafka_topic,
        "ELASTICSEARCH_ALIAS": own_settings.elasticsearch_alias,
        "ELASTICSEARCH_ALERTS_INDEX": own_settings.elasticsearch_alerts_index,
        "SENSOR_INTERVAL_SECONDS": "3600",
        "STREAM_SENSOR_SECONDS": "3600",
        "SPARK_CONFIG": json.dumps({k: v for k, v in FOR_A_FEW_ROWS.items() if "Java" not in k}),
        "SPARK_LOCAL_IP": LOOPBACK,
        # What the servers' own containers need not be told: there it is the usual one.
        "PGPORT": str(ports[5432]),
        "JAVA_TOOL_OPTIONS": QUICK_JVM,
    }
    with Processes(services, SERVERS, ports, folders, environment, folder) as started:
        started.bring_up(name for name in OURS if "profiles" not in services[name])
        yield started


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body else None
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=20) as answer:
        return json.load(answer)


def latest_events(api: str) -> list[dict[str, Any]]:
    try:
        return ask(f"{api}/real-time-events")["real_time_events"]
    except HTTPError as error:
        # Elasticsearch has made the day's index and not yet opened it.
        if error.code == 503:
            return []
        raise


def test_all_containers_of_ours_become_healthy_in_the_files_order(containers: Containers):
    assert containers.up == SERVERS | {name for name in OURS if "profiles" not in SERVICES[name]}


@pytest.mark.parametrize(
    ("name", "program"),
    # Kafka's is of its distribution, of which only the broker's jars are here.
    [("postgres", installed_programs() / "pg_isready"), ("elasticsearch", shutil.which("curl"))],
)
def test_a_servers_health_check_holds(
    containers: Containers, monkeypatch: pytest.MonkeyPatch, name: str, program: Path | None
):
    if not program:
        pytest.skip("curl, which Elasticsearch's image has, is not installed")
    monkeypatch.setenv("PATH", f"{Path(program).parent}:{os.environ['PATH']}")
    checked = containers.check(name)
    assert checked.returncode == 0, checked.stderr


def test_dagster_finds_the_code_at_the_code_server(containers: Containers, ports: dict[int, int]):
    entries = "locationEntries { name loadStatus locationOrLoadError { __typename } }"
    loaded = f"{{ workspaceOrError {{ ... on Workspace {{ {entries} }} }} }}"
    answer = ask(f"http://{LOOPBACK}:{ports[3000]}/graphql", {"query": loaded})
    assert answer["data"]["workspaceOrError"]["locationEntries"] == [
        {
            "name": "clickstream_assets",
            "loadStatus": "LOADED",
            "locationOrLoadError": {"__typename": "RepositoryLocation"},
        }
    ]
    assert ask(f"http://{LOOPBACK}:{ports[3000]}/server_info")["dagster_version"] == version("dagster")


def test_the_streams_run_on_the_cluster(containers: Containers, ports: dict[int, int]):
    (application,) = ask(f"http://{LOOPBACK}:{ports[8080]}/json/")["activeapps"]
    assert application["cores"] == int(SERVICES["stream"]["environment"]["STREAM_CORES_MAX"])


def test_simulated_events_come_out_of_the_api(
    containers: Containers, ports: dict[int, int], own_settings: Settings
):
    api = f"http://{LOOPBACK}:{ports[8000]}"
    containers.bring_up(["simulator"])
    wait_until(lambda: sum(offsets.high for offsets in Topics(own_settings).offsets().values()) >= 300)
    assert containers.stop("simulator") == 0
    wait_until(lambda: len(latest_events(api)) == 10)
    assert ask(f"{api}/health/ready") == {
        "status": "ready",
        "dependencies": {"postgres": "ok", "tables": "ok", "elasticsearch": "ok", "recent_events": "ok"},
    }


def test_a_run_brings_what_was_simulated_into_the_lake(
    containers: Containers, ports: dict[int, int], own_settings: Settings
):
    graphql = f"http://{LOOPBACK}:{ports[3000]}/graphql"
    code = 'repositoryLocationName: "clickstream_assets", repositoryName: "__repository__"'
    launch = f'launchRun(executionParams: {{selector: {{{code}, jobName: "ingest"}}}})'
    query = f"mutation {{ {launch} {{ __typename ... on LaunchRunSuccess {{ run {{ runId }} }} }} }}"
    launched = ask(graphql, {"query": query})["data"]["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess"
    query = f'{{ runOrError(runId: "{launched["run"]["runId"]}") {{ ... on Run {{ status }} }} }}'

    def status() -> str:
        return ask(graphql, {"query": query})["data"]["runOrError"]["status"]

    wait_until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"))
    assert status() == "SUCCESS"
    sent = sum(offsets.high for offsets in Topics(own_settings).offsets().values())
    raw = DeltaTable(str(containers.folder("/var/lib/clickstream") / "lake" / RAW_EVENTS.name))
    assert raw.to_pyarrow_table().num_rows == sent >= 300


def test_a_backup_is_made_with_the_pipelines_rights(containers: Containers):
    containers.bring_up(["backup"])
    (backup,) = containers.folder("/backups").glob("clickstream/*/backup.json")
    made = json.loads(backup.read_text())["backup"]
    assert made["lake"]["tables"]
    assert made["postgres"]["tables"]
    assert made["dagster"]["tables"]


def test_who_does_not_know_the_clusters_secret_runs_nothing_on_it(
    containers: Containers, ports: dict[int, int], tmp_path: Path
):
    program = "from pyspark.sql import SparkSession; SparkSession.builder.getOrCreate().range(3).count()"
    stranger = {
        "PYSPARK_SUBMIT_ARGS": f"--master spark://{LOOPBACK}:{ports[7077]} pyspark-shell",
        "SPARK_LOCAL_IP": LOOPBACK,
        "HOME": str(tmp_path),
    }
    environment = {key: os.environ[key] for key in ("PATH", "JAVA_HOME") if key in os.environ} | stranger
    tried = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert tried.returncode != 0
    (application,) = ask(f"http://{LOOPBACK}:{ports[8080]}/json/")["activeapps"]
    assert application["name"] != "pyspark-shell"
