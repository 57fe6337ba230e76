"""Loopback ports: which are free, who has the others, and who answers."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clickstream_assets.holders import holder
from clickstream_assets.local.ports import (
    LOOPBACK,
    Listener,
    PortsTakenError,
    accepts_connections,
    free_port,
    is_free,
    is_others,
    require_free,
)

LISTEN = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(99)
"""
LISTEN_IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}])"


@contextmanager
def listening(folder: Path, code: str = LISTEN, **environment: str) -> Iterator[tuple[int, int]]:
    """Another process that listens, or whose child does; yields its pid and the port."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        start_new_session=True,
    )
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_port_in_use_is_not_free_and_its_holder_is_named():
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
        assert accepts_connections(port)
        assert holder(port).startswith(f"process {os.getpid()} (")


def test_a_free_port_is_free():
    port = free_port()
    assert is_free(port)
    assert not accepts_connections(port)
    require_free([Listener("Dagster", port, "set DAGSTER_PORT")])


def test_a_holder_of_ours_is_named_with_its_home(tmp_path: Path):
    home = tmp_path / "a home"
    (home / "kafka").mkdir(parents=True)
    (home / "stack.json").write_text("{}")
    with listening(home / "kafka") as (pid, port):
        named = rf"process {pid} \(\S+\) of the clickstream_assets that runs in {home}"
        assert re.fullmatch(named, holder(port))
    with listening(tmp_path, CLICKSTREAM_HOME="a home") as (_, port):
        assert holder(port).endswith(f"that runs in {home}")
    # A variable alone does not make it one of ours.
    with listening(tmp_path, CLICKSTREAM_HOME=str(tmp_path / "other")) as (_, port):
        assert "clickstream_assets" not in holder(port)


def test_all_ports_that_are_taken_are_named_at_once_with_what_chooses_others(tmp_path: Path):
    others = listening(tmp_path), listening(tmp_path)
    with others[0] as (one, first), others[1] as (two, second), pytest.raises(PortsTakenError) as error:
        require_free(
            [
                Listener("Dagster", first, "set DAGSTER_PORT"),
                Listener("the API", second, "set API_PORT"),
                Listener("Kafka", free_port(), "not needed"),
            ]
        )
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"Port {first} of Dagster is taken by process {one} (")
    assert lines[0].endswith("choose another port: set DAGSTER_PORT.")
    assert lines[1].startswith(f"Port {second} of the API is taken by process {two} (")
    assert lines[1].endswith("choose another port: set API_PORT.")


def test_one_port_for_two_servers_is_named():
    port = free_port()
    with pytest.raises(PortsTakenError, match=f"Port {port} is to be Dagster's and the API's: set API_PORT"):
        require_free(
            [Listener("Dagster", port, "set DAGSTER_PORT"), Listener("the API", port, "set API_PORT")]
        )


def test_what_answers_is_ours_where_a_process_or_a_child_of_it_listens(tmp_path: Path):
    with listening(tmp_path) as (pid, port), listening(tmp_path, LISTEN_IN_A_CHILD) as (parent, childs):
        assert not is_others(port, pid)
        assert not is_others(childs, parent)
        assert is_others(childs, pid)
        assert is_others(port, parent)
        assert not is_others(free_port(), pid)
    assert not is_others(port, pid)
