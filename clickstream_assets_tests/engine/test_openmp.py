"""Finding GCC's OpenMP library, or installing it."""

import subprocess
import sys
from pathlib import Path

import pytest

from clickstream_assets.engine import java

INSTALLER = Path(java.__file__).with_name("install_openmp.sh")


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_nothing_is_done_where_it_is_there():
    answer = subprocess.run(["sh", INSTALLER, sys.executable], capture_output=True, text=True, check=True)
    assert answer.stdout + answer.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only wheels for Linux look for the library")
@pytest.mark.parametrize(("user", "installs"), [(0, True), (1000, False)], ids=["root", "another user"])
def test_it_is_installed_by_root_and_named_to_others(tmp_path: Path, user: int, installs: bool):
    # A Python that loads the library once apt-get has installed it.
    program(tmp_path / "python", f"test -e {tmp_path}/libgomp1")
    program(tmp_path / "id", f"echo {user}")
    program(
        tmp_path / "apt-get",
        f'for last; do :; done; case "$*" in *install*) touch "{tmp_path}/$last" ;; esac',
    )

    answer = subprocess.run(
        ["sh", INSTALLER, tmp_path / "python"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (answer.returncode == 0) is installs, answer.stderr
    assert (tmp_path / "libgomp1").exists() is installs
    assert ("apt-get install libgomp1" in answer.stderr) is not installs
