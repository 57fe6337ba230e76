"""Time, processor time and memory that a piece of work takes in this process and in those that it has started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def _processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has started, also of those that have ended."""
    total = 0.0
    for process in _processes():
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _forget_peaks() -> None:
    """Let the kernel start anew with each process's highest resident set size."""
    for process in _processes():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _peak_mb() -> float:
    """Return the sum of the processes' highest resident set sizes, in MB: at least what they ever had together."""
    total = 0
    for process in _processes():
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
    return total / 1024


def used_by(work: Callable[[], object]) -> dict[str, float]:
    """Do the work; return its `seconds`, `cpu_seconds` and `peak_mb` (of all that the processes hold meanwhile)."""
    _forget_peaks()
    start, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(_cpu_seconds() - cpu, 3),
        "peak_mb": round(_peak_mb()),
    }
