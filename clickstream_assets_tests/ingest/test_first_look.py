"""A file's first records are judged before any is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clickstream_assets.commands.app import app
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.ingest.first_look import in_words, look_at_file, require_events
from clickstream_assets.settings import Settings

GOOD = '{"event_type": "view", "user_id": "u", "product_id": "p", "timestamp": "2024-05-02T10:00:00Z"}\n'
NO_TIME = '{"event_type": "view", "user_id": "u", "timestamp": "soon"}\n'
NO_TYPE = '{"user_id": "u", "timestamp": "2024-05-02T10:00:00Z"}\n'
TWO_ITEMS = (
    '{"event_type": "purchase", "user_id": "u", "timestamp": "2024-05-02T10:00:00Z", '
    '"items": [{"product_id": "p"}, {"price": 1}]}\n'
)


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in a folder of its own, without a broker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAW_LOGS_PATH", str(tmp_path / "raw_logs"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("KAFKA_TIMEOUT_SECONDS", "1")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_records_are_judged_in_the_dialect_of_the_topic_that_they_go_to(path):
    path.write_text(GOOD)
    for topics, events in (("clicks,web=segment", 1), ("web=segment,clicks", 0)):
        look = look_at_file(Settings(_env_file=None, kafka_topic=topics), EventFile(path))
        assert (look.records, look.events) == (1, events)


def test_it_says_what_a_file_is_and_which_rules_its_records_break(settings, path):
    path.write_text(GOOD * 5 + NO_TIME * 3 + "\n" + NO_TYPE + TWO_ITEMS)
    file = EventFile(path)
    look = look_at_file(settings, file)
    assert (look.records, look.events) == (10, 6)
    assert look.rejected == {
        ("timestamp", "not_iso_8601"): 3,
        ("event_type", "missing"): 1,
        ("product_id", "missing"): 1,
    }
    assert in_words(file, look) == (
        "events.jsonl is taken for JSON lines: of its first 10 records 5 will be rejected: 3 timestamp not_iso_8601 "
        "(such as 'soon'); 1 event_type missing; 1 product_id missing; rows left out among them: 1 blank_line"
    )
    require_events(file, look)


def test_no_more_than_the_first_thousand_are_looked_at_or_those_that_will_be_sent(settings, path):
    path.write_text(GOOD * 1500)
    file = EventFile(path)
    look = look_at_file(settings, file)
    assert (look.records, str(look.first_day)) == (1000, "2024-05-02")
    assert look_at_file(settings, file, limit=7).records == 7
    assert (
        in_words(file, look)
        == "events.jsonl is taken for JSON lines: of its first 1,000 records no event will be rejected"
    )


@pytest.mark.parametrize(("good", "is_refused"), [(4, True), (5, False)])
def test_a_file_of_which_nearly_all_would_be_rejected_is_not_sent(run, path, good, is_refused):
    path.write_text(NO_TIME * (100 - good) + GOOD * good)
    result = run("replay", str(path), "--no-kafka")
    assert (result.exit_code, (path.parent / "raw_logs").exists()) == (int(is_refused), not is_refused)
    if is_refused:
        assert (
            "96 of its first 100 events would be rejected: 96 timestamp not_iso_8601 (such as 'soon')"
            in result.stderr
        )
        assert "--anyway" in result.stderr
    assert run("replay", str(path), "--no-kafka", "--anyway").exit_code == 0


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (GOOD.replace("T10:00:00Z", ""), "no_time_of_day (such as '2024-05-02'). A day alone is no time"),
        (
            GOOD.replace('"2024-05-02T10:00:00Z"', "20240502"),
            "no_time_of_day (such as '20240502'). A day alone",
        ),
        (
            "oops\n",
            "record not_json (such as 'JSON is malformed: invalid character (byte 0)'). Each line of the file",
        ),
        (
            GOOD.replace("T10:00:00Z", "") + NO_TYPE,
            "(--time-of-day 12:00), or write it in the file. Say which of its columns are which fields (--map",
        ),
        (NO_TYPE, "event_type missing. Say which of its columns are which fields (--map timestamp=when)"),
    ],
    ids=["day", "day in digits", "no JSON", "day and no type", "no type"],
)
def test_a_file_that_is_not_sent_has_advice_that_fits_what_is_wrong(settings, path, line, advice):
    path.write_text(GOOD + line * 30)
    file = EventFile(path)
    with pytest.raises(InputError, match=re.escape(advice)) as caught:
        require_events(file, look_at_file(settings, file))
    assert ("--map" in str(caught.value)) == ("--map" in advice)


def test_up_to_three_different_values_of_a_broken_rule_are_named(settings, path):
    kinds = ["logout", "login", "logout", "signup", "wave", "x" * 100]
    path.write_text("".join(GOOD.replace("view", kind) for kind in kinds))
    file = EventFile(path)
    assert (
        look_at_file(settings, file).reasons == "6 event_type unknown (such as 'logout', 'login', 'signup')"
    )


@pytest.mark.parametrize("command", [["replay", "--no-kafka"], ["demo", "--once", "--events"]])
def test_a_file_without_a_valid_event_ends_replay_and_demo_at_once(run, path, command):
    path.write_text(NO_TYPE * 3)
    result = run(*command, str(path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert (
        "is taken for JSON lines, and nothing is sent, since all of its first 3 events would be rejected"
        in result.stderr
    )
    assert "3 event_type missing" in result.stderr
    assert not (path.parent / "raw_logs").exists()


@pytest.mark.parametrize("anyway", [[], ["--anyway"]])
def test_a_file_of_which_every_row_is_left_out_is_not_sent(run, path, anyway):
    path.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,B,x,6,2010-12-01 08:26:00,2.55,,United Kingdom\n1,C\n"
    )
    result = run("replay", str(path), "--no-kafka", *anyway)
    assert result.exit_code == 1
    assert (
        "is taken for UCI Online Retail, and has no event: all of its rows are left out, 1 no_customer, "
        "1 malformed_row (such as line 3: 2 columns instead of 8)"
    ) in result.stderr
    assert not (path.parent / "raw_logs").exists()


def test_events_that_are_too_old_are_rejected_and_have_a_day(path):
    path.write_text(GOOD)
    look = look_at_file(Settings(_env_file=None, max_event_age_days=2), EventFile(path))
    assert (look.events, look.rejected) == (0, {("timestamp", "too_old"): 1})
    assert str(look.first_day) == "2024-05-02"


def test_a_fault_of_the_file_that_comes_later_is_left_to_the_replay(settings, path):
    path.write_bytes(b'{"event_type": 1' + b"x" * 10)
    with pytest.raises(InputError):
        EventFile(path)
    path.write_bytes(b"[" + GOOD.encode() + b", oops]")
    assert look_at_file(settings, EventFile(path)).events == 1


def test_columns_are_named_on_the_command_line(run, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("when;who;what\n2024-05-02T10:00:00Z;u1;p1\n2024-05-03T10:00:00Z;u2;p2\n")
    refused = run("replay", str(path), "--no-kafka")
    assert refused.exit_code == 1
    assert "--map timestamp=when" in refused.stderr
    result = run(
        "replay", str(path), "--no-kafka",
        "--map", "timestamp=when", "--map", "user_id=who", "--map", "product_id=what", "--set", "event_type=view",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["format"] == "CSV, columns by --map"
    written = sorted((path.parent / "raw_logs").iterdir())
    assert [file.name for file in written] == ["clickstream_2024-05-02.jsonl", "clickstream_2024-05-03.jsonl"]
    assert json.loads(written[0].read_text()) == {
        "timestamp": "2024-05-02T10:00:00Z",
        "user_id": "u1",
        "product_id": "p1",
        "event_type": "view",
    }
    assert run("replay", str(path), "--map", "timestamp=time").stderr.startswith("--map timestamp=time")


def test_a_file_of_days_alone_is_sent_with_a_time_that_is_said(run, path):
    path.write_text("event_type,user_id,product_id,timestamp\npurchase,u,p,2024-05-02\n")
    refused = run("replay", str(path), "--no-kafka")
    assert (refused.exit_code, "--time-of-day 12:00" in refused.stderr) == (1, True)
    result = run("replay", str(path), "--no-kafka", "--time-of-day", "12:00")
    assert result.exit_code == 0, result.output
    (written,) = (path.parent / "raw_logs").iterdir()
    assert json.loads(written.read_text())["timestamp"] == "2024-05-02T12:00:00"


def test_times_that_are_numbers_go_into_the_daily_file_of_their_day(run, path):
    path.write_text("1,100,2520,pv,1511544070\n1,100,2520,cart,1511644070\n")
    assert run("replay", str(path), "--no-kafka").exit_code == 0
    written = sorted(file.name for file in (path.parent / "raw_logs").iterdir())
    assert written == ["clickstream_2017-11-24.jsonl", "clickstream_2017-11-25.jsonl"]
