"""A person is erased while events flow, and Kafka is read again from its beginning: they alone stay away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.commands.stream import rebuild_streams
from clickstream_assets.settings import Settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import flows, ingesting, load
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    START,
    documents,
    has_caught_up,
    running,
    traffic,
    wait_until,
)

CLICKSTREAM = str(Path(sys.executable).with_name("clickstream"))
ANN = {"user_id": "ann-7", "anonymous_id": "phone-a"}


def carried_out(shop: Shop, job: str, log: Path) -> None:
    with ingesting(shop, log, job) as run:
        assert run.wait() == 0
    assert log.read_text().splitlines()[-1].startswith("succeeded"), log.read_text()[-3000:]


def erased(shop: Shop, person: str) -> str:
    done = subprocess.run(
        [CLICKSTREAM, "erase", person], env=shop.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.server
@pytest.mark.spark
@pytest.mark.timeout(1800)
@pytest.mark.fault("erase_and_replay")
def test_who_is_erased_while_events_flow_stays_away_when_kafka_is_read_again(
    servers: Settings, tmp_path: Path, fault: Fault
):
    log, run_log = tmp_path / "stream.log", tmp_path / "run.log"
    hers: list[dict[str, Any]] = [click(START, i, event_id=f"ann{i}", **ANN) for i in range(20)]
    ids = {event["event_id"] for event in hers}
    gone: dict[Part, set[str]] = {Part.LAKE: ids, Part.DOCUMENTS: ids}

    def has_those_of_others(shop: Shop) -> bool:
        there = {document[0] for document in documents(shop.settings)}
        return there >= {event["event_id"] for event in shop.sent} - ids

    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop:
        with running(shop, log):
            shop.send(hers)
            with load(shop):
                wait_until(partial(flows, shop), log)
                wait_until(lambda: ids <= {document[0] for document in documents(shop.settings)}, log)
                carried_out(shop, "ingest", run_log)
                fault.saw(erased(shop, "ann-7"), r"PostgreSQL and Elasticsearch have .*")
                assert not ids & {document[0] for document in documents(shop.settings)}
                carried_out(shop, "erase", run_log)
            wait_until(lambda: has_caught_up(shop) and has_those_of_others(shop), log)
        carried_out(shop, "ingest", run_log)
        before = take_account(shop.settings, shop.sent, absent=gone)
        assert (before.lost, before.doubled) == ([], [])
        # All that is ours is lost, but for PostgreSQL; Kafka still has her records.
        shutil.rmtree(shop.settings.lake)
        with fault.until_healthy():
            carried_out(shop, "ingest", run_log)
            rebuild_streams(shop.settings)
            with running(shop, log):
                # Later than all before; what is older than those would be too late for its windows.
                shop.send(traffic(100_000, 100))
                wait_until(lambda: has_caught_up(shop) and has_those_of_others(shop), log)
        carried_out(shop, "ingest", run_log)
        fault.settle(take_account(shop.settings, shop.sent, absent=gone | {Part.WINDOWS: ids}))
