"""The three servers, for real: a stack of our own to be hurt, and not the one that other tests share."""

import http.client
import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import full_disk
from clickstream_assets.local import keeper
from clickstream_assets.local.elasticsearch import Elasticsearch
from clickstream_assets.local.identity import make_home
from clickstream_assets.local.keeper import Keeper
from clickstream_assets.local.ports import LOOPBACK, Listener, PortsTakenError, free_port
from clickstream_assets.local.stack import Condition, Stack
from clickstream_assets.settings import Settings

HEALTHY = [
    ("Kafka", Condition.HEALTHY),
    ("PostgreSQL", Condition.HEALTHY),
    ("Elasticsearch", Condition.HEALTHY),
]
pytestmark = pytest.mark.server

TOPIC = "kept"
LARGE = b"x" * 6_000_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose servers may be killed. Its home is in a folder that only its owner can enter."""
    folder = tmp_path_factory.mktemp("stack")
    folder.chmod(0o700)
    # A path with a space, as on many a desktop.
    stack = Stack(folder / "a home", Settings(_env_file=None).jars_path)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


def pids(stack: Stack) -> list[int | None]:
    return [server.pid for server in stack.status()]


def conditions(stack: Stack) -> list[tuple[str, Condition]]:
    return [(server.title, server.condition) for server in stack.status()]


def database(stack: Stack, name: str = "clickstream") -> psycopg.Connection:
    env = stack.env()
    return psycopg.connect(
        host=env["POSTGRES_HOST"],
        port=env["POSTGRES_PORT"],
        user=env["POSTGRES_USER"],
        password=env["POSTGRES_PASSWORD"],
        dbname=name,
    )


def search(stack: Stack, method: str, path: str, body: object = None) -> dict:
    connection = http.client.HTTPConnection(
        stack.env()["ELASTICSEARCH_URL"].removeprefix("http://"), timeout=30
    )
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status < 300, answer.read()
    return json.loads(answer.read())


def store_something(stack: Stack) -> None:
    """A row, a document, and an event of 2010 and one of 6 MB, acknowledged each."""
    servers = stack.env()["KAFKA_BOOTSTRAP_SERVERS"]
    with database(stack) as connection:
        connection.execute("create table kept as select 42 as answer")
    search(stack, "PUT", "/kept/_doc/1?refresh=true", {"answer": 42})
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
    failures = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "message.max.bytes": 10**7,
            "delivery.report.only.error": True,
            "on_delivery": lambda error, _: failures.append(error),
        }
    )
    producer.produce(TOPIC, b"old", timestamp=1_262_304_000_000)
    producer.produce(TOPIC, LARGE)
    assert producer.flush(30) == 0
    assert not failures


def stored(stack: Stack) -> tuple[list[bytes], int, int]:
    """Return what `store_something` stored: the Kafka records, the row and the document."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.env()["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "other",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    records = [message.value() for message in consumer.consume(2, timeout=20)]
    consumer.close()
    with database(stack) as connection:
        row = connection.execute("select answer from kept").fetchone()
    assert row
    return records, row[0], search(stack, "GET", "/kept/_doc/1")["_source"]["answer"]


@pytest.mark.long
@pytest.mark.usefixtures("servers")
def test_two_homes_run_side_by_side(stack, own):
    assert conditions(stack) == HEALTHY
    assert conditions(own) == HEALTHY
    ports = [server.port for one in (stack, own) for server in one.status()]
    assert len(set(ports)) == 6


