import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from clickstream_assets.commands import progress
from clickstream_assets.commands.app import app
from clickstream_assets.simulator.habits import USUAL, Habits
from clickstream_assets_tests.terminal import on_a_terminal

CLICKSTREAM = Path(sys.executable).with_name("clickstream")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a folder of its own, without a broker."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "RAW_LOGS_PATH": str(tmp_path / "raw_logs"),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_TIMEOUT_SECONDS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_simulate_ends_with_one_json_object_of_its_counts(run, tmp_path):
    result = run(
        "simulate", "-n", "2000", "--seed", "3", "--start", "2026-01-01", "--days", "1", "--no-kafka",
        "--late", "0.02", "--duplicate", "0.03", "--conflicting", "0.02", "--malformed", "0.05",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout.splitlines()[-1])
    lines = [line for path in (tmp_path / "raw_logs").iterdir() for line in path.read_bytes().splitlines()]
    assert counts["sent"] == len(lines)
    assert counts["events"] == 2_000
    assert counts["items"] == 2_000 + counts["duplicates"] + counts["conflicts"] + counts["rejected"]
    assert len(lines) < counts["items"]
    # As in a usual shop.
    assert counts["guest_orders"]
    assert all(counts["logins"].values())
    assert counts["seed"] == 3
    assert counts["start"].startswith("2026-01-01T00:00:00")
    assert f"{counts['sent']:,} records" in result.stderr


@pytest.mark.slow
def test_a_simulation_says_now_and_then_how_far_it_is_and_how_fast(run, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    result = run("simulate", "-n", "200", "--rate", "200", "--items", "0", "--no-kafka")
    assert result.exit_code == 0, result.output
    *lines, last = result.stderr.splitlines()
    assert len(lines) >= 2
    for line in lines:
        said = re.fullmatch(r"Simulating: (\d+) of 200 events, ([\d.]+)/s", line)
        assert said
        assert 50 < float(said[2]) < 400
    assert last.startswith("Sent 200 records")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.slow
def test_on_a_terminal_a_simulation_has_a_bar_with_its_rate(tmp_path):
    env = os.environ | {"RAW_LOGS_PATH": str(tmp_path), "COLUMNS": "100", "TERM": "xterm"}
    code, shown = on_a_terminal(
        [str(CLICKSTREAM), "simulate", "-n", "100", "--rate", "50", "--no-kafka"], env
    )
    assert code == 0, shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"Simulating [━╸╺]+ +\d+/100 +[\d.]+/s 0:00:0\d", plain)


def test_simulate_plain_makes_flat_events(run, tmp_path):
    result = run("simulate", "-n", "50", "--plain", "--users", "5", "--products", "2", "--no-kafka")
    assert result.exit_code == 0, result.output
    lines = [line for path in (tmp_path / "raw_logs").iterdir() for line in path.read_bytes().splitlines()]
    assert len(lines) == 50
    assert {frozenset(json.loads(line)) for line in lines} == {
        frozenset(("user_id", "product_id", "product_category", "event_type", "timestamp"))
    }


def test_the_shop_s_products_are_written_as_the_catalogue_reads_them(run, tmp_path):
    feed = tmp_path / "products.jsonl"
    simulate = ("simulate", "-n", "10", "--products", "3", "--no-kafka", "--catalogue", str(feed))
    result = run(*simulate, "--site", "https://shop.example")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["link"] for line in feed.read_text().splitlines()] == [
        f"https://shop.example/products/product_{number}" for number in (1, 2, 3)
    ]
    taken = run("catalogue", "--dry-run", str(feed))
    assert (taken.exit_code, taken.stderr) == (0, "")
    assert json.loads(taken.stdout) == {"read": 3, "rejected": 0}
    refused = run(*simulate, "--site", "shop")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "site=shop: is no address of http or https; write it as https://shop.example\n"


