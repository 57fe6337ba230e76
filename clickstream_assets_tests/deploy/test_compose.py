"""docker-compose.yml: that it is one, and that it says what the rest of the project does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from clickstream_assets.engine.jars import IVY_FILE
from clickstream_assets.engine.spark import authentication
from clickstream_assets.local.kafka import Kafka
from clickstream_assets.local.postgres import installed_programs
from clickstream_assets.local.spark import RECOVERY
from clickstream_assets.settings import DatabaseRole, Settings, secret_names
from clickstream_assets_tests.deploy.files import (
    COMPOSE_FILE,
    OUR_IMAGE,
    OURS,
    PASSWORDS,
    ROOT,
    SECRETS_FOLDER,
    SERVICES,
    compose_secrets,
    compose_services,
    dockerfile_instructions,
    image_environment,
    is_long_running,
    java_options,
)

LONG_RUNNING = [name for name, service in SERVICES.items() if is_long_running(service)]


def test_the_file_is_what_the_compose_specification_says():
    checker = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def pinned_in_ivy(name: str) -> str:
    (dependency,) = ET.parse(IVY_FILE).findall(f"dependencies/dependency[@name='{name}']")
    return dependency.attrib["rev"]


def postgres_of_the_wheel() -> str:
    said = subprocess.check_output([installed_programs() / "postgres", "--version"], text=True)
    return re.findall(r"\d+\.\d+", said)[0]


def test_the_servers_are_those_of_the_one_machine_stack():
    images = {name: service["image"].partition("@")[0] for name, service in SERVICES.items()}
    elastic = pinned_in_ivy("elasticsearch")
    assert images["kafka"] == f"apache/kafka:{pinned_in_ivy('kafka_2.13')}"
    assert images["postgres"] == f"postgres:{postgres_of_the_wheel()}-bookworm"
    assert images["elasticsearch"] == f"docker.elastic.co/elasticsearch/elasticsearch:{elastic}"
    assert images["kibana"] == images["kibana-objects"] == f"docker.elastic.co/kibana/kibana:{elastic}"


def test_our_image_has_our_version():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"{OUR_IMAGE}:{project['version']}"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str):
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_get_no_variable_that_nobody_reads(name: str):
    settings = {field.upper() for field in Settings.model_fields}
    files = {f"{name.upper()}_FILE" for name in secret_names(Settings)}
    # https://spark.apache.org/docs/4.0.0/spark-standalone.html, and Python's own.
    others = {"PATH", "PYTHONUNBUFFERED", "SPARK_DAEMON_MEMORY", "SPARK_MASTER_OPTS", "SPARK_WORKER_OPTS"}
    given = image_environment() | SERVICES[name].get("environment", {})
    assert set(given) <= settings | files | others
    assert Settings(_env_file=None, **{key.lower(): value for key, value in given.items()})


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_the_secrets_whose_files_it_reads_and_no_others(name: str):
    service = SERVICES[name]
    files = {
        value
        for key, value in service.get("environment", {}).items()
        if key.endswith("_FILE") and not key.endswith("_CA_FILE")
    }
    files |= set(re.findall(r"cat (\S+)\)", str(service.get("entrypoint"))))
    assert files == {f"{SECRETS_FOLDER}/{secret}" for secret in service.get("secrets", [])}
    assert set(service.get("secrets", [])) <= set(compose_secrets(PASSWORDS))


def test_a_container_has_the_passwords_of_its_own_role_alone():
    dagsters, pipelines = "database_dagster_password", "database_pipeline_password"
    assert {name: set(service["secrets"]) for name, service in SERVICES.items() if "secrets" in service} == {
        "postgres": {"database_password", "database_admin_password"},
        # It makes the others.
        "migrate": {"database_password", "database_api_password", pipelines, dagsters},
        "api": {"database_api_password"},
        "stream": {pipelines, dagsters, "spark_secret"},
        "code-server": {pipelines, dagsters, "spark_secret"},
        "webserver": {dagsters},
        "daemon": {dagsters},
        "backup": {pipelines, dagsters},
        # It makes the tables, and the roles' rights on them.
        "restore": {"database_password", "database_api_password", pipelines, dagsters},
        "dagster": {"webserver_password"},
        "spark-master": {"spark_secret"},
        "spark-worker": {"spark_secret"},
    }


@pytest.mark.parametrize(
    "name", [name for name in OURS if "POSTGRES_HOST" in SERVICES[name].get("environment", {})]
)
def test_a_container_connects_as_the_roles_whose_passwords_it_has(name: str):
    environment = {key.lower(): value for key, value in SERVICES[name]["environment"].items()}
    settings = Settings(_env_file=None, **{k: v for k, v in environment.items() if not k.endswith("_file")})
    users = {settings.login(role).user for role in DatabaseRole}
    assert users == {"clickstream", "clickstream_api", "clickstream_pipeline", "clickstream_dagster"}
    has = {role for role in DatabaseRole if f"{role}_password_file" in environment}
    if name not in ("migrate", "restore"):
        assert DatabaseRole.OWNER not in has
    # Whoever speaks to Dagster's instance, which the API does not.
    assert (DatabaseRole.DAGSTER in has) == (name != "api")


@pytest.mark.parametrize("name", ["spark-master", "spark-worker"])
def test_the_clusters_processes_trust_whom_the_pipeline_makes_known(name: str, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("of the cluster")
    shell = [
        part.replace("/tmp/", f"{tmp_path}/").replace("/run/secrets/spark_secret", str(secret))
        for part in SERVICES[name]["entrypoint"]
    ]
    done = subprocess.run(
        [*shell, "echo", *SERVICES[name]["command"]], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [*SERVICES[name]["command"], "--properties-file", f"{tmp_path}/spark.conf"]
    written = tmp_path / "spark.conf"
    assert dict(line.split("=", 1) for line in written.read_text().splitlines()) == authentication(
        "of the cluster"
    )
    assert written.stat().st_mode & 0o777 == 0o600


def test_dagsters_web_server_is_reached_by_its_login_and_whoever_it_asks():
    on_its_network = {
        name for name, service in SERVICES.items() if "webserver" in service.get("networks", [])
    }
    assert on_its_network == {"webserver", "dagster", "postgres", "code-server"}
    assert "default" not in SERVICES["webserver"]["networks"] + SERVICES["dagster"]["networks"]
    port = dict(pairwise(SERVICES["webserver"]["command"]))["--port"]
    assert SERVICES["dagster"]["environment"]["WEBSERVER"] == f"webserver:{port}"


def test_the_logins_files_are_all_that_it_has():
    service = SERVICES["dagster"]
    assert service["volumes"] == ["./deploy/dagster:/etc/caddy:ro"]
    assert service["entrypoint"] == ["sh", "/etc/caddy/start.sh"]
    assert {path.name for path in (ROOT / "deploy" / "dagster").iterdir()} == {"Caddyfile", "start.sh"}
    variables = set(re.findall(r"\{\$(\w+)", (ROOT / "deploy" / "dagster" / "Caddyfile").read_text()))
    assert variables == {
        *("WEBSERVER", "WEBSERVER_HOST", "WEBSERVER_PORT", "WEBSERVER_LOGIN", "WEBSERVER_USER"),
        # The script's.
        "WEBSERVER_PASSWORD_HASH",
    }


def test_only_pages_and_the_api_are_published_and_only_to_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    pages = {"dagster", "kibana", "kafka-ui", "spark-master", "prometheus", "alertmanager", "grafana"}
    assert set(published) == {"api"} | pages
    ports = [port for ports in published.values() for port in ports]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_is_to_stay_up_is_watched_and_started_again(name: str):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


@pytest.mark.parametrize("name", sorted(set(OURS) & set(LONG_RUNNING)))
def test_what_hangs_is_ended_so_that_it_is_started_again(name: str):
    service = SERVICES[name]
    assert service["init"]
    assert " ".join(service["healthcheck"]["test"][1:]).startswith("check-health ")
    # The check has to end what it runs before Docker ends the check.
    patience = re.findall(r"timeout .*?(\d+) \"", (ROOT / "deploy" / "check-health").read_text())
    assert [service["healthcheck"]["timeout"]] > [f"{seconds}s" for seconds in patience]


def test_one_service_builds_the_image_and_the_others_wait_for_it_or_need_nothing_of_the_pipeline():
    building = [name for name, service in SERVICES.items() if "build" in service]
    assert building == ["migrate"]
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}

    def waits_for(name: str) -> set[str]:
        return {name}.union(*(waits_for(other) for other in SERVICES[name].get("depends_on", {})))

    assert {name for name in OURS if "migrate" not in waits_for(name)} == {"spark-master", "spark-worker"}


def test_the_authority_of_servers_elsewhere_is_known_where_the_settings_say():
    def given(variables: dict[str, str]) -> set[tuple[str, str]]:
        services = compose_services(PASSWORDS | variables)
        return {
            (name, variable)
            for name in OURS
            for variable, value in services[name].get("environment", {}).items()
            if variable.endswith("_CA_FILE") and value == services[name]["configs"][0]["target"]
        }

    assert given({}) == set()
    assert given({"CA_FILE": "./shop.pem"}) == {
        *(
            (name, "KAFKA_CA_FILE")
            for name in ("migrate", "stream", "code-server", "api", "simulator", "backup", "restore")
        ),
        *((name, "ELASTICSEARCH_CA_FILE") for name in ("stream", "code-server", "api")),
    }
    # Executors read it too.
    assert SERVICES["spark-worker"]["configs"] == SERVICES["stream"]["configs"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded(name: str):
    assert set(SERVICES[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_come_about(name: str):
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        runs_on = "service_healthy" if is_long_running(SERVICES[other]) else "service_completed_successfully"
        assert wanted == {"condition": runs_on}
        assert set(SERVICES[other].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def test_who_touches_the_lake_finds_it_under_one_path():
    home = image_environment()["CLICKSTREAM_HOME"]
    with_lake = {name for name in SERVICES if f"lake:{home}" in SERVICES[name].get("volumes", [])}
    assert with_lake == {"stream", "code-server", "spark-worker", "simulator", "backup", "restore"}


def test_every_volume_is_declared_and_every_file_is_there():
    volumes = set(yaml.safe_load(COMPOSE_FILE.read_text())["volumes"])
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    files = {mount for mount in mounts if mount.startswith("./")}
    assert mounts - files == volumes
    assert all((ROOT / file).exists() for file in files)


def test_the_cluster_has_room_for_the_streams_and_a_run():
    worker = SERVICES["spark-worker"]
    offered = dict(pairwise(worker["command"]))
    taken = SERVICES["code-server"]["environment"]
    cores = worker["deploy"]["replicas"] * int(offered["--cores"])
    assert int(taken["STREAM_CORES_MAX"]) + int(taken["SPARK_CORES_MAX"]) <= cores
    executor = Settings.model_fields["spark_executor_memory"].default
    assert (offered["--memory"], executor) == ("2g", "1g")


def test_sparks_master_remembers_its_applications_on_a_volume():
    options = java_options(SERVICES["spark-master"]["environment"]["SPARK_MASTER_OPTS"])
    folder = options.pop("spark.deploy.recoveryDirectory")
    assert options == RECOVERY
    assert f"spark:{folder}" in SERVICES["spark-master"]["volumes"]
    # Docker gives a new volume the owner that the folder has in the image.
    (made,) = [arguments for _, arguments in dockerfile_instructions() if "useradd" in arguments]
    assert folder in made.partition("install --directory --owner=clickstream")[2].split()


def test_workers_forget_applications_that_have_ended():
    options = java_options(SERVICES["spark-worker"]["environment"]["SPARK_WORKER_OPTS"])
    assert options["spark.worker.cleanup.enabled"] == "true"
    assert (
        int(options["spark.worker.cleanup.interval"])
        < int(options["spark.worker.cleanup.appDataTtl"])
        <= 3600
    )


def test_kafka_is_set_up_as_on_one_machine(tmp_path: Path):
    lines = Kafka(tmp_path, 9092)._properties(Path("/var/lib/kafka/data"), 9093).splitlines()
    local = dict(line.split("=", 1) for line in lines)
    composed = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }
    addresses = {"listeners", "advertised.listeners", "controller.quorum.voters"}
    # There all is kept for ever, for whoever tries things out.
    retention = {"log.retention.hours": "720", "log.roll.hours": "24"}
    assert (local.pop("log.retention.ms"), retention) == (
        "-1",
        {name: composed.pop(name) for name in retention},
    )
    assert {name: local.get(name) for name in composed if name not in addresses} == {
        name: value for name, value in composed.items() if name not in addresses
    }
    # What is not set has to do with how fast one broker on one machine starts and how small it is.
    left_out = {
        re.sub(r"\.(num\.partitions|.*ms|buffer\.size)$", "…", name) for name in set(local) - set(composed)
    }
    assert all(name.endswith("…") for name in left_out), left_out


def test_ports_are_the_same_in_the_code_in_this_file_and_in_the_image():
    """Each port that something listens on, and all who name it."""
    environment = {name: service.get("environment", {}) for name, service in SERVICES.items()}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}

    def option(service: str, name: str) -> str:
        return dict(pairwise(SERVICES[service]["command"]))[name]

    workspace = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
    code_server = str(workspace["load_from"][0]["grpc_server"]["port"])
    _, _, code_servers_check = SERVICES["code-server"]["healthcheck"]["test"][-3:]
    kafka = defaults["kafka_bootstrap_servers"].rpartition(":")[2]
    elasticsearch = defaults["elasticsearch_url"].rpartition(":")[2]
    master = option("spark-master", "--port")
    same = [
        {option("code-server", "--port"), code_server, code_servers_check},
        {str(defaults["api_port"]), environment["api"]["API_PORT"]},
        {str(defaults["postgres_port"]), environment["api"]["POSTGRES_PORT"]},
        {kafka, environment["stream"]["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2]},
        {elasticsearch, environment["api"]["ELASTICSEARCH_URL"].rpartition(":")[2]},
        {
            master,
            environment["stream"]["SPARK_MASTER"].rpartition(":")[2],
            SERVICES["spark-worker"]["command"][-1].rpartition(":")[2],
        },
    ]
    assert [ports for ports in same if len(ports) != 1] == []
    listening = {
        "api": environment["api"]["API_PORT"],
        "webserver": option("webserver", "--port"),
        "dagster": option("webserver", "--port"),
        "spark-master": option("spark-master", "--webui-port"),
        "spark-worker": option("spark-worker", "--webui-port"),
        "elasticsearch": elasticsearch,
        "kafka": kafka,
    }
    for name, port in listening.items():
        assert f"127.0.0.1:{port}" in " ".join(SERVICES[name]["healthcheck"]["test"]), name
    for name in ("api", "dagster", "spark-master"):
        assert SERVICES[name]["ports"] == [f"127.0.0.1:{listening[name]}:{listening[name]}"]
