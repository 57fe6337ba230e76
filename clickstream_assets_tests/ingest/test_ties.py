"""Ties of ids in the lake: brought up to date with each batch, whatever the order and whatever is killed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from clickstream_assets.analytics.identity import ties
from clickstream_assets.catalogue import (
    DUPLICATE_EVENTS,
    EVENTS,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    RAW_EVENTS,
    Table,
)
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest.classification import classify_records
from clickstream_assets.ingest.ties import update_ties
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.analytics.records import RULES as RULES_OF_RECORDS
from clickstream_assets_tests.analytics.records import VIEW, encode, event, event_table, raw_table
from clickstream_assets_tests.analytics.who import RULES, Event, random_histories, tied_user


def lake_of(path: Path, engine: Engine, *batches: list[Event]) -> Lake:
    """A lake with events in batches, and their ties."""
    lake = Lake(str(path), engine)
    for number, events in enumerate(batches, start=1):
        add(lake, number, events)
        update_ties(lake, RULES)
    return lake


def add(lake: Lake, batch: int, events: list[Event]) -> None:
    lake.append_batch(
        EVENTS, lake.engine.from_arrow(event_table({**e, "batch": batch} for e in events)), batch
    )


def rows(lake: Lake, table: Table) -> list[dict]:
    order = [(name, "ascending") for name in table.key]
    return conform(lake.engine.to_arrow(lake.read(table)), table).sort_by(order).to_pylist()


def ties_of(engine: Engine, events: list[Event]) -> list[dict]:
    found = conform(engine.to_arrow(ties(engine.from_arrow(event_table(events)))), IDENTITY_TIES)
    return found.sort_by([("event_id", "ascending")]).to_pylist()


def unreported(before: list[Event], after: list[Event], changes: list[dict]) -> list[Event]:
    """Events without a user id whose person is another one after than before, and in no reported time."""
    return [
        e
        for e in before
        if not e["user_id"] and tied_user(e, before, RULES) != tied_user(e, after, RULES)
        if not any(
            row["anonymous_id"] == e["anonymous_id"]
            and row["since"] <= e["event_time"]
            and (row["until"] is None or e["event_time"] < row["until"])
            for row in changes
        )
    ]


@pytest.mark.slow
def test_batches_in_any_order_end_in_the_ties_of_all_events(duckdb_engine: DuckDBEngine, tmp_path: Path):
    events = random_histories(1, 2)
    shuffled = random.Random(1).sample(events, len(events))
    batches = [shuffled[start : start + 40] for start in range(0, len(shuffled), 40)]
    lake = lake_of(tmp_path, duckdb_engine, *batches)
    assert rows(lake, IDENTITY_TIES) == ties_of(duckdb_engine, events)
    changes = rows(lake, IDENTITY_CHANGES)
    for number in range(len(batches)):
        known = [e for batch in batches[:number] for e in batch]
        assert not unreported(known, events, [row for row in changes if row["batch"] > number])
    # Once more finds nothing to do.
    version = lake.version(IDENTITY_TIES)
    assert update_ties(lake, RULES) == []
    assert lake.version(IDENTITY_TIES) == version


@pytest.mark.slow
def test_a_run_that_was_killed_between_changes_and_ties_is_made_up_for(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    events = random_histories(3)
    first, second, third = events[::3], events[1::3], events[2::3]
    lake = lake_of(tmp_path / "lake", duckdb_engine, first)
    shutil.copytree(tmp_path / "lake", tmp_path / "killed")
    add(lake, 2, second)
    update_ties(lake, RULES)
    expected = rows(lake, IDENTITY_CHANGES)
    killed = Lake(str(tmp_path / "killed"), duckdb_engine)
    add(killed, 2, second)
    shutil.rmtree(killed.path(IDENTITY_CHANGES))
    shutil.copytree(lake.path(IDENTITY_CHANGES), killed.path(IDENTITY_CHANGES))
    shutil.copytree(tmp_path / "killed", tmp_path / "later")

    update_ties(killed, RULES)
    assert rows(killed, IDENTITY_TIES) == ties_of(duckdb_engine, [*first, *second])
    assert rows(killed, IDENTITY_CHANGES) == expected

    # Or with a batch more by then.
    later = Lake(str(tmp_path / "later"), duckdb_engine)
    add(later, 3, third)
    update_ties(later, RULES)
    assert rows(later, IDENTITY_TIES) == ties_of(duckdb_engine, events)
    since_first = [row for row in rows(later, IDENTITY_CHANGES) if row["batch"] > 1]
    assert not unreported(first, events, since_first)


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_a_visitor_that_stays_logged_in_changes_no_day_but_those_of_its_events(
    engine: Engine, tmp_path: Path
):
    logged_in = [
        event("view", f"2024-05-0{number} 10:00", "ann", anonymous_id="x", event_id=f"e{number}")
        for number in (1, 2, 3)
    ]
    lake = lake_of(tmp_path, engine, *([one] for one in logged_in))
    assert [row["event_id"] for row in rows(lake, IDENTITY_TIES)] == ["e1", "e2", "e3"]
    # The login alone.
    assert [row["batch"] for row in rows(lake, IDENTITY_CHANGES)] == [1]
    # More of the same day says nothing, and rewrites nothing.
    files = lake.snapshot(IDENTITY_TIES).files["path"].to_pylist()
    add(lake, 4, [event("view", "2024-05-03 11:00", "ann", anonymous_id="x", event_id="e4")])
    assert update_ties(lake, RULES) == []
    assert lake.snapshot(IDENTITY_TIES).files["path"].to_pylist() == files
    assert lake.snapshot(IDENTITY_TIES).batch == 4


@pytest.mark.parametrize("anonymous_id", [None, "x"])
def test_events_without_both_ids_tie_nothing(
    duckdb_engine: DuckDBEngine, tmp_path: Path, anonymous_id: str | None
):
    user = None if anonymous_id else "ann"
    lake = lake_of(
        tmp_path, duckdb_engine, [event("view", "2024-05-01 10:00", user, anonymous_id=anonymous_id)]
    )
    assert rows(lake, IDENTITY_TIES) == rows(lake, IDENTITY_CHANGES) == []
    assert lake.snapshot(IDENTITY_TIES).batch == 1


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_a_repeated_order_line_ties_its_ids_though_it_is_no_event(engine: Engine, tmp_path: Path):
    """A guest orders, and logs in where the thank-you page is loaded again."""
    lake = Lake(str(tmp_path), engine)
    bought = VIEW | {
        "event_type": "purchase",
        "user_id": None,
        "anonymous_id": "guest",
        "order_id": "o",
        "price": 1,
    }
    again = bought | {"event_id": "again", "user_id": "anna", "timestamp": "2024-05-01T10:05:00Z"}
    for batch, record in enumerate((bought, again), start=1):
        lake.append_batch(RAW_EVENTS, engine.from_arrow(raw_table([encode(record)], batch, batch)), batch)
        classify_records(lake, RULES_OF_RECORDS)
        update_ties(lake, RULES)
    assert [(row["reason"], row["event_id"]) for row in rows(lake, DUPLICATE_EVENTS)] == [
        ("same_order_line", "again")
    ]
    (tie,) = rows(lake, IDENTITY_TIES)
    assert (tie["anonymous_id"], tie["user_id"], tie["event_id"]) == ("guest", "anna", "again")
    (change,) = rows(lake, IDENTITY_CHANGES)
    assert (change["user_before"], change["user_after"]) == (None, "anna")


@pytest.mark.slow
def test_ties_are_added_to_those_of_a_lake_of_an_earlier_version(duckdb_engine: DuckDBEngine, tmp_path: Path):
    """Such a lake has events in many batches, and no table of ties."""
    lake = Lake(str(tmp_path), duckdb_engine)
    events = random_histories(4)
    add(lake, 1, events[:60])
    add(lake, 2, events[60:])
    assert update_ties(lake, RULES) == sorted({row["tie_date"] for row in ties_of(duckdb_engine, events)})
    assert rows(lake, IDENTITY_TIES) == ties_of(duckdb_engine, events)
