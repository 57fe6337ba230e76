"""Scripts that install what Python's packages lack: Java, GCC's OpenMP library, Debian's part for environments.

And what they show meanwhile, on a terminal and without one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clickstream_assets.engine import java
from clickstream_assets_tests.terminal import on_a_terminal

JAVA_INSTALLER, OPENMP_INSTALLER, VENV_MAKER, PACKAGE_INSTALLER, WATCHED = (
    str(Path(java.__file__).with_name(name))
    for name in (
        "install_java.sh",
        "install_openmp.sh",
        "make_venv.sh",
        "install_package.sh",
        "run_watched.py",
    )
)


@pytest.mark.parametrize(
    "command", [[JAVA_INSTALLER], [OPENMP_INSTALLER, sys.executable]], ids=["Java", "OpenMP"]
)
def test_nothing_is_done_where_it_is_there(command: list[str]):
    answer = subprocess.run(["sh", *command], capture_output=True, text=True, check=True)
    assert answer.stdout + answer.stderr == ""


def program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def run_script(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script with the programs in `folder` before the machine's own."""
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(["sh", *command], capture_output=True, text=True, env=environment, check=False)


def test_the_installer_says_in_one_line_that_spark_cannot_use_the_only_java(tmp_path):
    program(tmp_path / "java", "echo 'openjdk version \"25.0.1\" 2025-10-21' >&2")
    program(tmp_path / "id", "echo 1000")
    answer = run_script(tmp_path, JAVA_INSTALLER, tmp_path / "none")
    assert (answer.returncode, answer.stdout) == (0, "")
    (line,) = answer.stderr.splitlines()
    assert f"{tmp_path}/java is newer than Java 23" in line
    assert "For Spark install Java 17" in line


def test_the_installer_gets_a_java_for_spark_as_root_though_there_is_a_newer_one(tmp_path):
    program(tmp_path / "java", "echo 'openjdk version \"25.0.1\" 2025-10-21' >&2")
    program(tmp_path / "id", "echo 0")
    program(
        tmp_path / "apt-get",
        'case "$*" in *install*openjdk-17-jre-headless) ;; *) exit 0 ;; esac',
        f"""printf '#!/bin/sh\necho "openjdk version \\"17.0.1\\"" >&2\n' >{tmp_path}/installed""",
        f"chmod +x {tmp_path}/installed",
    )
    answer = run_script(tmp_path, JAVA_INSTALLER, tmp_path / "installed")
    assert answer.returncode == 0
    assert answer.stderr.splitlines() == [
        "Installing Java (openjdk-17-jre-headless); apt says how much it fetches"
    ]


@pytest.mark.parametrize(("user", "code"), [("0", 0), ("1000", 1)], ids=["root", "another user"])
def test_pythons_part_for_virtual_environments_is_installed_by_root_and_named_to_others(tmp_path, user, code):
    program(tmp_path / "id", f"echo {user}")
    program(tmp_path / "apt-get", f'echo "$@" >>{tmp_path}/asked')
    # Debian's Python without it: makes the folder, and fails for want of ensurepip.
    program(
        tmp_path / "python",
        'if [ "$1" = -c ]; then echo python3.12-venv; exit; fi',
        f"grep -q install {tmp_path}/asked 2>/dev/null || {{ echo 'ensurepip is not available'; exit 1; }}",
        'mkdir -p "$3/bin"; touch "$3/bin/pip"; chmod +x "$3/bin/pip"',
    )
    answer = run_script(tmp_path, VENV_MAKER, "python", tmp_path / "venv")
    assert (answer.returncode, answer.stdout) == (code, "")
    assert (tmp_path / "venv" / "bin" / "pip").exists() == (code == 0)
    if code:
        assert "apt-get install python3.12-venv, then repeat" in answer.stderr.splitlines()[-1]
        return
    *_, asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == "install -q -y --no-install-recommends python3.12-venv"
    # The next time there is nothing to do.
    program(tmp_path / "python", "exit 1")
    assert run_script(tmp_path, VENV_MAKER, "python", tmp_path / "venv").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only wheels for Linux look for the library")
@pytest.mark.parametrize(("user", "installs"), [(0, True), (1000, False)], ids=["root", "another user"])
def test_openmp_is_installed_by_root_and_named_to_others(tmp_path: Path, user: int, installs: bool):
    # A Python that loads the library once apt-get has installed it.
    program(tmp_path / "python", f"test -e {tmp_path}/libgomp1")
    program(tmp_path / "id", f"echo {user}")
    program(
        tmp_path / "apt-get",
        f'for last; do :; done; case "$*" in *install*) touch "{tmp_path}/$last" ;; esac',
    )
    answer = run_script(tmp_path, OPENMP_INSTALLER, tmp_path / "python")
    assert (answer.returncode == 0) is installs, answer.stderr
    assert (tmp_path / "libgomp1").exists() is installs
    assert ("apt-get install libgomp1" in answer.stderr) is not installs


def test_apt_shows_its_progress_on_a_terminal_and_lines_elsewhere(tmp_path: Path):
    program(tmp_path / "id", "echo 0")
    program(tmp_path / "apt-get", 'echo "asked: $*"')
    command = ["sh", PACKAGE_INSTALLER, "OpenMP", "libgomp1"]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    code, shown = on_a_terminal(command, env)
    assert code == 0
    assert "asked: install -y --no-install-recommends libgomp1" in shown
    elsewhere = run_script(tmp_path, *command[1:])
    assert elsewhere.stdout == ""
    assert "asked: install -q -y --no-install-recommends libgomp1" in elsewhere.stderr


def test_a_package_that_apt_cannot_install_is_a_failure(tmp_path: Path):
    program(tmp_path / "id", "echo 0")
    program(tmp_path / "apt-get", 'case "$*" in update*) ;; *) echo "E: no such package"; exit 100 ;; esac')
    answer = run_script(tmp_path, PACKAGE_INSTALLER, "OpenMP", "libgomp1")
    assert answer.returncode == 100
    assert "E: no such package" in answer.stderr


@pytest.mark.slow
def test_a_command_that_says_nothing_for_long_is_counted_on_a_terminal(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    watched = [sys.executable, WATCHED, "--folder", str(tmp_path), "Packages"]
    code, shown = on_a_terminal([*watched, "sh", "-c", "sleep 2; echo done; exit 3"], dict(os.environ))
    assert code == 3
    assert f"\rPackages: 1 s, 3 MB in {tmp_path}" in shown
    assert "done" in shown


@pytest.mark.slow
def test_elsewhere_it_is_a_line_now_and_then(tmp_path: Path):
    code = f"import runpy, sys; sys.argv = {[WATCHED, 'Helm', 'sleep', '1']}; " + (
        f"module = runpy.run_path({WATCHED!r}); module['main'].__globals__['SECONDS_BETWEEN_LINES'] = 0.3; "
        "sys.exit(module['main']())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[:2] == ["Helm: 0 s", "Helm: 1 s"]