def test_each_share_of_a_shop_s_habits_is_an_option(run, tmp_path):
    shares = {
        "anonymous": 1,
        "never-login": 1,
        "late-login": 0,
        "guest-checkout": 1,
        "items": 0,
        "refunds": 0,
    }
    options = [word for name, share in shares.items() for word in (f"--{name}", str(share))]
    result = run("simulate", "-n", "500", "--seed", "1", "--no-kafka", *options)
    assert result.exit_code == 0, result.output
    lines = [line for path in (tmp_path / "raw_logs").iterdir() for line in path.read_bytes().splitlines()]
    assert not any("user_id" in json.loads(line) for line in lines)
    counts = json.loads(result.stdout.splitlines()[-1])
    assert counts["orders"] == counts["guest_orders"] > 0
    assert (counts["sent"], counts["refunds"]) == (500, 0.0)


def test_the_page_has_every_option_and_its_default():
    page = Path(__file__).parents[2].joinpath("docs", "simulator.md").read_text()
    shown = set(re.findall(r"`(--[a-z-]+)`", page))
    command: Any = get_command(app)
    options = {
        word for option in command.commands["simulate"].params for word in option.opts if len(word) > 2
    }
    assert shown == options - {"--help"}
    shares = {f"--{field.name.replace('_', '-')}": getattr(USUAL, field.name) for field in fields(Habits)}
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(rows[name]) for name in shares} == shares


def test_replay_ends_with_one_json_object_of_what_was_sent_and_skipped(run, tmp_path):
    path = tmp_path / "retail.csv"
    path.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,A,x,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
        "1,B,x,6,2010-12-01 08:26:00,2.55,,United Kingdom\n"
        "1,C\n"
    )
    result = run("replay", str(path), "--no-kafka")
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout.splitlines()[-1])
    assert counts["sent"] == 1
    assert counts["skipped"] == {"no_customer": 1, "malformed_row": 1}
    assert "line 4: 2 columns instead of 8" in result.stderr
    assert (tmp_path / "raw_logs" / "clickstream_2010-12-01.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "-n", "5"], "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1"),
        (["simulate", "-n", "5", "--late", "2"], "late=2.0: a share must be between 0 and 1"),
        (["simulate", "-n", "5", "--refunds", "2"], "refunds=2.0: a share must be between 0 and 1"),
        (["simulate", "-n", "5", "--plain", "--refunds", "0.1"], "plain events are of nobody"),
        (["simulate", "-n", "5", "--start", "soon"], "--start=soon"),
        (["simulate", "-n", "5", "--no-kafka", "--no-files"], "leave out --no-kafka or --no-files"),
        (["replay", "missing.csv"], "missing.csv does not exist"),
        (["replay", "."], "is a folder"),
    ],
)
def test_what_a_user_can_mend_is_one_message_and_exit_code_1(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_setting_that_cannot_be_used_is_named(run, monkeypatch):
    monkeypatch.setenv("NUM_USERS", "many")
    result = run("simulate", "-n", "5")
    assert result.exit_code == 1
    assert "NUM_USERS='many'" in result.stderr


def started(tmp_path, *arguments):
    environment = os.environ | {"RAW_LOGS_PATH": str(tmp_path / "raw_logs")}
    process = subprocess.Popen(
        [CLICKSTREAM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = monotonic() + 60
    while not any((tmp_path / "raw_logs").glob("*.jsonl")) and monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["simulate", "--rate", "200", "--no-kafka"], 0),
        (["simulate", "-n", "1000000", "--rate", "200", "--no-kafka"], 130),
    ],
)
def test_a_signal_ends_a_run_with_its_summary_and_complete_files(tmp_path, number, arguments, exit_code):
    process = started(tmp_path, *arguments)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert "Traceback" not in stderr
    content = b"".join(path.read_bytes() for path in (tmp_path / "raw_logs").iterdir())
    assert content.endswith(b"\n")
    assert json.loads(stdout.splitlines()[-1])["sent"] == content.count(b"\n")
