"""Recognising and ending processes that outlive their command."""

import errno
import os
import signal
import time

import psutil
import pytest

from clickstream_assets.local import processes
from clickstream_assets.local.processes import end, find, is_alive, remaining, start


@pytest.mark.slow
def test_a_process_outlives_nothing_else_and_is_nobodys_child(tmp_path):
    process = start(["sleep", "60"], tmp_path, tmp_path / "log")
    assert process
    try:
        assert process not in psutil.Process().children(recursive=True)
        assert process.cwd() == str(tmp_path)
        assert find(process.pid, process.create_time()) == process
    finally:
        end([process], signal.SIGTERM)
    assert not is_alive(process)
    assert find(process.pid, process.create_time()) is None


@pytest.mark.slow
def test_output_is_appended_to_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    process = start(["sh", "-c", "echo out; echo err >&2"], tmp_path, log)
    if process:
        psutil.wait_procs([process], timeout=10)
    assert log.read_text() == "before\nout\nerr\n"


def test_a_pid_that_is_anothers_by_now_is_not_taken_for_ours():
    me = psutil.Process()
    assert find(me.pid, me.create_time() - 3600) is None


@pytest.mark.slow
def test_what_ignores_the_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_TIMEOUT_SECONDS", 0.5)
    process = start(["sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait"], tmp_path, tmp_path / "log")
    assert process
    deadline = time.monotonic() + 10
    while (tmp_path / "log").read_text() != "ready\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    children = process.children()
    end([process], signal.SIGTERM)
    assert not is_alive(process)
    assert not any(is_alive(child) for child in children)


def test_one_that_ends_while_it_is_looked_at_is_gone(tmp_path, monkeypatch):
    process = start(["sleep", "60"], tmp_path, tmp_path / "log")
    assert process

    def look(pid, _flags=0):
        process.kill()
        while is_alive(process):
            time.sleep(0.01)
        # As the kernel says it of one that has just ended.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "pidfd_open", look)
    assert remaining([process], 5) == []


@pytest.mark.parametrize("pid", [None, 2**22 + 1])
def test_no_such_process_is_none(pid):
    assert find(pid, 1.0) is None
