"""Repetitions by days: an id, and an order line, is one event's among those of EVENT_ID_DAYS around it."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
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


def event(event_id: str, day: int, price: float = 5.0, order: str | None = None, minute: int = 0) -> Record:
    record = {
        "event_id": event_id,
        "event_type": "purchase" if order else "view",
        "timestamp": (START + timedelta(days=day, minutes=minute)).isoformat(),
        "user_id": "u",
        "product_id": "p",
        "price": price,
    }
    return record | ({"order_id": order} if order else {})


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

        def near(others: list[Record], name: str, record: Record = record) -> Record | None:
            def date(one: Record) -> datetime:
                return datetime.fromisoformat(one["timestamp"])

            def is_near(one: Record) -> bool:
                return abs((date(one).date() - date(record).date()).days) <= days

            same = (one for one in others if one.get(name) == record.get(name) and is_near(one))
            return next(same, None)

        if known := near(ids, "event_id"):
            found.append("same_event" if known == record else "other_payload")
            continue
        ids.append(record)
        if record.get("order_id"):
            line = near([one for one in lines if one["price"] == record["price"]], "order_id")
            if line and line["timestamp"] != record["timestamp"]:
                found.append("same_order_line")
                continue
            if not line:
                lines.append(record)
        found.append("event")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_repetitions_are_those_of_a_loop_over_all_records(
    seed: int, duckdb_engine: DuckDBEngine, tmp_path: Path
):
    draw = random.Random(seed)
    days = draw.choice([1, 2, 3])
    records = [
        event(
            draw.choice("abcdefgh"),
            draw.randrange(14),
            draw.choice([5.0, 6.0]),
            draw.choice([None, "o-1", "o-2"]),
            draw.randrange(2),
        )
        for _ in range(120)
    ]
    batches = [records[start : start + 31] for start in range(0, len(records), 31)]
    lake = Lake(str(tmp_path), duckdb_engine)
    assert outcomes(lake, batches, days) == expected(records, days)


@pytest.mark.long_on_spark
def test_an_id_is_another_events_once_it_is_further_away(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    # In another batch, in the same, and one that is near the second alone.
    batches = [[event("a", 0), event("a", 0)], [event("a", 2, 7.0), event("a", 3), event("a", 5, 8.0)]]
    assert outcomes(lake, batches, 2) == ["event", "same_event", "other_payload", "event", "other_payload"]


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
