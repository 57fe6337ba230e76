"""The image itself: the Compose file's containers of ours run from it, and do what those of `test_containers` do.

`make image` builds it and runs these; they are skipped without it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError

import pytest
import yaml

from clickstream_assets.engine.jars import elasticsearch_home, fetch_jars, kafka_classpath
from clickstream_assets.engine.java import find_java
from clickstream_assets.local.elasticsearch import Elasticsearch
from clickstream_assets.local.identity import server_identity
from clickstream_assets.local.kafka import Kafka
from clickstream_assets.local.ports import LOOPBACK
from clickstream_assets.local.postgres import ADMIN, Postgres, installed_programs
from clickstream_assets.local.server import Server, Tools
from clickstream_assets.settings import Settings
from clickstream_assets_tests.deploy.containers import wait_until
from clickstream_assets_tests.deploy.files import (
    COMPOSE_FILE,
    OURS,
    PASSWORDS,
    SERVICES,
    compose_secrets,
    compose_services,
    is_long_running,
    make_databases,
)
from clickstream_assets_tests.deploy.image import IMAGE
from clickstream_assets_tests.deploy.podman import (
    CONTROL_GROUP,
    SERVERS_ADDRESS,
    PodmanContainers,
    podman,
    podman_says,
)
from clickstream_assets_tests.deploy.test_containers import (
    FREQUENT_EVENTS,
    RUNS_BESIDE_THE_CLUSTER,
    SERVERS,
    ask,
    test_all_containers_of_ours_become_healthy_in_the_files_order,
    test_dagster_finds_the_code_at_the_code_server,
    test_simulated_events_come_out_of_the_api,
    test_the_streams_run_on_the_cluster,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CONTROL_GROUP not in os.environ, reason="`make image` builds the image and runs this"),
]
__all__ = [
    "test_all_containers_of_ours_become_healthy_in_the_files_order",
    "test_dagster_finds_the_code_at_the_code_server",
    "test_simulated_events_come_out_of_the_api",
    "test_the_streams_run_on_the_cluster",
]
LONG_RUNNING = [name for name in OURS if is_long_running(SERVICES[name])]
API = f"http://{LOOPBACK}:8000"


class OpenKafka(Kafka):
    """A broker that others than this machine reach."""

    def _properties(self, data: Path, controller_port: int) -> str:
        # Of a property that is there twice, the last counts.
        return super()._properties(data, controller_port) + (
            f"listeners=PLAINTEXT://0.0.0.0:{self.port},CONTROLLER://{LOOPBACK}:{controller_port}\n"
            f"advertised.listeners=PLAINTEXT://{SERVERS_ADDRESS}:{self.port}\n"
        )


class OpenPostgres(Postgres):
    """A PostgreSQL that others than this machine reach."""

    def prepare(self, tools: Tools) -> None:
        """See the base class."""
        super().prepare(tools)
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def command(self, tools: Tools) -> list[str]:
        """See the base class."""
        return [*super().command(tools), "--listen_addresses=*"]

    def configure(self) -> None:
        """Make the role and its databases as the container does."""
        server = Settings(
            _env_file=None,
            postgres_port=self.port,
            postgres_user=ADMIN,
            postgres_password=PASSWORDS["DATABASE_ADMIN_PASSWORD"],
        )
        make_databases(server, PASSWORDS["DATABASE_PASSWORD"], self.folder)


class OpenElasticsearch(Elasticsearch):
    """An Elasticsearch that others than this machine reach."""

    def command(self, tools: Tools) -> list[str]:
        """See the base class."""
        return [*super().command(tools), "-Enetwork.host=0.0.0.0"]


@contextmanager
def running(server: Server, tools: Tools) -> Iterator[None]:
    """Run a server until the block ends; it is healthy when the block begins."""
    server.make_folder("", tools.identity)
    server.prepare(tools)
    with server.log.open("wb") as output:
        command = [*tools.identity.prefix, *server.command(tools)]
        process = subprocess.Popen(command, cwd=server.folder, stdout=output, stderr=output)
    try:
        while server.problem():
            assert process.poll() is None, server.log.read_text()
            time.sleep(0.2)
        server.configure()
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The servers that are no containers, on the Compose file's ports; settings that name them."""
    jars = Settings(_env_file=None).jars_path
    fetch_jars(jars, print)
    needed = [find_java(), elasticsearch_home(jars), installed_programs()]
    home = tmp_path_factory.mktemp("servers")
    # pytest's own folders are root's alone.
    for folder in (home, *home.parents[:2]):
        folder.chmod(0o755)
    (home / "logs").mkdir()
    tools = Tools(server_identity([*needed, home]), needed[0], kafka_classpath(jars), needed[1], needed[2])
    password = PASSWORDS["DATABASE_PASSWORD"]
    databases = SERVICES["code-server"]["environment"]
    names = (databases["POSTGRES_DB"], databases["DAGSTER_POSTGRES_DB"])
    with ExitStack() as servers:
        for server in (
            OpenKafka(home, 9092),
            OpenPostgres(home, 5432, password, PASSWORDS["DATABASE_ADMIN_PASSWORD"], names),
            OpenElasticsearch(home, 9200),
        ):
            servers.enter_context(running(server, tools))
        yield Settings(_env_file=None, kafka_bootstrap_servers=f"{LOOPBACK}:9092", postgres_password=password)


