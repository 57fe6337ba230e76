"""Outages as people are told of them: by `GET /metrics`, Prometheus and Alertmanager, all of them real."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import yaml

from clickstream_assets.catalogue.metrics import STREAM_FAILING
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets_tests.api.test_metrics import scraped
from clickstream_assets_tests.api.test_server import served
from clickstream_assets_tests.databases import free_port
from clickstream_assets_tests.deploy.monitoring import PROMETHEUS, RULES, path_of
from clickstream_assets_tests.outages import OUTAGES, outage
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    has_caught_up,
    has_documents,
    running,
    traffic,
    wait_until,
)

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.spark, pytest.mark.timeout(2400)]
STREAMS = {"product_windows", "live_events"}
ALERTMANAGER_TEXTS = Path("/usr/share/prometheus/alertmanager/default.tmpl")
FAILING = "ClickstreamStreamFailing"
CONCERNED = {"Kafka": STREAMS, "PostgreSQL": STREAMS, "Elasticsearch": {"live_events"}}


class Monitored(NamedTuple):
    """A stream and the API on servers of their own, with Prometheus and Alertmanager."""

    stack: Stack
    shop: Shop
    log: Path
    api: str
    alertmanager: str

    def failing(self) -> set[str]:
        """The queries that the API says fail."""
        # Whoever scrapes waits no longer: https://prometheus.io/docs/prometheus/latest/configuration/configuration/
        answer = requests.get(f"{self.api}/metrics", timeout=10)
        assert answer.status_code == 200
        return {
            key[1]
            for key, value in scraped(answer.text).items()
            if key[0] == "clickstream_stream_failing" and value
        }

    def firing(self) -> set[str]:
        """The queries of which Alertmanager has an alert that they fail."""
        alerts = requests.get(f"{self.alertmanager}/api/v2/alerts", timeout=10).json()
        return {alert["labels"]["query"] for alert in alerts if alert["labels"]["alertname"] == FAILING}

    def goes_on(self) -> Callable[[], bool]:
        """Send events; return what says whether they have come through and nothing fails.

        That nothing fails is not enough: a query may find out that a server was away when that is back already.
        """
        self.shop.send(traffic(len(self.shop.sent), 10))
        return lambda: has_caught_up(self.shop) and has_documents(self.shop) and not self.failing()

    def seconds_until(self, is_so: Callable[[], bool]) -> float:
        """Wait for it; return how long that took."""
        began = time.monotonic()
        wait_until(is_so, self.log)
        return round(time.monotonic() - began, 1)


def settled(configuration: Path, folder: Path, **targets: str) -> Path:
    """The configuration as it is delivered, but for where the others are."""
    content = yaml.safe_load(configuration.read_text())
    if "scrape_configs" in content:
        content["scrape_configs"][0]["static_configs"][0]["targets"] = [targets["api"]]
        content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [targets["alertmanager"]]
    written = folder / configuration.name
    written.write_text(yaml.safe_dump(content))
    return written


def is_ready(port: int) -> bool:
    """Return whether Prometheus or Alertmanager says that it is."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=10).ok
    except requests.ConnectionError:
        return False


@contextmanager
def program(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name.removeprefix('prometheus-')}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def monitored() -> Iterator[Monitored]:
    # Asked for first: a test without them is to be skipped before anything is started.
    prometheus, alertmanager = path_of("prometheus"), path_of("prometheus-alertmanager")
    if not ALERTMANAGER_TEXTS.exists():
        pytest.skip(
            f"{ALERTMANAGER_TEXTS} is missing, which Debian's Alertmanager needs; `make prometheus` as root fetches it"
        )
    with tempfile.TemporaryDirectory(prefix="clickstream-alerting-") as home:
        folder = Path(home)
        stack = Stack(folder / "stack", Settings(_env_file=None).jars_path)
        try:
            stack.up()
            named: dict[str, Any] = {name.lower(): value for name, value in stack.env().items()}
            settings = Settings(_env_file=None, **named)
            prepare_servers(settings)
            shutil.copy(RULES, folder)
            log = folder / "stream.log"
            # Now, as whatever connects meanwhile may be given one of them.
            ports = {name: free_port() for name in ("prometheus", "alertmanager")}
            with (
                new_shop(settings, folder, **QUICK) as shop,
                running(shop, log),
                served(shop.settings) as api,
                program(
                    folder,
                    alertmanager,
                    f"--config.file={settled(PROMETHEUS / 'alertmanager.yml', folder)}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
                    "--cluster.listen-address=",
                ),
                program(
                    folder,
                    prometheus,
                    "--config.file="
                    + str(
                        settled(
                            PROMETHEUS / "prometheus.yml",
                            folder,
                            api=api.address.removeprefix("http://"),
                            alertmanager=f"127.0.0.1:{ports['alertmanager']}",
                        )
                    ),
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
                ),
            ):
                found = Monitored(stack, shop, log, api.address, f"http://127.0.0.1:{ports['alertmanager']}")
                for name, port in ports.items():
                    wait_until(partial(is_ready, port), folder / f"{name}.log")
                shop.send(traffic(0, 100))
                wait_until(lambda: STREAM_FAILING.name in requests.get(f"{api.address}/metrics").text, log)
                wait_until(lambda: not found.failing(), log)
                yield found
        finally:
            stack.down()


@pytest.mark.parametrize("title", CONCERNED)
@pytest.mark.parametrize("how", OUTAGES)
def test_a_server_that_is_gone_or_hangs_is_seen_in_the_metrics_and_so_is_its_return(
    monitored: Monitored, title: str, how: str
):
    wait_until(monitored.goes_on(), monitored.log)
    with outage(monitored.stack, title, how):
        seen = monitored.seconds_until(lambda: monitored.failing() >= CONCERNED[title])
        assert monitored.failing() == CONCERNED[title]
    well = monitored.seconds_until(monitored.goes_on())
    print(f"{title} {how}: failing after {seen} s, and well {well} s after it was back")
    # It is said to be half a minute, on a machine that has time for it.
    assert seen < 60


def test_alertmanager_has_an_alert_while_kafka_is_away(monitored: Monitored):
    wait_until(monitored.goes_on(), monitored.log)
    wait_until(lambda: not monitored.firing(), monitored.log)
    with outage(monitored.stack, "Kafka", "killed"):
        fired = monitored.seconds_until(lambda: monitored.firing() == STREAMS)
    resolved = monitored.seconds_until(lambda: not monitored.firing())
    print(f"Kafka killed: alerts fire after {fired} s, and are resolved {resolved} s after Kafka is healthy")
