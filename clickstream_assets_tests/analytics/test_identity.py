"""Persons, against the rule event by event."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

import pyarrow as pa
import pytest

from clickstream_assets.analytics.identity import (
    changes,
    differing_ids,
    identities,
    owners,
    ties,
    with_persons,
)
from clickstream_assets.catalogue import IDENTITIES, IDENTITY_CHANGES, IDENTITY_TIES, STRING, TIMESTAMP
from clickstream_assets.catalogue.who import person_of_user, person_of_visitor
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.stores.lake import conform
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.analytics.who import RULES, Event, person_of, random_histories, tied_user

EVENT_COLUMNS = pa.schema(
    [
        ("event_id", STRING),
        ("event_time", TIMESTAMP),
        ("event_date", pa.date32()),
        ("user_id", STRING),
        ("anonymous_id", STRING),
        ("session_id", STRING),
    ]
)


def happened(time: str, user: str | None = None, anonymous: str | None = None, session: str = "s") -> Event:
    moment = at(time)
    return {
        "event_id": f"{moment:%d%H%M}-{user}-{anonymous}",
        "event_time": moment,
        "event_date": moment.date(),
        "user_id": user,
        "anonymous_id": anonymous,
        "session_id": session,
    }


def frame(engine: Engine, events: Iterable[Event]) -> DataFrame:
    return engine.from_arrow(pa.Table.from_pylist(list(events), schema=EVENT_COLUMNS))


def ties_table(engine: Engine, events: Iterable[Event]) -> pa.Table:
    order = [(name, "ascending") for name in ("anonymous_id", "tied_at", "event_id")]
    return conform(engine.to_arrow(ties(frame(engine, events))), IDENTITY_TIES).sort_by(order)


def persons(engine: Engine, events: list[Event], known: pa.Table | None = None) -> dict[str, str]:
    """The person of each event, by its id."""
    tied = ties_table(engine, events) if known is None else known
    rows = frame(engine, events)
    found = engine.to_arrow(with_persons(rows, owners(rows, engine.from_arrow(tied), RULES)))
    assert found.column_names == EVENT_COLUMNS.names
    return dict(zip(found["event_id"].to_pylist(), found["user_id"].to_pylist(), strict=True))


def in_order(engine: Engine, events: list[Event]) -> list[str]:
    found = persons(engine, events)
    return [found[event["event_id"]] for event in events]


def test_a_visitor_is_the_user_that_logs_in_before_and_after_it(engine: Engine):
    events = [
        happened("2024-05-01 09:59", anonymous="x"),
        happened("2024-05-01 10:00", anonymous="x"),
        happened("2024-05-03 10:00", "ann", "x"),
        happened("2024-05-09 10:00", anonymous="x"),
        happened("2024-05-09 10:00", anonymous="y"),
        happened("2024-05-09 10:00", session="only"),
    ]
    # The first is longer than the lookback of two days before the login.
    assert in_order(engine, events) == [
        "anonymous:x", "ann", "ann", "ann", "anonymous:y", "session:only"
    ]  # fmt: skip


@pytest.mark.long_on_spark
def test_a_shared_device_is_whose_login_was_the_latest(engine: Engine):
    events = [
        happened("2024-05-01 08:00", anonymous="x"),
        happened("2024-05-01 09:00", "ann", "x"),
        happened("2024-05-01 10:00", anonymous="x"),
        happened("2024-05-01 11:00", "bob", "x"),
        happened("2024-05-01 11:00", anonymous="x"),
        happened("2024-05-01 12:00", "ann", "x"),
        happened("2024-05-01 13:00", anonymous="x"),
    ]
    assert in_order(engine, events) == ["ann", "ann", "ann", "bob", "bob", "ann", "ann"]


@pytest.mark.long_on_spark
def test_an_id_of_more_users_than_one_person_has_ties_nobody(engine: Engine):
    of_three = [happened(f"2024-05-01 0{number}:00", f"u{number}", "x") for number in range(1, 4)]
    visitor = happened("2024-05-02 10:00", anonymous="x")
    assert persons(engine, [*of_three, visitor])[visitor["event_id"]] == "u3"
    fourth = happened("2024-05-05 10:00", "u4", "x")
    found = persons(engine, [*of_three, fourth, visitor])
    assert [found[event["event_id"]] for event in (*of_three, visitor)] == ["u1", "u2", "u3", "anonymous:x"]


@pytest.mark.long_on_spark
def test_a_user_and_a_visitor_of_the_same_text_are_two_persons(engine: Engine):
    events = [
        happened("2024-05-01 10:00", "x"),
        happened("2024-05-01 10:01", anonymous="x"),
        happened("2024-05-01 10:02", "anonymous:x"),
        happened("2024-05-01 10:03", session="x"),
        happened("2024-05-01 10:04", "user:anonymous:x"),
        happened("2024-05-01 10:05", "session:x", "y"),
        happened("2024-05-01 10:06", anonymous="y"),
    ]
    expected = ["x", "anonymous:x", "user:anonymous:x", "session:x", "user:user:anonymous:x"]
    assert in_order(engine, events) == [*expected, "user:session:x", "user:session:x"]
    assert [person_of_user(user) for user in ("x", "anonymous:x", "user:anonymous:x")] == expected[::2]
    assert person_of_visitor("x") == "anonymous:x"


def test_random_histories_have_the_persons_of_the_rule(engine: Engine):
    events = random_histories(1, 2, 3, 4)
    expected = {event["event_id"]: person_of(event, events) for event in events}
    assert persons(engine, events) == expected
    # All kinds of persons are among them, and of those without a user id some are users all the same.
    kinds = Counter(person.partition(":")[0] for person in expected.values())
    assert {"anonymous", "session", "user", "a1"} <= kinds.keys()
    assert "a1" in {expected[event["event_id"]] for event in events if not event["user_id"]}


def test_ties_that_come_shuffled_late_or_twice_are_the_same(engine: Engine):
    events, source = random_histories(1, 2, 3), random.Random(1)
    expected = ties_table(engine, events)
    assert ties_table(engine, source.sample(events, len(events))).equals(expected)
    # One row says all that later ones of the same day and user say.
    assert 0 < expected.num_rows < sum(1 for event in events if event["user_id"] and event["anonymous_id"])


@pytest.mark.long_on_spark
@pytest.mark.slow
@pytest.mark.parametrize("late_ones", [50, 100])
def test_what_new_ties_change_is_what_the_rule_says(engine: Engine, late_ones: int):
    """Some events come late: of all anonymous events, those whose person differs lie in the reported times."""
    events = random_histories(1, 2, 3, 4)
    late = random.Random(late_ones).sample(events, late_ones)
    early = [event for event in events if event not in late]
    reported = changed(engine, early, events)
    found = {
        (event["event_id"], row["user_before"], row["user_after"])
        for event in events
        for row in reported
        if not event["user_id"] and event["anonymous_id"] == row["anonymous_id"]
        if row["since"] <= event["event_time"] and (not row["until"] or event["event_time"] < row["until"])
    }
    befores = {event["event_id"]: tied_user(event, early) for event in events}
    afters = {event["event_id"]: tied_user(event, events) for event in events}
    expected = {
        (event["event_id"], befores[event["event_id"]], afters[event["event_id"]])
        for event in events
        if befores[event["event_id"]] != afters[event["event_id"]]
    }
    assert found == expected
    assert len(expected) > 3


def changed(engine: Engine, before: list[Event], after: list[Event]) -> list[dict]:
    """IDENTITY_CHANGES rows of the ids whose ties differ."""
    tables = [engine.from_arrow(ties_table(engine, events)) for events in (before, after)]
    ids = engine.persist(differing_ids(*tables))
    earlier, later = (table.join(ids, on="anonymous_id", how="left_semi") for table in tables)
    found = engine.to_arrow(changes(earlier, later, RULES))
    rows = found.append_column("batch", pa.array([1] * found.num_rows, pa.int64()))
    order = [("anonymous_id", "ascending"), ("since", "ascending")]
    return conform(rows, IDENTITY_CHANGES).sort_by(order).to_pylist()


@pytest.mark.long_on_spark
def test_a_visitor_that_stays_logged_in_changes_nothing(engine: Engine):
    first, again = happened("2024-05-01 10:00", "ann", "x"), happened("2024-05-03 10:00", "ann", "x")
    assert changed(engine, [first], [first, again]) == []
    another = happened("2024-05-03 11:00", "bob", "x")
    (change,) = changed(engine, [first], [first, again, another])
    # What came before the other user's login stays as it is.
    assert (change["since"], change["until"]) == (another["event_time"], None)
    assert (change["user_before"], change["user_after"]) == ("ann", "bob")


@pytest.mark.long_on_spark
def test_a_first_tie_changes_the_days_before_it(engine: Engine):
    login = happened("2024-05-03 10:00", "ann", "x")
    (change,) = changed(engine, [], [login])
    assert change["since"] == login["event_time"] - timedelta(days=2)
    assert (change["until"], change["user_before"], change["user_after"]) == (None, None, "ann")


def test_each_id_has_the_users_that_it_was_tied_to_and_one_that_it_is_now(engine: Engine):
    events = [
        happened("2024-05-01 10:00", "ann", "x"),
        happened("2024-05-02 10:00", "bob", "x"),
        happened("2024-05-03 10:00", "ann", "x"),
        happened("2024-05-03 10:00", "user:ann", "y"),
        *(happened(f"2024-05-01 0{number}:00", f"u{number}", "crowd") for number in range(4)),
    ]
    rows = conform(
        engine.to_arrow(identities(engine.from_arrow(ties_table(engine, events)), RULES)), IDENTITIES
    )
    assert rows.sort_by([(name, "ascending") for name in IDENTITIES.key]).to_pylist() == [
        {"anonymous_id": "x", "user_id": "ann", "first_tied_at": at("2024-05-01 10:00"), "is_latest": True},
        {"anonymous_id": "x", "user_id": "bob", "first_tied_at": at("2024-05-02 10:00"), "is_latest": False},
        {"anonymous_id": "y", "user_id": "user:user:ann", "first_tied_at": at("2024-05-03 10:00"), "is_latest": True},
    ]  # fmt: skip
