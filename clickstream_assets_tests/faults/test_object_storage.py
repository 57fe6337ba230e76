"""A lake on S3, whose server is gone or hangs under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets_tests.databases import suspended, with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import ingesting, load
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.object_storage import BUCKET, ObjectStorage, object_storage
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import QUICK, wait_until

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.timeout(1800)]
AWAY_SECONDS = 20
RUN_SECONDS = 600


def holds(shop: Shop, records: int) -> bool:
    return sum(held.high for held in Topics(shop.settings).offsets().values()) >= records


@contextmanager
def is_away(s3: ObjectStorage, how: str) -> Iterator[None]:
    """The server is killed and started again, or does not run meanwhile."""
    if how == "hang":
        with suspended(s3.pid):
            yield
        return
    s3.stop()
    try:
        yield
    finally:
        s3.start()


@pytest.mark.parametrize(
    "how",
    [pytest.param(how, marks=pytest.mark.fault(f"s3_{how}"), id=f"s3_{how}") for how in ("away", "hang")],
)
def test_a_lake_whose_server_is_away_takes_everything_when_it_is_back(
    servers: Settings, tmp_path: Path, how: str, fault: Fault
):
    run_log = tmp_path / "run.log"
    with object_storage(tmp_path) as s3, new_shop(servers, tmp_path, partitions=3, **QUICK) as shop:
        shop.settings = with_settings(shop.settings, lake_path=f"s3a://{BUCKET}/{how}")
        with load(shop):
            wait_until(partial(holds, shop, 50))
            shop.ingest()
            wait_until(partial(holds, shop, 100))
            with ExitStack() as running_out:
                with is_away(s3, how):
                    run = running_out.enter_context(ingesting(shop, run_log))
                    wait_until(lambda: "STEP_START" in run_log.read_text(), run_log)
                    time.sleep(AWAY_SECONDS)
                with fault.until_healthy():
                    run.wait(RUN_SECONDS)
            said = run_log.read_text()
            outcome = said.splitlines()[-1]
            if how == "away":
                fault.saw(said, r"LAKE_PATH=s3a://.*?Generic S3 error")
            fault.saw(f"a run of ingest {outcome}")
        with fault.until_healthy():
            shop.ingest()
        fault.settle(take_account(shop.settings, shop.sent, (Part.TOPIC, Part.LAKE)))
