"""The natural first click in Dagster's UI, on a fresh demo: "Materialize all", over all partitions."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from clickstream_assets.local.demo import Demo, demo_home

pytestmark = [pytest.mark.server, pytest.mark.long]

NODES = (
    "{assetNodes{assetKey{path} isMaterializable partitionKeys "
    "partitionStats{numPartitions numMaterialized numFailed}}}"
)
LAUNCH = (
    "mutation($params: LaunchBackfillParams!){launchPartitionBackfill(backfillParams: $params){"
    "... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}"
)
STATUS = (
    "query($id: String!){partitionBackfillOrError(backfillId: $id){"
    "... on PartitionBackfill{status error{message}}}}"
)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    """A demo of a fresh home, which sets its own environment; its simulated events are served."""
    before = dict(os.environ)
    monkeypatch.delenv("EVENTS_START_DATE")
    try:
        with demo_home(once=True) as home, ExitStack() as stack:
            running = Demo(home, True, stack, time.monotonic())
            sent, _ = running.feed(None, 5000, 0.01, 7)
            running.start_readers()
            running.wait(sent, 900)
            yield running
    finally:
        os.environ.clear()
        os.environ.update(before)


def ask(demo: Demo, query: str, **variables: Any) -> dict[str, Any]:
    """What Dagster's webserver answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    url = f"http://127.0.0.1:{demo.dagster_port}/graphql"
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=120) as answer:
        answered = json.load(answer)
    assert "errors" not in answered, answered["errors"]
    return answered["data"]


def not_made(demo: Demo) -> dict[str, int]:
    """The number of partitions of each asset that are missing or failed, where there are any."""
    found = {}
    for node in ask(demo, NODES)["assetNodes"]:
        if stats := node["partitionStats"]:
            found["/".join(node["assetKey"]["path"])] = stats["numPartitions"] - stats["numMaterialized"]
    assert len(found) == 12
    return {asset: number for asset, number in found.items() if number}


@retry(retry=retry_if_result(bool), wait=wait_fixed(1), stop=stop_after_delay(600))
def wait_until_nothing_is_missing(demo: Demo) -> dict[str, int]:
    return not_made(demo)


@retry(
    retry=retry_if_result(lambda backfill: backfill["status"] == "REQUESTED"),
    wait=wait_fixed(0.5),
    stop=stop_after_delay(900),
)
def wait_for_backfill(demo: Demo, backfill_id: str) -> dict[str, Any]:
    return ask(demo, STATUS, id=backfill_id)["partitionBackfillOrError"]


def failures(demo: Demo) -> dict[str, str]:
    """The errors of the runs that failed."""
    return {run["runId"]: demo._failure(run["runId"]) for run in demo._runs() if run["status"] == "FAILURE"}


def test_days_without_events_are_made_by_themselves_and_all_assets_over_all_days_when_asked(demo: Demo):
    assert wait_until_nothing_is_missing(demo) == {}
    nodes = ask(demo, NODES)["assetNodes"]
    (days,) = {tuple(node["partitionKeys"]) for node in nodes if node["partitionKeys"]}
    assert days[0] == f"{int(days[-1][:4]) - 1}-01-01"
    # What the UI sends.
    params = {
        "tags": [],
        "assetSelection": [{"path": node["assetKey"]["path"]} for node in nodes if node["isMaterializable"]],
        "partitionNames": list(days),
        "fromFailure": False,
    }
    launched = ask(demo, LAUNCH, params=params)["launchPartitionBackfill"]
    assert "backfillId" in launched, launched
    began = time.monotonic()
    ended = wait_for_backfill(demo, launched["backfillId"])
    print(f"\nall assets over {len(days)} days: {time.monotonic() - began:.0f} s")
    assert failures(demo) == {}
    assert ended == {"status": "COMPLETED_SUCCESS", "error": None}
    assert not_made(demo) == {}