@pytest.fixture(scope="module")
def ports() -> dict[int, int]:
    """The ports that the Compose file publishes, as they are."""
    return {port: port for port in (3000, 8000, 8080)}


@pytest.fixture(scope="module")
def containers(
    own_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodmanContainers]:
    """All containers of ours but the simulator, healthy."""
    services = compose_services(PASSWORDS | FREQUENT_EVENTS | RUNS_BESIDE_THE_CLUSTER)
    # Its login is another image's.
    services["webserver"]["ports"] = services["dagster"]["ports"]
    # No CA_FILE.
    configs = dict.fromkeys(yaml.safe_load(COMPOSE_FILE.read_text())["configs"], "/dev/null")
    secrets = tmp_path_factory.mktemp("secrets")
    for name, secret in compose_secrets(PASSWORDS).items():
        (secrets / name).write_text(secret)
        # As Compose makes them, for the user of whichever image.
        (secrets / name).chmod(0o444)
    with PodmanContainers(services, SERVERS, configs, secrets) as started:
        started.bring_up(name for name in OURS if "profiles" not in services[name])
        yield started


def test_what_came_in_is_published_by_itself(containers: PodmanContainers):
    """The daemon's sensors have had it ingested and computed."""
    wait_until(lambda: bool(ask(f"{API}/sessions")["sessions"]))
    (user, *_) = [session["user_id"] for session in ask(f"{API}/sessions")["sessions"]]

    def is_recommended_to() -> bool:
        try:
            return bool(ask(f"{API}/api/recommend/{user}")["items"])
        except HTTPError as error:
            # Models are trained after the first tables are there.
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return False

    wait_until(is_recommended_to)


def test_every_container_is_still_healthy_and_none_was_started_again(containers: PodmanContainers):
    containers.bring_up(["simulator"])
    assert {name: containers.check(name).returncode for name in LONG_RUNNING} == dict.fromkeys(
        LONG_RUNNING, 0
    )
    states = {c: containers.state(c) for name in LONG_RUNNING for c in containers.replicas(name)}
    assert {state["Status"] for state in states.values()} == {"running"}
    assert not any(state["OOMKilled"] for state in states.values())
    assert not any(containers.restarts(container) for container in states)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_container_has_the_files_user_and_no_power(containers: PodmanContainers, name: str):
    asked = containers.run(
        name, ["sh", "-c", "id -u; grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/self/status"]
    )
    user, *status = asked.stdout.splitlines()
    assert user == "10001"
    assert dict(line.split(":\t") for line in status) == {
        "NoNewPrivs": "1",
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
    }


def test_a_container_that_hangs_is_ended_and_started_again(containers: PodmanContainers):
    # All of the container but its init and this shell.
    containers.run("api", ["sh", "-c", "kill -s STOP -- -1"])
    assert containers.check("api").returncode != 0
    containers.run("api", ["sh", "-c", "touch --date='6 minutes ago' /tmp/failing-since-*"])
    containers.check("api")
    (container,) = containers.replicas("api")
    wait_until(lambda: containers.restarts(container) == 1)
    wait_until(lambda: containers.check("api").returncode == 0)
    assert "Unhealthy for 5 minutes: killed" in podman("logs", container).stderr


def test_nothing_of_the_machine_that_built_it_is_in_the_image():
    variables = podman_says(
        "image", "inspect", IMAGE, "--format", "{{range .Config.Env}}{{println .}}{{end}}"
    )
    assert {line.partition("=")[0] for line in variables.splitlines() if line} == {
        *("CLICKSTREAM_HOME", "DAGSTER_HOME", "JARS_PATH", "PATH", "PYTHONUNBUFFERED"),
    }
    places = "/build /mnt /root/.cache /var/lib/apt/lists"
    look = f"find {places} -type f 2>/dev/null || true"
    found = podman_says("run", "--rm", "--user=0", "--network=none", IMAGE, "sh", "-c", look)
    assert found == ""


def test_every_container_ends_when_it_is_asked_to(containers: PodmanContainers):
    codes = {name: containers.stop(name) for name in reversed(LONG_RUNNING)}
    # SIGTERM's own, where a program does not catch it; not SIGKILL's, after the grace period. Dagster's code server
    # makes an interrupt of it, which click answers with 1 if it comes to that.
    allowed = {name: {0, 1} if name == "code-server" else {0, 128 + 15} for name in codes}
    others = {name: code for name, code in codes.items() if code not in allowed[name]}
    assert others == {}, "\n".join(map(containers.end_of_log, others))