def test_servers_listen_on_loopback_alone(own):
    for server in own.status():
        process = psutil.Process(server.pid)
        family = [process, *process.children(recursive=True)]
        listening = [
            connection.laddr.ip
            for member in family
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {address.removeprefix("::ffff:") for address in listening} == {LOOPBACK}


def test_no_server_runs_as_root(own):
    owners = {psutil.Process(server.pid).uids().real for server in own.status()}
    assert len(owners) == 1
    assert 0 not in owners


def test_the_databases_belong_to_a_role_that_is_no_superuser(own):
    for name in ("clickstream", "dagster"):
        with database(own, name) as connection:
            row = connection.execute(
                "select pg_get_userbyid(datdba), rolsuper from pg_database, pg_roles "
                "where datname = current_database() and rolname = current_user"
            ).fetchone()
            assert row == ("clickstream", False)


def test_a_wrong_password_is_refused(own):
    port = own.env()["POSTGRES_PORT"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=LOOPBACK, port=port, user="clickstream", password="no", dbname="clickstream")


def test_what_holds_the_passwords_is_for_its_owner_alone(own):
    assert stat.S_IMODE((own.home / "stack.json").stat().st_mode) == 0o600


def test_folders_are_for_their_owner_alone(own):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in own.home.iterdir() if path.is_dir()}
    assert set(modes) == {"dagster", "elasticsearch", "kafka", "logs", "postgres"}
    assert set(modes.values()) == {0o700}
    # Root's servers run as somebody who has to pass through.
    assert stat.S_IMODE(own.home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_home_that_is_there_stays_open_to_whom_it_was(tmp_path):
    make_home(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) in (0o700, 0o711)
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    make_home(tmp_path / "old")
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755


def test_up_changes_nothing_where_all_is_up(own, tmp_path):
    env_file = tmp_path / ".env"
    own.up(env_file)
    before = pids(own), (own.home / "stack.json").stat().st_mtime_ns, env_file.stat().st_mtime_ns
    healthy: list[str] = []
    own.up(env_file, on_healthy=lambda server: healthy.append(server.title))
    assert sorted(healthy) == ["Elasticsearch", "Kafka", "PostgreSQL"]
    assert before == (pids(own), (own.home / "stack.json").stat().st_mtime_ns, env_file.stat().st_mtime_ns)


def test_the_env_file_makes_the_settings_name_the_servers(own, tmp_path, monkeypatch):
    env_file = tmp_path / ".env"
    own.up(env_file)
    env = own.env()
    for name in env:
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=env_file)
    assert settings.kafka_bootstrap_servers == env["KAFKA_BOOTSTRAP_SERVERS"]
    assert settings.elasticsearch_url == env["ELASTICSEARCH_URL"]
    assert settings.clickstream_home == own.home
    with psycopg.connect(settings.postgres_conninfo) as connection:
        assert connection.execute("select current_user").fetchone() == ("clickstream",)


def test_a_server_is_told_of_when_it_is_healthy_and_not_before(own):
    psutil.Process(pids(own)[1]).kill()
    wait = time.monotonic() + 20
    while ("PostgreSQL", Condition.CRASHED) not in conditions(own) and time.monotonic() < wait:
        time.sleep(0.05)
    found: dict[str, Condition] = {}
    own.up(on_healthy=lambda server: found.update({server.title: dict(conditions(own))[server.title]}))
    assert set(found.values()) == {Condition.HEALTHY}
    assert "PostgreSQL" in found


def test_dagsters_configuration_is_linked_unless_there_is_one(own, tmp_path):
    configuration = tmp_path / "dagster.yaml"
    configuration.write_text("telemetry:\n  enabled: false\n")
    own.up(dagster_yaml=configuration)
    link = Path(own.env()["DAGSTER_HOME"]) / "dagster.yaml"
    assert link.read_text() == configuration.read_text()
    link.unlink()
    link.write_text("my: own\n")
    own.up(dagster_yaml=configuration)
    assert link.read_text() == "my: own\n"


def test_killed_servers_are_recovered_with_their_data(own):
    store_something(own)
    before = {server.title: (server.pid, server.port) for server in own.status()}
    kafka, postgres = (psutil.Process(pid) for pid in pids(own)[:2])
    kafka.kill()
    postgres.kill()
    gone, _ = psutil.wait_procs([kafka, postgres], timeout=20)
    assert len(gone) == 2
    assert conditions(own) == [
        ("Kafka", Condition.CRASHED),
        ("PostgreSQL", Condition.CRASHED),
        ("Elasticsearch", Condition.HEALTHY),
    ]
    assert own.status()[0].problem == (
        f"`clickstream stack up` starts it again; why it ended is in {own.home / 'logs' / 'kafka.log'}"
    )
    # Somebody else's pid in what PostgreSQL left behind, as after a reboot.
    pid_file = own.home / "postgres" / "data" / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(postgres.pid), str(os.getpid()), 1))

    own.up()

    assert conditions(own) == HEALTHY
    after = {server.title: (server.pid, server.port) for server in own.status()}
    assert {title: port for title, (_, port) in after.items()} == {t: port for t, (_, port) in before.items()}
    assert after["Elasticsearch"] == before["Elasticsearch"]
    assert stored(own) == ([b"old", LARGE], 42, 42)


