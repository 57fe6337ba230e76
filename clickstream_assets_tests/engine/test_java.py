"""Finding a Java that the servers can run on."""

import subprocess
from pathlib import Path

import pytest

from clickstream_assets.engine.java import OLDEST_JAVA, find_java
from clickstream_assets.errors import LocalStackError


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
