"""Repetitions by days: an id, and an order line of a person, is one event's among those of EVENT_ID_DAYS around it."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS, RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest.classification import classify_records, misclassified_records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

START = datetime(2024, 3, 1, 10, tzinfo=UTC)
Record = dict[str, Any]


def rules(days: int) -> ValidationRules:
    return ValidationRules.of(Settings(_env_file=None, event_id_days=days))


def event(
    event_id: str, day: int, price: float = 5.0, order: str | None = None, minute: int = 0, **ids: Any
) -> Record:
    record = {
        "event_id": event_id,
        "event_type": "purchase" if order else "view",
        "timestamp": (START + timedelta(days=day, minutes=minute)).isoformat(),
        "user_id": "u",
        "product_id": "p",
        "price": price,
        **ids,
    }
    return record | ({"order_id": order} if order else {})


def purchase(
    minute: int, user: str | None, visitor: str | None, session: str | None = None, order: str = "o"
) -> Record:
    """The line of an order, loaded in a minute of a day."""
    event_id = f"{order} at {minute} of {user}, {visitor}, {session}"
    one = event(event_id, 0, order=order, minute=minute)
    return one | {"user_id": user, "anonymous_id": visitor, "session_id": session}


def add(lake: Lake, batch: int, records: list[Record], first: int) -> None:
    arrived = datetime(2024, 4, 1, tzinfo=UTC)
    rows = [
        {
            "topic": "t",
            "partition": 0,
            "offset": first + number,
            "batch": batch,
            "kafka_time": arrived,
            "value": json.dumps(record).encode(),
        }
        for number, record in enumerate(records)
    ]
    lake.append_rows(RAW_EVENTS, _table(rows), batch)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RAW_EVENTS.arrow)


def outcomes(lake: Lake, batches: list[list[Record]], days: int) -> list[str]:
    """Ingest batches one after another; what each record has become."""
    first = 0
    for batch, records in enumerate(batches, start=1):
        add(lake, batch, records, first)
        classify_records(lake, rules(days))
        first += len(records)
    assert misclassified_records(lake, len(batches), first_batch=1) == []
    found = dict.fromkeys(range(first), "other_payload")
    for row in lake.engine.to_arrow(lake.read(EVENTS).select("offset")).to_pylist():
        found[row["offset"]] = "event"
    for row in lake.engine.to_arrow(lake.read(DUPLICATE_EVENTS).select("offset", "reason")).to_pylist():
        found[row["offset"]] = row["reason"]
    return [found[offset] for offset in range(first)]


def expected(records: list[Record], days: int) -> list[str]:
    """Go through all records in the order in which they came."""
    ids: list[Record] = []
    lines: list[Record] = []
    found = []
    for record in records:

        def near(others: list[Record], name: str, record: Record = record) -> list[Record]:
            def date(one: Record) -> datetime:
                return datetime.fromisoformat(one["timestamp"])

            def is_near(one: Record) -> bool:
                return abs((date(one).date() - date(record).date()).days) <= days

            return [one for one in others if one.get(name) == record.get(name) and is_near(one)]

        if known := near(ids, "event_id"):
            found.append("same_event" if known[0] == record else "other_payload")
            continue
        ids.append(record)
        if record.get("order_id"):
            same = [one for one in near(lines, "order_id") if one["price"] == record["price"]]
            if any(of_one_person(one, record) and one["timestamp"] != record["timestamp"] for one in same):
                found.append("same_order_line")
                continue
            lines.append(record)
        found.append("event")
    return found


def of_one_person(one: Record, other: Record) -> bool:
    def names(record: Record, *kinds: str) -> set[tuple[str, str]]:
        return {(kind, record[kind]) for kind in kinds if record[kind]}

    def who(record: Record) -> set[tuple[str, str]]:
        return names(record, "user_id", "anonymous_id") or names(record, "session_id")

    return bool(who(one) & who(other))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_repetitions_are_those_of_a_loop_over_all_records_wherever_batches_are_cut(
    seed: int, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    draw = random.Random(seed)
    days = draw.choice([1, 2, 3])
    records = [
        event(
            draw.choice("abcdefgh") + draw.choice(["", *"ijklmnopqrstuvwxyz"]),
            draw.randrange(14),
            draw.choice([5.0, 6.0]),
            draw.choice([None, "o-1", "o-2"]),
            draw.randrange(2),
            user_id=user,
            anonymous_id=draw.choice([None, "x", "v-1", "v-2"]),
            # With neither of the others, it is all that an event has.
            session_id=draw.choice([None, "x", "s-1"]) if user else draw.choice(["x", "s-1"]),
        )
        for user in draw.choices([None, "x", "u-1", "u-2"], k=110)
    ]
    records += draw.choices(records, k=15)
    draw.shuffle(records)
    cuts = [0, *sorted(draw.sample(range(1, 125), 3)), 125]
    lake = Lake(str(tmp_path), duckdb_engine)
    found = outcomes(lake, [records[start:end] for start, end in pairwise(cuts)], days)
    assert found == expected(records, days)
    assert set(found) == {"event", "same_event", "other_payload", "same_order_line"}


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_an_id_is_another_events_once_it_is_further_away(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    # In another batch, in the same, and one that is near the second alone.
    batches = [[event("a", 0), event("a", 0)], [event("a", 2, 7.0), event("a", 3), event("a", 5, 8.0)]]
    assert outcomes(lake, batches, 2) == ["event", "same_event", "other_payload", "event", "other_payload"]


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_an_order_line_is_another_orders_once_it_is_further_away(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    batches = [
        [event("a", 0, order="o"), event("b", 0, order="o"), event("c", 1, order="o")],
        [event("d", 2, order="o"), event("e", 3, order="o"), event("c", 1, order="o")],
    ]
    # Of one moment are two units; the id of a repeated line is taken.
    assert outcomes(lake, batches, 2) == [
        *("event", "event", "same_order_line"),
        *("same_order_line", "event", "same_event"),
    ]


AGAIN, ANOTHER = "same_order_line", "event"
Ids = tuple[str | None, str | None, str | None]
"""A user, a visitor and a session."""

PAGES: dict[str, tuple[list[Ids], str]] = {
    "loaded again after the login": ([(None, "phone", None), ("u", "phone", None)], AGAIN),
    "loaded again after the logout": ([("u", "phone", None), (None, "phone", None)], AGAIN),
    "on another device": ([("u", "phone", None), ("u", "laptop", None)], AGAIN),
    "from the shop's server": ([("u", "phone", None), ("u", None, None)], AGAIN),
    "as another user of the device": ([("u", "phone", None), ("u2", "phone", None)], AGAIN),
    "another person's order of that id": ([("u", "phone", None), ("u2", "laptop", None)], ANOTHER),
    "a visitor called as the user": ([("u", None, None), (None, "u", None)], ANOTHER),
    "in a session without another id": ([(None, None, "s"), (None, None, "s")], AGAIN),
    "a session of a user": ([(None, None, "s"), ("u", None, "s")], ANOTHER),
    "a session of a visitor": ([(None, None, "s"), (None, "phone", "s")], ANOTHER),
    # The second is no event, so it does not lead from the first to the third.
    "another id of a repetition": (
        [(None, "phone", None), ("u", "phone", None), ("u", "laptop", None)],
        ANOTHER,
    ),
    "either of two persons' orders": (
        [("u", "phone", None), ("u2", "laptop", None), ("u", "laptop", None)],
        AGAIN,
    ),
}
"""Persons by whom an order's page was loaded, a minute apart, and what the last of these purchases is."""


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False], ids=["a batch", "a batch for each"])
def test_an_order_line_is_the_same_persons_by_any_of_its_ids(
    duckdb_engine: DuckDBEngine, tmp_path: Path, at_once: bool
):
    loads = [
        (minute, page, purchase(minute, *ids[minute], order=page))
        for minute in range(3)
        for page, (ids, _) in PAGES.items()
        if minute < len(ids)
    ]
    batches = [loads] if at_once else [list(batch) for _, batch in groupby(loads, itemgetter(0))]
    records = [[record for *_, record in batch] for batch in batches]
    found = outcomes(Lake(str(tmp_path), duckdb_engine), records, 2)
    # The last of each page stays.
    last = {page: outcome for (_, page, _), outcome in zip(loads, found, strict=True)}
    assert last == {page: outcome for page, (_, outcome) in PAGES.items()}


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_units_of_a_moment_stay_units_where_one_has_the_user_too(engine: Engine, tmp_path: Path):
    units = [purchase(0, None, "phone"), purchase(0, "u", "phone")]
    # By either id they are the order's.
    again = [purchase(5, "u", "laptop"), purchase(6, None, "phone"), purchase(7, "u2", "laptop")]
    outcome = outcomes(Lake(str(tmp_path), engine), [units, again], 2)
    assert outcome == [ANOTHER, ANOTHER, AGAIN, AGAIN, ANOTHER]


@pytest.mark.slow
def test_only_files_of_days_around_are_read(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    outcomes(lake, [[event(f"e-{day}", day) for day in range(14)]], 2)
    far = [path for day in (0, 1, 12, 13) for path in _files_of(tmp_path, day)]
    assert far
    for path in far:
        path.write_bytes(b"not read")
    add(lake, 2, [event("e-6", 6), event("e-7", 7, 9.0)], 14)
    assert classify_records(lake, rules(2)) == {"same_event": 1, "other_payload": 1}


def _files_of(lake: Path, day: int) -> list[Path]:
    date = (START + timedelta(days=day)).date()
    return list((lake / EVENTS.name / f"event_date={date}").glob("*.parquet"))
