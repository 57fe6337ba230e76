"""Finding a Java that the servers can run on."""

import subprocess
import sys
from pathlib import Path

import pytest

from clickstream_assets.local import java
from clickstream_assets.local.errors import LocalStackError
from clickstream_assets.local.java import OLDEST_JAVA, find_java

INSTALLER = Path(java.__file__).with_name("install_system.sh")


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


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_installer_does_nothing_where_there_is_everything():
    answer = subprocess.run(["sh", INSTALLER, sys.executable], capture_output=True, text=True, check=True)
    assert answer.stdout + answer.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only wheels for Linux look for the library")
@pytest.mark.parametrize(("user", "installs"), [(0, True), (1000, False)])
def test_a_missing_library_is_installed_by_root_and_named_to_others(tmp_path: Path, user: int, installs: bool):
    java = fake_java(tmp_path / "java", "17").parents[1]
    program(java / "bin" / "java", "echo 'openjdk version \"17.0.1\"' >&2")
    # A Python that loads the library once apt-get has installed it.
    program(tmp_path / "python", f"test -e {tmp_path}/libgomp1")
    program(tmp_path / "id", f"echo {user}")
    program(tmp_path / "apt-get", f'for last; do :; done; case "$*" in *install*) touch "{tmp_path}/$last";; esac')

    answer = subprocess.run(
        ["sh", INSTALLER, tmp_path / "python"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "JAVA_HOME": str(java)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (answer.returncode == 0) is installs, answer.stderr
    assert (tmp_path / "libgomp1").exists() is installs
    assert ("apt-get install libgomp1" in answer.stderr) is not installs
