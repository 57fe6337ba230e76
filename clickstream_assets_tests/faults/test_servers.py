"""Kafka, PostgreSQL and Elasticsearch killed or hung under load, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.api.app import create_app
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets_tests.faults.account import take_account
from clickstream_assets_tests.faults.load import STOPPED, ends, flows, ingesting, is_past, load
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.outages import outage, stack_of_its_own
from clickstream_assets_tests.streaming.streams import new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    has_caught_up,
    has_documents,
    running,
    wait_until,
)

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.spark, pytest.mark.timeout(2400)]
OUTAGE_SECONDS = 30
# Tried again, ever later, each time up to the server's limit; and as much again for a machine that is busy.
RUN_SECONDS = 300
NEEDS = {"Kafka": "KAFKA_BOOTSTRAP_SERVERS=", "PostgreSQL": "POSTGRES_HOST=", "Elasticsearch": None}
"""The setting that a run of `ingest` names when it fails without a server; Elasticsearch is none of its business."""
FAULTS = {
    "kafka_kill": ("Kafka", "killed"),
    "kafka_hang": ("Kafka", "hung"),
    "pg_kill": ("PostgreSQL", "killed"),
    "pg_hang": ("PostgreSQL", "hung"),
    "es_kill": ("Elasticsearch", "killed"),
    "es_hang": ("Elasticsearch", "hung"),
}


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with stack_of_its_own() as stack:
        yield stack


@pytest.mark.parametrize(
    ("title", "how"),
    [pytest.param(*each, marks=pytest.mark.fault(name), id=name) for name, each in FAULTS.items()],
)
def test_a_server_that_is_away_under_load_costs_no_record(
    own_stack: Stack, tmp_path: Path, title: str, how: str, fault: Fault
):
    named: dict[str, Any] = {name.lower(): value for name, value in own_stack.env().items()}
    settings = Settings(_env_file=None, **named, postgres_timeout_seconds=3)
    prepare_servers(settings)
    log, run_log = tmp_path / "stream.log", tmp_path / "run.log"
    with new_shop(settings, tmp_path, partitions=3, **QUICK) as shop, running(shop, log) as process:
        api = create_app(shop.settings).test_client()
        with load(shop):
            wait_until(partial(flows, shop), log)
            shop.ingest()
            began = time.monotonic()
            with ExitStack() as running_out:
                with outage(own_stack, title, how):
                    run = running_out.enter_context(ingesting(shop, run_log))
                    time.sleep(OUTAGE_SECONDS)
                    assert process.poll() is None, log.read_text()[-3000:]
                    ready = api.get("/health/ready")
                    fault.saw(f"/health/ready {ready.status_code} {ready.text}")
                # Started again, or right after it went on.
                with fault.until_healthy():
                    wait_until(partial(is_past, shop, ends(shop)), log)
                run.wait(RUN_SECONDS - (time.monotonic() - began))
            said = run_log.read_text()
            outcome = said.splitlines()[-1]
            if not outcome.startswith("succeeded"):
                assert outcome.startswith("failed"), said[-3000:]
                assert NEEDS[title], said[-3000:]
                assert NEEDS[title] in said
            fault.saw(f"a run of ingest {outcome}")
        wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        assert process.poll() is None
        fault.saw(log.read_text(), STOPPED)
        shop.ingest()
        assert len({event["event_id"] for event in shop.sent}) == len(shop.sent)
        fault.settle(take_account(shop.settings, shop.sent))
