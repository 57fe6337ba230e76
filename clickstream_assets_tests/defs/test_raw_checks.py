"""The blocking checks of `events`: what they look at, and what they hold up. On real servers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.defs import scope
from clickstream_assets.defs.dagster_private import last_evaluation
from clickstream_assets.defs.dirty_days import dirty_days_sensor
from clickstream_assets.settings import Settings
from clickstream_assets_tests.defs.history import tick
from clickstream_assets_tests.defs.pipeline import Pipeline, send
from clickstream_assets_tests.defs.test_backfill import event

ANN, BOB, CAT, DAN, EVE = (event("05-01 10:00", user) for user in ("ann", "bob", "cat", "dan", "eve"))


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


def ingest(pipeline: Pipeline, definitions: dg.Definitions, *events: dict[str, Any]) -> bool:
    """Events come in; whether all checks passed, each of which is carried out whatever the others say."""
    send(pipeline.settings, (json.dumps(event).encode() for event in events))
    job = definitions.resolve_job_def("ingest")
    return job.execute_in_process(instance=pipeline.instance, raise_on_error=False).success


def found(pipeline: Pipeline, check: str) -> tuple[bool, dict[str, Any]]:
    """Return whether a check passed when it was last carried out, and what it said."""
    evaluation = last_evaluation(pipeline.instance, dg.AssetCheckKey(dg.AssetKey("events"), check))
    assert evaluation
    return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}


def double(pipeline: Pipeline, kept: dict[str, Any], batch: int) -> None:
    """Put an event that is there into the table once more, as a row of this batch."""
    path = f"{pipeline.settings.lake}/{EVENTS.name}"
    rows = deltalake.DeltaTable(path).to_pyarrow_table(columns=EVENTS.column_names)
    rows = rows.filter(pc.equal(rows["event_id"], kept["event_id"]))
    number = rows.column_names.index("batch")
    rows = rows.set_column(number, "batch", pa.array([batch], rows["batch"].type))
    deltalake.write_deltalake(path, rows, mode="append")


def test_an_ingest_says_of_its_records_why_they_are_no_events(pipeline: Pipeline):
    line = event("05-01 10:00", "ann", event_type="purchase", price="2.50", order_id="o1")
    again = line | {"event_id": "again", "timestamp": "2024-05-01T10:01:00Z"}
    pipeline.ingest(line)
    pipeline.ingest(
        line,
        again,
        line | {"price": "3.00"},
        {"broken": True},
    )
    assert pipeline.reported("events", "new_events") == 0
    duplicates = {
        name: pipeline.reported("duplicate_events", name)
        for name in ("new_records", "same_event", "same_order_line")
    }
    assert duplicates == {"new_records": 2, "same_event": 1, "same_order_line": 1}
    assert pipeline.reported("conflicting_events", "new_records") == 1
    assert pipeline.reported("rejected_events", "new_records") == 1


@pytest.mark.long
def test_each_ingest_is_checked_by_what_is_new_and_all_of_it_once_a_day(
    pipeline: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    pipeline.ingest(ANN)
    passed, first = found(pipeline, "counts_close")
    assert (passed, first["first_batch"], first["batch"]) == (True, 1, 1)

    pipeline.ingest(BOB, {"broken": True})
    passed, second = found(pipeline, "counts_close")
    assert (passed, second["first_batch"], second["batch"]) == (True, 2, 2)
    assert second["audited_at"] == first["audited_at"]
    assert second["counts"] == {
        "raw_events": 3,
        "items": 3,
        "events": 2,
        "duplicate_events": 0,
        "conflicting_events": 0,
        "rejected_events": 1,
    }
    assert sum(hour["raw_events"] for hour in second["hours"].values()) == 3

    # What an earlier ingest brought is left to the audit.
    double(pipeline, ANN, batch=1)
    pipeline.ingest(CAT)
    assert found(pipeline, "counts_close")[0]
    assert found(pipeline, "event_ids_are_unique")[0]

    double(pipeline, BOB, batch=4)
    assert not ingest(pipeline, definitions, DAN)
    passed, counts = found(pipeline, "counts_close")
    assert (passed, counts["first_batch"], counts["expected"], counts["actual"]) == (False, 4, 5, 6)
    passed, ids = found(pipeline, "event_ids_are_unique")
    assert (passed, ids["sample_event_ids"]) == (False, [BOB["event_id"]])
    # Batch 4 is not taken for checked by the ingest that comes after.
    assert not ingest(pipeline, definitions, EVE)
    assert found(pipeline, "event_ids_are_unique")[1]["first_batch"] == 4
    looked = tick(dirty_days_sensor, pipeline.instance, definitions)
    assert (looked.run_requests or []) == []
    assert (looked.skip_message or "").startswith("check counts_close of events failed; ")

    monkeypatch.setattr(scope, "FULL_AUDIT_EVERY", timedelta(0))
    assert not ingest(pipeline, definitions)
    passed, ids = found(pipeline, "event_ids_are_unique")
    assert (passed, ids["first_batch"]) == (False, 1)
    assert sorted(ids["sample_event_ids"]) == [ANN["event_id"], BOB["event_id"]]
    assert ids["ids_used_again"] == 2
