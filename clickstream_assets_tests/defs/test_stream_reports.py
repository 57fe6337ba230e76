"""Reports of the always-on process to Dagster."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import dagster as dg
import pytest

from clickstream_assets.defs.stream_reports import reporter
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.streaming.status import Status, metadata


@pytest.mark.slow
def test_materializations_are_in_dagsters_history(tmp_path: Path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    lag = {TopicPartition("web", 0): 3, TopicPartition("web", 1): 4}
    status = Status(
        "product_windows",
        batch_id=7,
        rows=100,
        dropped_late=2,
        lag=lag,
        latency_seconds=1.5,
    )
    report = reporter(Settings(_env_file=None, dagster_home=tmp_path))
    report(["product_windows", "flash_sale_alerts"], metadata(status, 2))
    instance = dg.DagsterInstance.from_config(str(tmp_path))
    for asset in ("product_windows", "flash_sale_alerts"):
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event
        assert event.asset_materialization
        values = {name: value.value for name, value in event.asset_materialization.metadata.items()}
        assert values == {
            "batch": 7,
            "rows": 100,
            "dropped_late": 2,
            "lag": 7,
            "offsets_behind": {"web/0": 3, "web/1": 4},
            "latency_seconds": 1.5,
            "open_alerts": 2,
        }


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("{env: NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
        ("'postgresql://nobody@127.0.0.1:1/none'", "too many retries for DB connection"),
    ],
)
def test_a_dagster_that_cannot_be_reached_does_not_stop_the_streams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str, says: str
):
    # Between Dagster's own attempts to connect.
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: {url}}}}}\n")
    reporter(Settings(_env_file=None, dagster_home=tmp_path))(["product_windows"], {})
    (record,) = [record for record in caplog.records if record.name.endswith("stream_reports")]
    assert record.getMessage().startswith(f"DAGSTER_HOME={tmp_path}: product_windows not reported to Dagster")
    assert says in record.getMessage()


def test_without_dagster_one_line_says_so(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    report = reporter(Settings(_env_file=None))
    for _ in range(2):
        report(["product_windows"], {})
    assert [record.getMessage() for record in caplog.records] == [
        "DAGSTER_HOME is not set, so the streams do not report to Dagster"
    ]
