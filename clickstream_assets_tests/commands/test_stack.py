"""The commands, as a user types them."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clickstream_assets.commands.app import app
from clickstream_assets.errors import LocalStackError
from clickstream_assets.local.identity import Identity
from clickstream_assets.local.kafka import Kafka
from clickstream_assets.settings import Settings

CLICKSTREAM = Path(sys.executable).with_name("clickstream")


@pytest.fixture
def run():
    """Runs a command in this process: a process of its own takes most of its time to start."""

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"} | variables)

    return run


@pytest.fixture
def start(tmp_path):
    """Runs a command in a process of its own, as a shell does."""

    def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CLICKSTREAM, *arguments],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start


@pytest.mark.usefixtures("servers")
def test_status_is_a_table_and_succeeds_when_all_are_healthy(run, stack):
    answer = run("stack", "status", "--home", str(stack.home))
    assert answer.exit_code == 0, answer.stderr
    for server in stack.status():
        (line,) = [line for line in answer.stdout.splitlines() if server.title in line]
        assert [cell.strip() for cell in line.strip("│").split("│")] == [
            server.title,
            str(server.pid),
            str(server.port),
            "healthy",
        ]


def test_status_of_a_stack_that_does_not_run_fails(run, tmp_path):
    answer = run("stack", "status", "--home", str(tmp_path / "none"))
    assert answer.exit_code == 1
    assert answer.stdout.count("stopped") == 3


@pytest.mark.usefixtures("servers")
def test_up_where_all_is_up_writes_the_env_file(start, stack, tmp_path):
    answer = start("stack", "up", "--home", str(stack.home), "--env-file", "here.env")
    assert answer.returncode == 0, answer.stderr
    lines = (tmp_path / "here.env").read_text().splitlines()
    assert f"KAFKA_BOOTSTRAP_SERVERS={stack.env()['KAFKA_BOOTSTRAP_SERVERS']}" in lines
    # The keeper that it leaves running.
    deadline = time.monotonic() + 60
    while not (stack.home / "keeper.lock").exists():
        assert time.monotonic() < deadline, (stack.home / "logs" / "keeper.log").read_text()
        time.sleep(0.05)


def test_down_without_a_stack_succeeds(run, tmp_path):
    assert run("stack", "down", "--home", str(tmp_path / "none")).exit_code == 0


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_damaged_state_is_a_message(run, tmp_path, command):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "stack.json").write_text("{")
    answer = run("stack", command, "--home", str(tmp_path / "home"))
    assert answer.exit_code == 1
    assert f"{tmp_path}/home/stack.json is damaged" in answer.stderr


@pytest.mark.slow
def test_a_setting_that_cannot_be_used_is_named_without_a_traceback(start):
    answer = start("stack", "status", POSTGRES_PORT="many")
    assert answer.returncode == 1
    assert "POSTGRES_PORT='many'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_part_of_the_jars_can_be_asked_for_and_a_part_that_there_is_not_is_named(run, stack):
    # The running stack has them all, so there is nothing to fetch.
    jars = str(Settings(_env_file=None).jars_path)
    assert run("fetch-jars", "--only", "spark", JARS_PATH=jars).exit_code == 0
    answer = run("fetch-jars", "--only", "hadoop", JARS_PATH=jars)
    assert answer.exit_code == 2
    assert "'hadoop' is not one of 'kafka', 'elasticsearch', 'spark'" in answer.stderr


def test_a_home_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    answer = run("stack", "up", "--home", str(tmp_path / "file" / "home"))
    assert answer.exit_code == 1
    assert f"{tmp_path}/file/home cannot be written: Not a directory" in answer.stderr
    assert "CLICKSTREAM_HOME" in answer.stderr


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_named(tmp_path):
    # A limit on the size of files is the nearest to a full disk that needs no right to mount one.
    answer = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", CLICKSTREAM, "stack", "up", "--home", tmp_path / "home"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    assert f"{tmp_path}/home/stack.json cannot be written: File too large" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert [path.name for path in (tmp_path / "home").iterdir() if path.is_file()] == ["stack.lock"]


def test_a_servers_file_that_cannot_be_written_is_named(tmp_path):
    server = Kafka(tmp_path, 9092)
    server.make_folder("", Identity())
    (server.folder / "server.properties").symlink_to("/dev/full")
    with pytest.raises(
        LocalStackError, match=r"server\.properties cannot be written: No space left on device"
    ):
        server.write("server.properties", "listeners=\n", Identity())


@pytest.mark.slow
def test_a_demo_names_all_ports_that_are_taken_and_starts_nothing(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        dagster, api = (str(taken.getsockname()[1]) for taken in (one, two))
        home = tmp_path / "home"
        answer = start("demo", CLICKSTREAM_HOME=str(home), DAGSTER_PORT=dagster, API_PORT=api)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"Port {dagster} of Dagster is taken by process {os.getpid()} (" in answer.stderr
    assert f"Port {api} of the API is taken by process {os.getpid()} (" in answer.stderr
    assert "set DAGSTER_PORT" in answer.stderr
    assert "set API_PORT" in answer.stderr
    assert "starting" not in answer.stderr
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["logs"]
    assert not (tmp_path / ".env").exists()


@pytest.mark.slow
def test_a_second_demo_in_a_home_is_refused_and_leaves_the_first_alone(start, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with (home / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        answer = start("demo", CLICKSTREAM_HOME=str(home), DAGSTER_PORT="0", API_PORT="0")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"CLICKSTREAM_HOME={home} has a demo already, process 4711." in answer.stderr
    assert [path.name for path in home.iterdir()] == ["demo.lock"]


@pytest.mark.long
@pytest.mark.server
def test_ctrl_c_in_a_demo_that_was_to_give_a_result_fails(tmp_path):
    process = subprocess.Popen(
        [CLICKSTREAM, "demo", "--once"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        # A shell's background job ignores it, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The first line says that a server is being started.
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "starting" in first
    assert (process.returncode, out) == (130, ""), err
    assert "stopped" in err
    assert list(tmp_path.glob("clickstream-demo-*")) == []
