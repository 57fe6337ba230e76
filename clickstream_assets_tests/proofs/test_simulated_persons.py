"""A simulated shop through the whole pipeline: its tables say what its simulator knows, however its events come."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import EVENTS, IDENTITIES, IDENTITY_CHANGES
from clickstream_assets.definitions import defs
from clickstream_assets.engine import Engine, SparkEngine
from clickstream_assets.settings import load_settings
from clickstream_assets_tests.defs.pipeline import Pipeline, send
from clickstream_assets_tests.simulator.persons import (
    TABLES,
    acts,
    records,
    require_what_the_simulator_knows,
    set_up,
    shuffled,
    tied_users,
)

pytestmark = pytest.mark.long

MADE = (
    *("sessions", "shopper_events", "carts", "user_segments", "customer_segments", "funnel"),
    *("daily_summary", "published_shoppers"),
)


@pytest.mark.parametrize("arrival", ["in order", "late, shuffled and twice"])
def test_days_that_late_ties_make_dirty_are_mended_to_what_the_simulator_knows(
    engine: Engine, pipeline_env: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrival: str
):
    set_up(monkeypatch, tmp_path)
    monkeypatch.setenv("COMPUTE_ENGINE", engine.name)
    if isinstance(engine, SparkEngine):
        # Started first, so that the runs join it: a process has one.
        assert engine.session
    pipeline = Pipeline(
        load_settings(), dg.DagsterInstance.ephemeral(), defs(), dg.AssetSelection.assets(*MADE)
    )
    parts = [records()] if arrival == "in order" else shuffled(3)
    for part in parts:
        send(pipeline.settings, part)
        pipeline.ingest()
        assert pipeline.catch_up()
    assert len(pipeline.lake(EVENTS)) == len(acts())
    require_what_the_simulator_knows({table: pipeline.lake(table) for table in TABLES})
    tied = defaultdict(set)
    for row in pipeline.served(IDENTITIES):
        tied[row["anonymous_id"]].add(row["user_id"])
    assert tied == tied_users()
    assert {row["batch"] for row in pipeline.lake(IDENTITY_CHANGES)} == set(range(1, len(parts) + 1))
