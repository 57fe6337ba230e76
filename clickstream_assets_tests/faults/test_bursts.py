"""More than a house can take at once, and what it should not keep: nothing that was taken is lost, nothing grows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.served import served
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import Tracker, collector
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.test_process import traffic
from clickstream_assets_tests.topics import new_topic

EVENTS_AT_ONCE, EVENTS_A_REQUEST = 6000, 100
EVENTS_A_SECOND = 500


@pytest.mark.fault("burst")
def test_of_thousands_of_events_at_once_none_that_was_taken_is_lost(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
):
    topic = new_topic(kafka, partitions=3)
    limits = {"COLLECTOR_RATE_LIMIT": str(EVENTS_A_SECOND)}
    with served(Settings(_env_file=None), **collector(topic), **limits) as api:
        tracker, over = Tracker(api.address), threading.Event()

        def look() -> int:
            looks = 0
            while not over.is_set():
                assert requests.get(f"{api.address}/health/live", timeout=20).json() == {"status": "live"}
                looks += 1
            return looks

        events = traffic(0, EVENTS_AT_ONCE)
        requests_of = [events[i : i + EVENTS_A_REQUEST] for i in range(0, EVENTS_AT_ONCE, EVENTS_A_REQUEST)]
        with ThreadPoolExecutor(len(requests_of) + 1) as clients:
            looking = clients.submit(look)
            with fault.until_healthy():
                list(clients.map(tracker.send, requests_of))
            over.set()
            assert looking.result() > 0
    assert tracker.refused[429] > 0
    fault.saw(f"{tracker.last_refusal} ({tracker.refused.total():,} of such answers)")
    settings = with_settings(topic, lake_path=str(tmp_path / "lake"))
    Ingestion.of(settings, duckdb_engine).run()
    account = take_account(settings, events, (Part.TOPIC, Part.LAKE), repeated=bool(tracker.refused[503]))
    fault.settle(account)
