"""The count itself: what is lost, doubled or left out is named, so that no test of a fault passes by mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Account, Part, Place, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.test_process import traffic
from clickstream_assets_tests.topics import new_topic, send

OF = (Part.TOPIC, Part.LAKE)


def test_one_event_that_is_lost_and_one_that_is_doubled_are_both_named(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    events = traffic(0, 5)
    send(settings, {0: [json.dumps(event).encode() for event in events]})
    ingestion = Ingestion.of(settings, duckdb_engine)
    ingestion.run()
    account = take_account(settings, events, OF)
    assert (account.lost, account.doubled) == ([], [])
    assert account.counts() == (
        "topic 5, raw_events 5, classified records 5, events 5, duplicate_events 0, conflicting_events 0, "
        "rejected_events 0, erased_records 0"
    )
    # Kafka never got the last.
    never = take_account(settings, [*events, *traffic(5, 1)], OF)
    assert never.lost == ["topic: e5", "events: e5"]
    rows = ingestion.lake.rows(EVENTS)
    ingestion.lake.delete(EVENTS, "event_id = 'e1'")
    ingestion.lake.append_rows(
        EVENTS, rows.filter([event == "e2" for event in rows["event_id"].to_pylist()]), 9
    )
    ingestion.lake.delete(RAW_EVENTS, '"offset" = 4')
    wrong = take_account(settings, events, OF)
    record = settings.first_topic
    assert wrong.lost == [
        f"raw_events: ('{record}', 0, 4)",
        f"classified records: (('{record}', 0, 1), 1)",
        "events: e1",
    ]
    assert wrong.doubled == [
        f"classified records: (('{record}', 0, 2), 1)",
        f"classified records: (('{record}', 0, 4), 1)",
        "events: e2",
    ]


def test_a_fault_that_leaves_something_out_or_loses_something_fails():
    fault = Fault("a")
    with pytest.raises(AssertionError, match="what a person saw"):
        fault.check()
    with pytest.raises(AssertionError, match="is not in: it runs"):
        fault.saw("it runs", "stopped")
    fault.saw("the streams stopped: no\nmore", "stopped: .*")
    with pytest.raises(AssertionError, match="until healthy"):
        fault.check()
    with fault.until_healthy():
        pass
    with pytest.raises(AssertionError, match="counts nothing"):
        fault.check()
    fault.keeps_no_records("it answers, and holds nothing")
    fault.check()
    for lost, doubled in ((["e1"], []), ([], ["e1"])):
        fault.settle(Account(2, [Place("events", 2, lost, doubled)]))
        with pytest.raises(AssertionError, match="1: events: e1"):
            fault.check()
    fault.settle(Account(2, [Place("events", 2)]))
    fault.check()
    assert fault.row() == {
        "what a person saw": "stopped: no",
        "until healthy": "0.0 s",
        "sent": "2",
        "lost": "0",
        "doubled": "0",
        "held": "events 2",
    }
