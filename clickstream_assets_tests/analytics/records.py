"""Kafka records and events for tests, in a line each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa

from clickstream_assets.catalogue import EVENTS, RAW_EVENTS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.settings import Settings

RULES = ValidationRules.of(Settings(_env_file=None))
ARRIVED = datetime(2024, 5, 2, 12, tzinfo=UTC)
VIEW = {
    "event_type": "view",
    "user_id": "u1",
    "product_id": "p1",
    "timestamp": "2024-05-01T10:00:00Z",
}


def raw_table(values: Iterable[bytes | None], batch: int = 1, first_offset: int = 0) -> pa.Table:
    """Raw records of one Kafka partition, with offsets in order."""
    rows = [
        {
            "topic": "events",
            "partition": 0,
            "offset": first_offset + number,
            "batch": batch,
            "kafka_time": ARRIVED,
            "key": None,
            "value": value,
        }
        for number, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=RAW_EVENTS.arrow)


def encode(payload: Any) -> bytes:
    return msgspec.json.encode(payload)


def parse(engine: Engine, raw: pa.Table) -> DataFrame:
    return engine.persist(
        engine.map_arrow(engine.from_arrow(raw), partial(parse_batches, rules=RULES), PARSED)
    )


def event(kind: str, time: str, user: str = "u", **more: Any) -> dict[str, Any]:
    """An event for `event_table`."""
    return {"user_id": user, "event_time": at(time), "event_type": kind, **more}


def event_table(events: Iterable[dict[str, Any]], clock: ShopClock = UTC_CLOCK) -> pa.Table:
    """EVENTS rows from `user_id`, `event_time` and what else matters to a test, of the days of a clock."""
    rows = []
    for number, event in enumerate(events):
        row: dict[str, Any] = dict.fromkeys(EVENTS.column_names)
        row |= {
            "event_id": f"e{number:06d}",
            "event_type": "view",
            "product_id": "p1",
            "is_bot": False,
            "payload_hash": f"h{number}",
            "topic": "events",
            "partition": 0,
            "offset": number,
            "item": 1,
            "items": 1,
            "batch": 1,
            "kafka_time": ARRIVED,
        }
        row |= event
        row["event_date"] = clock.day_of(row["event_time"])
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=EVENTS.arrow)


def rows_of(engine: Engine, df: DataFrame, order: str | list[str]) -> list[dict[str, Any]]:
    """The rows as dicts, in an order, with times without a zone object of their own."""
    keys = [order] if isinstance(order, str) else order
    rows = engine.to_arrow(df).to_pylist()
    return sorted(
        ({name: _plain(value) for name, value in row.items()} for row in rows),
        key=lambda row: tuple(str(row[key]) for key in keys),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value


def at(text: str) -> datetime:
    """`2024-05-01 10:00` in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def day(text: str) -> date:
    return date.fromisoformat(text)


def money(text: str) -> Decimal:
    return Decimal(text).quantize(Decimal("0.0001"))


def days_of(events: pa.Table) -> tuple[date, date]:
    """The first and the last day of EVENTS rows."""
    days = events["event_date"].to_pylist()
    return min(days), max(days)
