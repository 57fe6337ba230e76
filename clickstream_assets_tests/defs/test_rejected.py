"""Rejected records as a person sees them: counts by the API, samples, and a warning. On real servers."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from confluent_kafka import Producer

from clickstream_assets.defs.dagster_private import last_evaluation
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_backfill import event

DAY_SECONDS = 24 * 3600


def send_at(settings: Settings, seconds: float, *values: dict[str, Any]) -> None:
    """Records that came at a time, seconds since 1970."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for value in values:
        producer.produce(settings.kafka_topic, value=json.dumps(value), timestamp=int(seconds * 1000))
    assert producer.flush(30) == 0


def test_a_rule_that_was_never_broken_before_is_warned_of_with_samples_and_counts(
    pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions
):
    pipeline = Pipeline(pipeline_env, instance, definitions)
    now = time.time()
    valid = [event("05-01 10:00", f"u{number}") for number in range(60)]

    def shares() -> dg.AssetCheckEvaluation:
        key = dg.AssetCheckKey(dg.AssetKey("rejected_events"), "rejected_shares_are_usual")
        evaluation = last_evaluation(instance, key)
        assert evaluation
        return evaluation

    send_at(pipeline_env, now - 3 * DAY_SECONDS, *valid, {"broken": True})
    pipeline.ingest()
    assert shares().passed
    secret = "ann@example.org|[x](http://example.org)" + "x" * 100
    send_at(pipeline_env, now, *(event("05-01 11:00", "ann", event_type=secret) for _ in range(20)))
    send_at(pipeline_env, now, {"broken": True}, *(event("05-01 12:00", f"u{n}") for n in range(40)))
    pipeline.ingest()

    warned = shares()
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (warned.description or "").startswith(
        "unknown: 20 of 61 records in 24 hours, 32.79 %, before 0.00 %. `clickstream rejected list --rule unknown`"
    )
    samples = str(pipeline.reported("rejected_events", "samples"))
    rows = [line for line in samples.splitlines() if "unknown" in line]
    assert len(rows) == 1
    assert r"ann@example.org\|\[x\](http://ex…" in rows[0]
    pipeline.ingest(event("05-01 13:00", "bob"))
    assert pipeline.reported("rejected_events", "new_records") == 0
    assert pipeline.reported("rejected_events", "samples") == samples

    hour = datetime.fromtimestamp(now // 3600 * 3600, UTC).strftime("%Y-%m-%dT%H:00:00Z")
    for client in clients_of(pipeline_env):
        listed = client.get("/api/rejected?rule=unknown")
        assert listed.json["rejected"] == [
            {
                "hour": hour,
                "rule": "unknown",
                "field": "event_type",
                "rejected_by": "ingest",
                "records": 20,
                "received": 62,
                "share": 32.26,
            }
        ]
        everything = client.get("/api/rejected?format=csv").text.splitlines()
        assert everything[0] == "hour,rule,field,rejected_by,records,received,share"
        assert len(everything) == 4
        assert "ann" not in client.get("/api/rejected").text