@pytest.mark.long
def test_a_killed_elasticsearch_node_takes_its_launcher_along_and_is_recovered(own):
    launcher = psutil.Process(own.status()[2].pid)
    (node,) = launcher.children()
    node.kill()
    psutil.wait_procs([launcher], timeout=20)
    assert conditions(own)[2] == ("Elasticsearch", Condition.CRASHED)
    kept = pids(own)[:2]
    own.up()
    assert conditions(own) == HEALTHY
    assert pids(own)[:2] == kept
    assert search(own, "GET", "/_cluster/health")["number_of_nodes"] == 1


@pytest.mark.long
def test_a_server_that_died_of_a_full_disk_says_so_when_there_is_room_again(own):
    own.up()
    with (own.home / "logs" / "kafka.log").open("a") as log:
        log.write("java.io.IOException: No space left on device\n")
    kafka = psutil.Process(pids(own)[0])
    kafka.kill()
    psutil.wait_procs([kafka], timeout=20)
    status = own.status()[0]
    assert status.condition is Condition.CRASHED
    assert status.problem
    assert "`clickstream stack up` starts it again" in status.problem
    own.up()


@pytest.mark.long
def test_a_keeper_brings_back_what_has_died_while_the_disk_was_full(own, monkeypatch):
    said: list[str] = []
    disks = iter(["no space left on it", "no space left on it", None, None])
    monkeypatch.setattr(keeper, "full_disk", lambda _: next(disks))
    keeps = Keeper(own, said.append)
    own.up()
    keeps.look()
    killed = [psutil.Process(pid) for pid in pids(own)[:2]]
    for server in killed:
        server.kill()
    psutil.wait_procs(killed, timeout=20)
    keeps.look()
    assert said == ["no space left on it: servers stop. Free some, and they are started again"]
    keeps.look()
    assert conditions(own) == HEALTHY
    assert said[1:] == ["there is room again, and all servers are up"]
    keeps.look()
    assert len(said) == 2


def test_no_room_is_named_with_the_folder():
    # Of which the system says that it has no room at all.
    assert full_disk(Path("/proc/self")) == "no space left on /proc/self (0 bytes free)"
    assert full_disk(Path("/dev/shm/not/yet/there")) is None


def test_a_pid_that_is_anothers_by_now_is_left_alone(own):
    """`stack.json` has pids that other programs have, as after a reboot."""
    state_path = own.home / "stack.json"
    state = msgspec.json.decode(state_path.read_bytes())
    own.down()
    foreign = subprocess.Popen(["sleep", "1000"])
    try:
        for server in state["servers"].values():
            # A server of just now would be as old as the other program, within the seconds that a corrected clock is
            # allowed to move it.
            server |= {"pid": foreign.pid, "created": time.time() - 60}
        state_path.write_bytes(msgspec.json.encode(state))

        assert [condition for _, condition in conditions(own)] == [Condition.CRASHED] * 3
        own.down()

        assert foreign.poll() is None
        assert [condition for _, condition in conditions(own)] == [Condition.STOPPED] * 3
    finally:
        foreign.kill()
        foreign.wait()


def test_down_where_nothing_runs_does_nothing(own, tmp_path):
    own.down()
    own.down()
    Stack(tmp_path / "never", tmp_path).down()
    assert not (tmp_path / "never").exists()


def test_a_taken_port_is_named_with_its_holder_and_the_fix(own):
    own.down()
    port = own.status()[0].port
    assert port
    with socket.create_server((LOOPBACK, port)), pytest.raises(LocalStackError) as error:
        own.up()
    message = str(error.value)
    assert f"Port {port} of Kafka is taken by process {os.getpid()} (" in message
    assert "--kafka-port" in message
    assert [condition for _, condition in conditions(own)] == [Condition.STOPPED] * 3


