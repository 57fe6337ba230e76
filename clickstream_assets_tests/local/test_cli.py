"""The commands, as a user types them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clickstream_assets.settings import Settings

CLICKSTREAM = Path(sys.executable).with_name("clickstream")


@pytest.fixture
def run(tmp_path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CLICKSTREAM, *arguments],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_status_is_a_table_and_succeeds_when_all_are_healthy(run, stack):
    answer = run("stack", "status", "--home", str(stack.home))
    assert answer.returncode == 0, answer.stderr
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
    assert answer.returncode == 1
    assert answer.stdout.count("stopped") == 3


def test_up_where_all_is_up_writes_the_env_file(run, stack, tmp_path):
    answer = run("stack", "up", "--home", str(stack.home), "--env-file", "here.env")
    assert answer.returncode == 0, answer.stderr
    lines = (tmp_path / "here.env").read_text().splitlines()
    assert f"KAFKA_BOOTSTRAP_SERVERS={stack.env()['KAFKA_BOOTSTRAP_SERVERS']}" in lines


def test_down_without_a_stack_succeeds(run, tmp_path):
    assert run("stack", "down", "--home", str(tmp_path / "none")).returncode == 0


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_damaged_state_is_a_message_and_no_traceback(run, tmp_path, command):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "stack.json").write_text("{")
    answer = run("stack", command, "--home", str(tmp_path / "home"))
    assert answer.returncode == 1
    assert f"{tmp_path}/home/stack.json is damaged" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_setting_that_cannot_be_used_is_named(run):
    answer = run("stack", "status", POSTGRES_PORT="many")
    assert answer.returncode == 1
    assert "POSTGRES_PORT='many'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_part_of_the_jars_can_be_asked_for_and_a_part_that_there_is_not_is_named(run, stack):
    # The running stack has them all, so there is nothing to fetch.
    jars = str(Settings(_env_file=None).jars_path)
    assert run("fetch-jars", "--only", "spark", JARS_PATH=jars).returncode == 0
    answer = run("fetch-jars", "--only", "hadoop", JARS_PATH=jars)
    assert answer.returncode == 2
    assert "'hadoop' is not one of 'kafka', 'elasticsearch', 'spark'" in answer.stderr


def test_a_home_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    answer = run("stack", "up", "--home", str(tmp_path / "file" / "home"))
    assert answer.returncode == 1
    assert f"CLICKSTREAM_HOME={tmp_path}/file/home cannot be made: Not a directory" in answer.stderr
