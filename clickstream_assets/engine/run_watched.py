"""Runs a command that may say nothing for minutes, and says meanwhile how long it has run.

    python run_watched.py [--folder FOLDER] TITLE COMMAND…

On a terminal it is one line that counts, elsewhere a line every 15 s; with a folder, also how large that is by then.
Exits as the command does. Needs nothing but Python, as it runs before any package is installed.
"""

import argparse
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SECONDS_BETWEEN_LINES = 15


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("title")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    is_terminal = sys.stderr.isatty()
    started = time.monotonic()
    with subprocess.Popen(given.command) as process:  # noqa: S603 - no shell, and nobody else's command
        while True:
            try:
                status = process.wait(1 if is_terminal else SECONDS_BETWEEN_LINES)
            except subprocess.TimeoutExpired:
                line = f"{given.title}: {time.monotonic() - started:.0f} s"
                if given.folder:
                    line += f", {_megabytes(given.folder):,} MB in {given.folder}"
                sys.stderr.write(f"\r{line} " if is_terminal else f"{line}\n")
                sys.stderr.flush()
                continue
            except KeyboardInterrupt:
                # The command has had it too; let it end first.
                process.wait()
                return 130
            if is_terminal and time.monotonic() - started >= 1:
                sys.stderr.write("\n")
            return status


def _megabytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # What is being installed moves.
        with suppress(OSError):
            size += path.lstat().st_size
    return round(size / 1e6)


if __name__ == "__main__":
    sys.exit(main())
