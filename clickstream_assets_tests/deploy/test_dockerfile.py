"""The Dockerfile: that a linter likes it, and that the image has what its containers need."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clickstream_assets.settings import Settings
from clickstream_assets_tests.deploy.files import DOCKERFILE, ROOT, dockerfile_instructions, image_environment

INSTRUCTIONS = dockerfile_instructions()
ALL = {name: [arguments for other, arguments in INSTRUCTIONS if other == name] for name, _ in INSTRUCTIONS}
COPIED = [
    source
    for arguments in ALL["COPY"]
    if not arguments.startswith("--from=")
    for source in arguments.split()[:-1]
]


def test_a_linter_finds_nothing():
    linter = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_containers_run_as_a_plain_user():
    assert ALL["USER"] == ["10001:10001"]
    assert [name for name, _ in INSTRUCTIONS].index("USER") > len(INSTRUCTIONS) - 4
    assert "groupadd --gid 10001" in str(ALL["RUN"])
    assert "useradd --uid 10001" in str(ALL["RUN"])


def test_the_base_is_pinned_to_a_python_that_we_run_on():
    (image,) = [arguments.split()[0] for arguments in ALL["FROM"] if ":" in arguments]
    found = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-trixie(@sha256:[0-9a-f]{64})?", image)
    assert found
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    # The newest of those that the checks run with.
    assert found[1] == check["jobs"]["check"]["strategy"]["matrix"]["python"][-1]
    assert f"python{found[1]}/site-packages" in str(ALL["WORKDIR"])


def test_packages_are_installed_by_hash_and_nothing_is_fetched_beside_them():
    (everything,) = [run for run in ALL["RUN"] if "requirements.txt" in run]
    assert everything.count("pip install") == everything.count("--require-hashes") == 2
    (ours,) = [run for run in ALL["RUN"] if "pip install" in run and run != everything]
    assert {"--no-deps", "--no-build-isolation"} <= set(ours.split())
    # Builds would fetch the newest tools by themselves.
    assert "--no-build-isolation" in everything


def test_sparks_jars_are_in_the_image_and_no_servers():
    (fetch,) = re.findall(r"clickstream (fetch-jars[^&]*)", str(ALL["RUN"]))
    assert fetch.startswith("fetch-jars --only spark")
    copied = {arguments.split()[1] for arguments in ALL["COPY"] if arguments.startswith("--from=build ")}
    assert copied == {"/opt/venv", image_environment()["JARS_PATH"]}


def test_what_is_missing_in_the_image_shows_when_it_is_built():
    (imports,) = [run for run in ALL["RUN"] if run.startswith("python -c")]
    assert "implicit.als" in imports
    assert "from clickstream_assets.definitions import defs; defs()" in imports
    before = ALL["RUN"][: ALL["RUN"].index(imports)]
    assert any("--no-deps" in run for run in before)
    assert any("rm -r" in run for run in before)


def test_the_images_variables_are_settings():
    assert set(image_environment()) - {"PATH", "PYTHONUNBUFFERED"} <= {
        field.upper() for field in Settings.model_fields
    }


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_is_there_and_not_ignored(source: str):
    assert (ROOT / source).exists()
    assert not is_ignored(source)


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", "clickstream_assets_tests/conftest.py", "deploy/make_env.sh", ".venv/bin/python"],
)
def test_what_is_not_needed_does_not_get_into_the_build(path: str):
    assert is_ignored(path)


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore leaves a path out: the last rule that fits it, or a folder above, decides."""
    ignored = False
    parts = Path(path).parts
    above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            rule = line.removeprefix("!")
            if any(fnmatch.fnmatch(name, rule) for name in above):
                ignored = not line.startswith("!")
    return ignored
