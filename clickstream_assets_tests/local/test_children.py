"""A stop from outside ends a command, whatever code it comes upon, and lets it stop what it has started."""

import signal
import subprocess
import sys

import pytest

SWALLOWED = """
import time
from clickstream_assets.local.children import exit_on_sigterm

with exit_on_sigterm():
    for _ in range(2):
        try:
            print("waiting", flush=True)
            time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)
    time.sleep(60)
"""
CLEANING_UP = """
import time
from clickstream_assets.local.children import exit_on_sigterm

with exit_on_sigterm():
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        try:
            raise KeyError
        except KeyError:
            time.sleep(2.5)
        time.sleep(1)
        print("clean", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (SWALLOWED, ["waiting", "swallowed", "waiting", "swallowed"]),
        (CLEANING_UP, ["waiting", "cleaning", "clean"]),
    ],
    ids=["swallowed", "cleaning up"],
)
def test_a_stop_is_raised_until_it_is_on_its_way_and_then_not_again(program: str, said: list[str]):
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        if program is CLEANING_UP:
            # Whoever asks twice does not keep it from cleaning up.
            lines.append(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert [*"".join(lines).split(), *rest.split()] == said
    assert process.returncode == 128 + signal.SIGTERM
