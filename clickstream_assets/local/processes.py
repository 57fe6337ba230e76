"""Processes that outlive the command that started them: starting, recognising and ending them."""

import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from signal import Signals

import psutil

from clickstream_assets.errors import LocalStackError
from clickstream_assets.settings import environment_without_secrets

STOP_TIMEOUT_SECONDS = 20
# psutil computes create times from the boot time, which a corrected clock moves a little.
CREATE_TIME_TOLERANCE_SECONDS = 5
SERVER_PROGRAMS = frozenset({"java", "postgres"})


def start(command: Sequence[str], folder: Path, log: Path) -> psutil.Process | None:
    """Start a process in `folder`, in a session of its own; its output goes to `log`. None: it died at once.

    It gets no secret of ours, and is nobody's child: a child that dies before a caller that lives long becomes a zombie
    and looks alive.
    """
    answer = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
        ["sh", "-c", 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!', "sh", str(log), *command],  # noqa: S607 - the system's own shell
        cwd=folder,
        env=environment_without_secrets(),
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    try:
        return psutil.Process(int(answer.stdout))
    except psutil.NoSuchProcess:
        return None


def find(pid: int | None, created: float | None) -> psutil.Process | None:
    """Return the process with this pid if it is alive and is the one that was created then (seconds since 1970)."""
    if pid is None or created is None:
        return None
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > CREATE_TIME_TOLERANCE_SECONDS:
            return None
        return process if is_alive(process) else None
    except psutil.NoSuchProcess:
        return None


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie, which only waits for its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def working_in(folder: Path) -> list[psutil.Process]:
    """Return the servers whose working folder is `folder` or below: they use its data, whoever started them."""
    found = []
    for process in psutil.process_iter(["name", "cwd"]):
        name, working_folder = process.info["name"], process.info["cwd"]
        if name in SERVER_PROGRAMS and working_folder and Path(working_folder).is_relative_to(folder):
            found.append(process)
    return found


def end(processes: Iterable[psutil.Process], stop_signal: Signals) -> None:
    """End processes and their children: ask with `stop_signal`, and kill what is there after 20 s.

    Raises:
        LocalStackError: when a process is another user's.
    """
    families = []
    for process in processes:
        try:
            families += [process, *process.children(recursive=True)]
            process.send_signal(stop_signal)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            raise LocalStackError(
                f"Process {process.pid} cannot be ended: it belongs to another user; run this as that user."
            ) from None
    alive = remaining(families, STOP_TIMEOUT_SECONDS)
    for process in alive:
        if is_alive(process):
            process.kill()
    remaining(alive, STOP_TIMEOUT_SECONDS)


def remaining(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until processes have ended, or for so many seconds; return those that are still there."""
    there = list(processes)
    end_of_wait = time.monotonic() + seconds
    while True:
        try:
            return psutil.wait_procs(there, timeout=max(0, end_of_wait - time.monotonic()))[1]
        except (FileNotFoundError, psutil.NoSuchProcess):
            # Linux 6.16 and later say so of one that ends at this moment; psutil 7.2 knows only the older answer.
            there = [process for process in there if is_alive(process)]
