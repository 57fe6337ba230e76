"""The code location, loaded once, and a Dagster instance per test."""

import dagster as dg
import pytest

from clickstream_assets.definitions import defs


@pytest.fixture(scope="session")
def definitions() -> dg.Definitions:
    """Everything under `defs/`, as the code server loads it."""
    return defs()


@pytest.fixture
def instance() -> dg.DagsterInstance:
    """A Dagster instance in memory."""
    return dg.DagsterInstance.ephemeral()


@pytest.fixture(autouse=True)
def _one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sensor's evaluation look once: at this interval it would end before a second look."""
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "5")
