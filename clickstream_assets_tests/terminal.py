"""A command on a terminal."""

import os
import subprocess
from collections.abc import Mapping


def on_a_terminal(command: list[str], env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and all that it showed."""
    ours, its = os.openpty()
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=env) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                # Linux says so when the last of those who write has gone.
                break
    os.close(ours)
    return process.returncode, shown.decode()
