"""Stores that were put back to an earlier time: when the sensor asks for a run, and what that brings back.

`proofs/test_put_back.py` does it with every store and all tables.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import DAILY_SUMMARY, REJECTED_COUNTS, SESSIONS
from clickstream_assets.defs.put_back import PUBLICATIONS, stores_put_back
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.settings import Settings
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.dagster_private import SensorExecutionData
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.defs.history import tick
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.streaming.streams import click

DAYS = ("2024-05-01", "2024-05-03")


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


def look(pipeline: Pipeline, definitions: dg.Definitions) -> SensorExecutionData:
    settings = SettingsResource()
    lake = LakeResource(settings=settings, compute=ComputeResource(settings=settings))
    return tick(stores_put_back, pipeline.instance, definitions, resources={"lake": lake})


def asked(pipeline: Pipeline, definitions: dg.Definitions) -> dg.RunRequest:
    (request,) = look(pipeline, definitions).run_requests or []
    return request


def purchase(day: str) -> dict[str, Any]:
    return click(at(f"{day} 10:00"), 1, event_id=day, event_type="purchase", price="5.00", order_id=day)


@pytest.mark.long
def test_an_older_lake_or_database_is_noticed_and_every_day_brought_back(
    pipeline: Pipeline, definitions: dg.Definitions, tmp_path: Path
):
    lake, copy = Path(pipeline.settings.lake), tmp_path / "copy"
    pipeline.ingest(*map(purchase, DAYS), {"broken": True})
    shutil.copytree(lake, copy)
    pipeline.catch_up()
    pipeline.train()
    assert look(pipeline, definitions).skip_message == "lake and PostgreSQL are as they were reported"
    sessions, served = pipeline.lake(SESSIONS), pipeline.served(DAILY_SUMMARY)
    assert [str(row["report_date"]) for row in served] == list(DAYS)

    shutil.rmtree(lake)
    copy.rename(lake)
    assert asked(pipeline, definitions).job_name == "ingest"
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == [*DAYS[:1], *DAYS[1:]]
    assert look(pipeline, definitions).skip_message == "lake and PostgreSQL are as they were reported"
    assert pipeline.catch_up()
    assert pipeline.lake(SESSIONS) == sessions
    pipeline.train()
    assert look(pipeline, definitions).skip_message == "lake and PostgreSQL are as they were reported"

    query(pipeline.settings, f"DELETE FROM daily_summary WHERE report_date = '{DAYS[0]}' RETURNING 1")
    query(pipeline.settings, "UPDATE publications SET stamp = 'of an earlier one' RETURNING 1")
    query(pipeline.settings, "DELETE FROM rejected_counts RETURNING 1")
    requests = look(pipeline, definitions).run_requests or []
    asked_for = {(r.job_name, key.path[-1]) for r in requests for key in r.asset_selection or ()}
    assert asked_for == {(job.name, asset) for asset, job in PUBLICATIONS.items()}
    for request in requests:
        definitions.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=pipeline.instance,
            asset_selection=list(request.asset_selection or ()),
            tags=dict(request.tags),
        )
    assert pipeline.served(DAILY_SUMMARY) == served
    assert len(pipeline.served(REJECTED_COUNTS)) == 1
    assert look(pipeline, definitions).skip_message == "lake and PostgreSQL are as they were reported"
