"""Everything real: the daemon, the webserver, the servers and the API; the sensors start the runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from urllib.request import urlopen

import pytest

from clickstream_assets.local.demo import demo_home
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.catalogue import product
from clickstream_assets_tests.conftest import DATA
from clickstream_assets_tests.demos import CLICKSTREAM, demo_that_stays_up

REES46 = DATA / "rees46_multicategory_20191001_train.csv.gz"


pytestmark = pytest.mark.server


def run_demo(tmp_path: Path, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess, dict]:
    """Run `clickstream demo --once` as a user does, after a demo that stayed up; return its last line as well."""
    (tmp_path / ".env").write_text(
        "CLICKSTREAM_HOME=/nowhere\nDAGSTER_HOME=/nowhere/dagster\nPOSTGRES_HOST=127.0.0.1\nPOSTGRES_PORT=1\n"
        "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1\nELASTICSEARCH_URL=http://127.0.0.1:1\n"
    )
    done = subprocess.run(
        [CLICKSTREAM, "demo", "--once", "--timeout", "900", *arguments],
        capture_output=True,
        text=True,
        timeout=1100,
        cwd=tmp_path,
        # As a user has it: the tests' own first day would be that of the demo's partitions.
        env={name: value for name, value in os.environ.items() if name != "EVENTS_START_DATE"}
        | {"TMPDIR": str(tmp_path)}
        | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done, json.loads(done.stdout.splitlines()[-1])


def test_simulated_events_come_out_as_what_they_were_made_and_each_command_that_is_shown_works(
    tmp_path: Path,
):
    with demo_that_stays_up(tmp_path, "--count", "5000", "--seed", "7") as (process, result, said):
        made = result["made"]
        assert made["duplicates"] > 20
        assert made["conflicts"] > 20
        assert made["rejected"] > 20
        assert made["late"] > 20
        counts = ("sent", "items", "events", "duplicates", "conflicts", "rejected", "users", "buyers")
        assert {name: result[name] for name in counts} == {name: made[name] for name in counts}
        assert result["raw"] == made["sent"] < made["items"]
        # Persons by all ids of theirs, and money of two currencies, some of it given back.
        assert min(made["logins"].values()) > 10
        assert made["shared_devices"]
        assert made["guest_orders"]
        assert made["foreign_orders"]
        assert (result["revenue"], result["refunds"]) == (made["revenue"], made["refunds"])
        assert made["refunds"] > 0
        assert result["sample"]["items"]
        assert {"rank", "score", "reason", "algorithm", "product_id"} <= set(result["sample"]["items"][0])
        # What the shop calls it and shows of it, served by the run that made the days.
        first = result["sample"]["items"][0]
        assert first["name"] == product(int(first["product_id"].removeprefix("product_"))).name
        assert first["link"].endswith(f"/products/{first['product_id']}")
        with urlopen(first["image"], timeout=10) as shown_picture:
            assert shown_picture.headers["Content-Type"] == "image/svg+xml"
        assert "took in the shop's feed of 100 products" in said
        assert "of catalogue" not in said
        # A flash sale a day, each an alert.
        assert result["alerts"] >= 6

        shown = [line.strip() for line in said.splitlines() if line.startswith("    ")]
        *commands, simulate = [f"curl {line}" if line.startswith("http") else line for line in shown]
        answers = {command: _typed(command, tmp_path) for command in commands}
        today, graph, recommendation, person, alerts, rejected, report, page, funnel, routes = (
            answers.values()
        )
        assert '<dl class="figures">' in today
        live = re.findall(r'<td><a href="/products/product_(\d+)">([^<]+)</a></td>', today)
        assert live
        assert [unescape(name) for _, name in live] == [product(int(number)).name for number, _ in live]
        address = f"{commands[0].removeprefix('curl ')}products/{first['product_id']}"
        with urlopen(address, timeout=30) as its_page:
            policy = its_page.headers["Content-Security-Policy"]
            assert f'<img src="{first["image"]}"' in its_page.read().decode()
        assert first["image"].startswith(re.search(r"img-src .*?(http://127\.0\.0\.1:\d+/)", policy)[1])
        assert 'id="initialization-data"' in graph
        assert json.loads(recommendation)["items"] == result["sample"]["items"]
        assert json.loads(person)["person_id"] == result["person"]
        assert len(json.loads(person)["anonymous_ids"]) > 1
        assert len(json.loads(alerts)["alerts"]) == result["alerts"]
        assert f"{result['rejected']} records are rejected." in rejected
        assert "Conversion" in report
        assert "<h1>Report of" in page
        assert [step["step"] for step in json.loads(funnel)["funnel"]] == ["view", "add_to_cart", "purchase"]
        assert 'data-document="/openapi.json"' in routes
        _typed(f"timeout --signal INT 10 {simulate}", tmp_path, code=124)
        assert process.poll() is None
    assert process.returncode == 0, (tmp_path / "said.txt").read_text()[-4000:]
    assert process.stdout.read() == ""


def _typed(command: str, folder: Path, code: int = 0) -> str:
    """Run a command as a user of the demo types it; return what it says."""
    own = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=own, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, (command, done.stdout, done.stderr)
    return done.stdout


def test_a_home_for_once_is_gone_afterwards(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with demo_home(once=True) as home:
        (home / "lake").mkdir()
        assert home.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(not REES46.exists(), reason=f"{REES46} is not on this machine")
def test_a_public_days_events_give_its_published_counts(tmp_path: Path):
    _, result = run_demo(tmp_path, "--events", str(REES46))
    expected = {
        "sent": 14074,
        "raw": 14074,
        "events": 14073,
        "duplicates": 1,
        "rejected": 0,
        "conflicts": 0,
        "sessions": 3642,
        "users": 3633,
        "buyers": 156,
        "windows": 15327,
        "alerts": 0,
        "users_with_recommendations": 3633,
    }
    assert {name: result[name] for name in expected} == expected
    # The events are of a shop that nothing else is known of.
    assert {(item["name"], item["image"]) for item in result["sample"]["items"]} == {(None, None)}
    # The temporary home and its servers are gone.
    assert list(tmp_path.glob("clickstream-demo-*")) == []


def test_a_file_that_is_not_there_stops_the_demo_with_one_clear_line(tmp_path: Path):
    done = subprocess.run(
        [CLICKSTREAM, "demo", "--once", "--events", "nowhere.jsonl"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert "nowhere.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("clickstream-demo-*")) == []


@pytest.mark.long
def test_webserver_and_daemon_answer_while_the_sensors_work(tmp_path: Path, pipeline_env, stack):
    """`dg dev`, as a developer starts it from the repository's root after `clickstream stack up`."""
    from clickstream_assets.local.children import running
    from clickstream_assets.local.ports import free_port

    port = free_port()
    command = [str(Path(sys.executable).parent / "dg"), "dev", "--host", "127.0.0.1", "--port", str(port)]
    root = Path(__file__).parents[2]
    with running("dg dev", command, tmp_path / "dg.log", dict(os.environ), root) as child:
        answer = _poll(f"http://127.0.0.1:{port}/server_info", child)
        assert "dagster_webserver_version" in answer
        query = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}}}"
        entries = _poll(f"http://127.0.0.1:{port}/graphql?query={query}".replace(" ", "%20"), child)
        assert entries["data"]["workspaceOrError"]["locationEntries"][0]["loadStatus"] == "LOADED"


def _poll(url: str, child) -> dict:
    from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

    @retry(
        retry=retry_if_exception_type(OSError), wait=wait_fixed(0.2), stop=stop_after_delay(90), reraise=True
    )
    def ask() -> dict:
        child.check()
        with urlopen(url, timeout=5) as answer:
            return json.load(answer)

    return ask()
