"""Rejected records as a person sees them: samples, a warning, and counts by the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.defs.dagster_private import last_evaluation
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import environment, fresh_database
from clickstream_assets_tests.defs.test_backfill import event

NOON = datetime(2024, 5, 8, 12, 30, tzinfo=UTC)
SECRET = "ann@example.org|[x](http://example.org)" + "x" * 100


def metadata_of(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event
    assert event.asset_materialization
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.mark.long
def test_a_rule_that_was_not_broken_before_is_warned_of_with_samples_and_counts(
    postgres: Settings,
    duckdb_engine: DuckDBEngine,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    with fresh_database(postgres) as database:
        for name, value in (environment(database) | {"LAKE_PATH": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        ingest = _ingest(Lake(str(tmp_path), duckdb_engine), definitions, instance)

        valid = [event("05-01 10:00", f"u{number}") for number in range(60)]
        assert ingest(1, NOON - timedelta(days=3), *valid, {"broken": True}).passed
        unknown = [event("05-01 11:00", "ann", event_type=SECRET)] * 30
        others = [event("05-01 12:00", f"u{number}") for number in range(40)]
        warned = ingest(2, NOON, *unknown, {"broken": True}, *others)
        assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert (warned.description or "").startswith(
            "unknown: 30 of 71 records in 24 hours, 42.25 %, before 0.00 %. `clickstream rejected list --rule unknown`"
        )
        samples = metadata_of(instance, "rejected_events")["samples"]
        rows = [line for line in samples.splitlines() if "unknown" in line]
        assert len(rows) == 1
        assert rows[0] == (
            "- `unknown event_type: ann@example.org|[x](http://ex… (events/0, offset 2029, 2024-05-08 12:30 UTC)`"
        )
        assert metadata_of(instance, "rejected_counts")["rejected_in_24_hours"] == 31

        assert not ingest(3, NOON, event("05-01 13:00", "bob")).passed
        reported = metadata_of(instance, "rejected_events")
        assert (reported["new_records"], reported["samples"]) == (0, samples)
        assert metadata_of(instance, "rejected_counts")["changes"] == {
            **{"rows": 3, "inserted": 0, "updated": 2, "deleted": 0},
        }
        for client in clients_of(database):
            listed = client.get("/api/rejected?rule=unknown").json["rejected"]
            assert listed == [
                {
                    "hour": "2024-05-08T12:00:00Z",
                    "rule": "unknown",
                    "field": "event_type",
                    "rejected_by": "ingest",
                    "records": 30,
                    "received": 72,
                    "share": 41.67,
                }
            ]
            everything = client.get("/api/rejected?format=csv")
            assert everything.text.splitlines()[:3] == [
                "hour,rule,field,rejected_by,records,received,share",
                "2024-05-08T12:00:00Z,missing,event_type,ingest,1,72,1.39",
                "2024-05-08T12:00:00Z,unknown,event_type,ingest,30,72,41.67",
            ]
            assert "ann" not in everything.text
            # Three of the thirty, the newest, with the value of the field cut off as it is kept.
            shown = client.get("/api/rejected/samples?rule=unknown").json["samples"]
            assert [(row["offset"], row["rejected_value"]) for row in shown] == [
                (offset, SECRET[:200]) for offset in (2027, 2028, 2029)
            ]


def _ingest(
    lake: Lake, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> Callable[..., dg.AssetCheckEvaluation]:
    """Return a function that has a batch of records come at a time, and returns what the check then says."""
    job = definitions.resolve_job_def("ingest")
    assets = [key for key in job.asset_layer.executable_asset_keys if key != dg.AssetKey("raw_events")]
    check = dg.AssetCheckKey(dg.AssetKey("rejected_events"), "rejected_shares_are_usual")

    def ingest(batch: int, time: datetime, *payloads: dict[str, Any]) -> dg.AssetCheckEvaluation:
        rows = [
            {
                **dict.fromkeys(RAW_EVENTS.column_names),
                **{"topic": "events", "partition": 0, "offset": 1000 * batch + number, "batch": batch},
                **{"item": 1, "items": 1},
                **{"kafka_time": time, "value": json.dumps(payload).encode()},
            }
            for number, payload in enumerate(payloads)
        ]
        records = lake.engine.from_arrow(pa.Table.from_pylist(rows, schema=RAW_EVENTS.arrow))
        lake.append_batch(RAW_EVENTS, records, batch)
        assert job.execute_in_process(instance=instance, asset_selection=assets).success
        evaluation = last_evaluation(instance, check)
        assert evaluation
        return evaluation

    return ingest
