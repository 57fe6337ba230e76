"""Finding a Java that the servers can run on."""

import subprocess
from pathlib import Path

import pytest

from clickstream_assets.engine import java
from clickstream_assets.engine.java import OLDEST_JAVA, find_java
from clickstream_assets.errors import LocalStackError

INSTALLER = Path(java.__file__).with_name("install_java.sh")
VENV_MAKER = INSTALLER.with_name("make_venv.sh")


def fake_java(home: Path, version: str) -> Path:
    """A program that says of itself what a Java of that version would."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!/bin/sh\necho '    java.home = {home}'\necho '    java.specification.version = {version}'\n"
    )
    program.chmod(0o755)
    return program


def test_finds_a_java_that_runs_and_is_new_enough():
    program = find_java()
    answer = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
    assert int(answer.stderr.split('"')[1].split(".")[0]) >= OLDEST_JAVA
    assert (program.parent.parent / "lib").is_dir()


def test_no_java_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LocalStackError) as error:
        find_java(usual_folders=())
    message = str(error.value)
    assert "\n" not in message
    assert "apt-get install openjdk-17-jre-headless" in message
    assert "brew install openjdk@17" in message


@pytest.mark.parametrize(("version", "named"), [("1.8", "Java 8"), ("11", "Java 11"), ("16", "Java 16")])
def test_a_java_that_is_too_old_is_named(monkeypatch, tmp_path, version, named):
    program = fake_java(tmp_path / "old", version)
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(LocalStackError, match=f"found only {named} at {program}"):
        find_java(usual_folders=())


@pytest.mark.parametrize("unsuited", ["11", "25"])
def test_java_home_counts_first_unless_it_is_too_old_or_too_new_for_spark(monkeypatch, tmp_path, unsuited):
    on_path = fake_java(tmp_path / "on_path", "17")
    suited = fake_java(tmp_path / "suited", "21")
    fake_java(tmp_path / "unsuited", unsuited)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_java(tmp_path / "suited") == suited
    assert find_java(tmp_path / "unsuited") == on_path


def test_a_java_too_new_for_spark_is_taken_where_there_is_no_other(monkeypatch, tmp_path):
    program = fake_java(tmp_path / "jdk-25", "25")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_java(usual_folders=(tmp_path,)) == program


def test_the_usual_folders_are_searched(monkeypatch, tmp_path):
    program = fake_java(tmp_path / "jdk-21", "21")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_java(usual_folders=(tmp_path,)) == program


def test_the_installer_does_nothing_where_there_is_a_java():
    answer = subprocess.run(["sh", INSTALLER], capture_output=True, text=True, check=True)
    assert answer.stdout + answer.stderr == ""


def program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def run_script(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a script with the programs in `folder` before the machine's own."""
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(["sh", *command], capture_output=True, text=True, env=environment, check=False)


def test_the_installer_says_in_one_line_that_spark_cannot_use_the_only_java(tmp_path):
    program(tmp_path / "java", "echo 'openjdk version \"25.0.1\" 2025-10-21' >&2")
    program(tmp_path / "id", "echo 1000")
    answer = run_script(tmp_path, INSTALLER, tmp_path / "none")
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
    answer = run_script(tmp_path, INSTALLER, tmp_path / "installed")
    assert answer.returncode == 0
    assert answer.stderr.splitlines() == ["Installing Java (openjdk-17-jre-headless)"]


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
