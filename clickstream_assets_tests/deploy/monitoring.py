"""The files for Prometheus and Grafana, and the programs that read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clickstream_assets_tests.deploy.files import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


def alert_rules() -> list[dict[str, Any]]:
    """All rules, of alerts and of recorded figures."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def path_of(name: str) -> str:
    """Return the path of a program of Prometheus that `make prometheus` puts into the venv; skip the test without."""
    found = shutil.which(name, path=str(Path(sys.prefix, "bin"))) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing, so the alerts are not tested; `make prometheus` says why")
    return found


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Prometheus."""
    return subprocess.run([path_of(name), *arguments], capture_output=True, text=True, check=False)
