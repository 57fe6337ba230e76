"""`check-health`: that it passes a check on, and ends the container of a process that hangs, and no other process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clickstream_assets_tests.deploy.files import ROOT

CHECK = ROOT / "deploy" / "check-health"
# A process space of one's own, in which the init is the first process: as root, or where users may have one.
_OWN = (
    "unshare",
    *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
    "--pid",
    "--fork",
    "--mount-proc",
)


def can_be_contained() -> bool:
    return (
        bool(shutil.which("unshare")) and subprocess.run([*_OWN, "true"], capture_output=True).returncode == 0
    )


needs_a_container = pytest.mark.skipif(not can_be_contained(), reason="no process spaces of one's own here")


class Container:
    """A process that hangs, under an init."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def check(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a check in it, as Docker does: as a child of nobody there."""
        (inside,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        enter = ("nsenter", *(() if os.geteuid() == 0 else ("--user", "--preserve-credentials")))
        return subprocess.run(
            [*enter, "--pid", "--mount", f"--target={inside}", CHECK, *command],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    def fails_since(self, minutes: int) -> None:
        """Have the check fail for so long."""
        (noted,) = self.folder.glob("failing-since-*")
        os.utime(noted, (time.time() - 60 * minutes,) * 2)


@contextmanager
def container(folder: Path, init: str) -> Iterator[Container]:
    """A container whose init has a name, and ends when its child does."""
    program = folder / init
    if not program.exists():
        # One that was killed may still be in use for a moment, and cannot be written.
        shutil.copy("/bin/sh", program)
    script = "sleep 1000 & wait $!; exit $?"
    with subprocess.Popen([*_OWN, "--kill-child", program, "-c", script], stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20
            while not (running := Container(process, folder)).process.pid or not started(process.pid):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield running
        finally:
            process.kill()


def started(pid: int) -> bool:
    """Return whether unshare's child runs, and has a child itself."""
    inits = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(Path(f"/proc/{init}/task/{init}/children").read_text().strip() for init in inits)


@needs_a_container
def test_what_fails_for_more_than_five_minutes_in_a_row_is_ended(tmp_path: Path):
    with container(tmp_path, "docker-init") as hung:
        assert hung.check("true").returncode == 0
        assert hung.check("false").returncode == 1
        hung.fails_since(minutes=4)
        assert hung.check("false").returncode == 1
        assert hung.process.poll() is None
        hung.fails_since(minutes=6)
        # The check is a process of the container, and may end with it before it has said that it failed.
        assert hung.check("sh", "-c", "exit 7").returncode in (1, -signal.SIGKILL)
        assert hung.process.wait(10) == 128 + 9
        assert hung.process.stderr
        assert hung.process.stderr.read().startswith(b"Unhealthy for 5 minutes: killed")


@needs_a_container
def test_one_success_begins_anew(tmp_path: Path):
    with container(tmp_path, "docker-init") as well:
        assert well.check("false").returncode == 1
        well.fails_since(minutes=60)
        assert well.check("true").returncode == 0
        assert well.check("false").returncode == 1
        assert well.process.poll() is None


@needs_a_container
def test_what_failed_before_a_restart_does_not_count(tmp_path: Path):
    for _ in range(2):
        with container(tmp_path, "docker-init") as started_again:
            assert started_again.check("false").returncode == 1
            assert started_again.process.poll() is None
            for noted in tmp_path.glob("failing-since-*"):
                os.utime(noted, (0, 0))


@needs_a_container
def test_where_no_containers_init_is_nothing_is_ended(tmp_path: Path):
    with container(tmp_path, "systemd") as machine:
        assert machine.check("false").returncode == 1
        machine.fails_since(minutes=60)
        assert machine.check("false").returncode == 1
        assert machine.process.poll() is None