def test_a_port_that_another_takes_while_a_server_starts_is_noticed(own):
    """Another Elasticsearch, as it were, that answers in ours's stead before ours has come to listen."""
    own.down()
    port = own.status()[2].port
    others: list[ThreadingHTTPServer] = []

    class Green(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "green"}')

    def take_it(line: str) -> None:
        if line == "Elasticsearch: starting":
            others.append(ThreadingHTTPServer((LOOPBACK, port), Green))
            threading.Thread(target=others[0].serve_forever).start()

    watched = Stack(own.home, Settings(_env_file=None).jars_path, progress=take_it)
    try:
        with pytest.raises(
            LocalStackError, match=f"Port {port} of Elasticsearch was taken by process {os.getpid()} "
        ):
            watched.up(only=[Elasticsearch])
    finally:
        own.down()
        for other in others:
            other.shutdown()
            other.server_close()


def test_what_is_to_listen_beside_the_servers_is_looked_at_before_one_starts(own):
    own.down()
    kafka = own.status()[0].port
    with socket.create_server((LOOPBACK, 0)) as taken, socket.create_server((LOOPBACK, kafka)):
        port = taken.getsockname()[1]
        with pytest.raises(PortsTakenError) as error:
            own.up(others=[Listener("Dagster", port, "set DAGSTER_PORT")])
    assert [line.partition(" is taken")[0] for line in str(error.value).splitlines()] == [
        f"Port {port} of Dagster",
        f"Port {kafka} of Kafka",
    ]
    assert [condition for _, condition in conditions(own)] == [Condition.STOPPED] * 3


@pytest.mark.long
def test_two_ups_at_once_start_the_servers_once_on_the_ports_that_were_asked_for(own):
    own.down()
    # What an initialisation that was cut short leaves behind.
    (own.home / "postgres" / "data.partial").mkdir()
    (own.home / "kafka" / "data.partial").mkdir()
    wanted = free_port()
    said: list[str] = []
    again = Stack(own.home, Settings(_env_file=None).jars_path, progress=said.append)
    threads = [threading.Thread(target=one.up, kwargs={"ports": {"kafka": wanted}}) for one in (again, again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.endswith(": starting") for line in said) == 3
    assert any(line.startswith("Waiting for another command") for line in said)
    assert own.status()[0].port == wanted
    assert conditions(own) == HEALTHY
    with pytest.raises(LocalStackError, match=f"Kafka already runs, on port {wanted}"):
        own.up(ports={"kafka": free_port()})
    assert stored(own) == ([b"old", LARGE], 42, 42)


@pytest.mark.long
def test_a_server_that_dies_while_starting_shows_the_end_of_its_log(own):
    own.up()
    kept = pids(own)
    postgres = psutil.Process(kept[1])
    postgres.kill()
    psutil.wait_procs([postgres], timeout=20)
    version = own.home / "postgres" / "data" / "PG_VERSION"
    right = version.read_text()
    version.write_text("9\n")
    with pytest.raises(LocalStackError) as error:
        own.up()
    version.write_text(right)
    message = str(error.value)
    assert "PostgreSQL died while starting" in message
    assert str(own.home / "logs" / "postgres.log") in message
    assert "database files are incompatible with server" in message
    assert conditions(own)[1] == ("PostgreSQL", Condition.CRASHED)
    own.up()
    assert conditions(own) == HEALTHY
    assert [pids(own)[0], pids(own)[2]] == [kept[0], kept[2]]


def test_a_lost_state_file_is_an_error_and_no_new_passwords(own):
    path = own.home / "stack.json"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(LocalStackError, match="is missing, and with it the passwords"):
            own.up()
    finally:
        path.write_bytes(content)
        path.chmod(0o600)


def test_servers_are_asked_to_stop_and_leave_no_process(own):
    own.up()
    servers = [psutil.Process(pid) for pid in pids(own)]
    family = [*servers, *(child for server in servers for child in server.children(recursive=True))]
    own.down()
    assert not any(process.is_running() for process in family)
    for name, farewell in {
        "kafka": "App info kafka.server for 1 unregistered",
        "postgres": "database system is shut down",
        "elasticsearch": " closed",
    }.items():
        assert farewell in (own.home / "logs" / f"{name}.log").read_text()[-5000:]


def test_env_of_a_stack_that_was_never_up_is_an_error(tmp_path):
    with pytest.raises(LocalStackError, match="clickstream stack up"):
        Stack(tmp_path, tmp_path).env()
