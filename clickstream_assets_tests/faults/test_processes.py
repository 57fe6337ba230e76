"""Processes that are killed, or there twice, while events come in."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.api.served import served, workers_of
from clickstream_assets_tests.databases import free_port, with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import ends, is_past, load, settle
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.streams import new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    running,
    traffic,
    wait_until,
)
from clickstream_assets_tests.topics import keyed, new_topic

SECRET = "of the shop's pages"


@pytest.mark.server
@pytest.mark.fault("api_killed")
def test_events_that_a_killed_api_did_not_confirm_are_sent_again_and_are_there_once(
    kafka: Settings, postgres: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
):
    assert postgres
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    variables = {
        "API_PORT": str(free_port()),
        "API_KEYS": entry(SECRET, Scope.COLLECT),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
    }
    events = traffic(0, 300)
    batches = [events[first : first + 10] for first in range(0, len(events), 10)]

    said: list[str] = []

    def collect(batch: list[dict[str, object]]) -> bool:
        request = Request(
            f"http://127.0.0.1:{variables['API_PORT']}/api/events",
            json.dumps(batch).encode(),
            {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                assert answer.status in (200, 202), answer.status
                return True
        except (URLError, ConnectionError) as error:
            said.append(str(error))
            return False

    with served(postgres, **variables) as api, ThreadPoolExecutor(4) as shoppers:
        asked = shoppers.map(collect, batches)
        confirmed = list(itertools.islice(asked, len(batches) // 3))
        # All of it: what a worker had taken and not confirmed is the sender's to send again.
        workers = workers_of(api.process.pid, 2)
        api.process.kill()
        for worker in workers:
            worker.kill()
        confirmed += asked
    assert not all(confirmed)
    fault.saw(Counter(said).most_common(1)[0][0])
    began = time.monotonic()
    with served(postgres, **variables):
        for batch, was_confirmed in zip(batches, confirmed, strict=True):
            assert was_confirmed or collect(batch)
    fault.healthy_after([time.monotonic() - began])
    Ingestion.of(settings, duckdb_engine).run()
    fault.settle(take_account(settings, events, (Part.TOPIC, Part.LAKE), repeated=True))


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.server
@pytest.mark.timeout(1800)
@pytest.mark.fault("two_streams")
def test_of_two_streams_one_waits_and_takes_over(servers: Settings, tmp_path: Path, fault: Fault):
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop, running(shop, first_log) as first:
        wait_until(lambda: "the streams run" in first_log.read_text(), first_log)
        with running(shop, second_log) as second:
            with load(shop):
                wait_until(lambda: is_past(shop, keyed(shop.settings, {0: 10, 1: 10, 2: 10})), first_log)
                wait_until(lambda: "waiting for it" in second_log.read_text(), second_log)
                said = re.sub(r"process \d+ on \S+ \(since [^)]+\)", "process …", second_log.read_text())
                fault.saw(said, r"the streams are run by .*")
                first.kill()
                with fault.until_healthy():
                    reached = ends(shop)
                    wait_until(lambda: is_past(shop, reached), second_log)
            settle(fault, shop, second, second_log)
