"""Counts of records by hour, and the shares of the rules that they break."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS, RECORD_COUNTS, REJECTED_EVENTS, Table
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import Engine
from clickstream_assets.ingest.record_counts import (
    Share,
    left_out_shares,
    record_days,
    rejected_counts,
    rejected_shares,
    update_record_counts,
)
from clickstream_assets.ingest.rejected import rejected_samples
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at, event_table

TEN, ELEVEN = at("2024-05-01 10:00"), at("2024-05-01 11:00")
Rows = list[dict[str, Any]]


@pytest.fixture
def lake(engine: Engine, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), engine)


def came(lake: Lake, batch: int, *events: datetime) -> None:
    """An ingest batch's events, each at its time of arrival; `events` takes a batch last."""
    rows = event_table(
        {
            "user_id": "u",
            "event_time": time,
            "kafka_time": time,
            "batch": batch,
            "offset": 1000 * batch + number,
        }
        for number, time in enumerate(events)
    )
    lake.append_batch(EVENTS, lake.engine.from_arrow(rows), batch)


def rejected(lake: Lake, batch: int, *records: tuple[datetime, str, str | None], by: str = "ingest") -> None:
    rows = [
        {
            **{"topic": "events", "partition": 0, "offset": 500 + 1000 * batch + number, "batch": batch},
            **{"item": 1, "items": 1},
            **{"kafka_time": time, "rule": rule, "field": field, "rejected_value": f"value {number}"},
            "rejected_by": by,
        }
        for number, (time, rule, field) in enumerate(records)
    ]
    append(lake, REJECTED_EVENTS, rows, batch, by)


def append(lake: Lake, table: Table, rows: Rows, batch: int, by: str = "ingest") -> None:
    filled = [dict.fromkeys(table.column_names) | row for row in rows]
    data = lake.engine.from_arrow(pa.Table.from_pylist(filled, schema=table.arrow))
    app = None if by == "ingest" else by
    lake.append_batch(table, data, batch or 1, app=app)


def counted(lake: Lake) -> set[tuple[Any, ...]]:
    names = ("hour", "outcome", "rule", "field", "records")
    rows = lake.engine.to_arrow(lake.read(RECORD_COUNTS)).to_pylist()
    assert all(row["hour_date"] == row["hour"].astimezone(UTC).date() for row in rows)
    return {(row["hour"].astimezone(UTC).hour, *(row[name] for name in names[1:])) for row in rows}


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_each_record_is_counted_once_in_the_hour_in_which_it_came(lake: Lake):
    rejected(
        lake, 1, (TEN, "unknown", "event_type"), (TEN, "unknown", "event_type"), (ELEVEN, "not_json", None)
    )
    duplicate = {
        "event_id": "e",
        "event_date": TEN.date(),
        "payload_hash": "h",
        "reason": "same_event",
        "event_time": TEN,
        "topic": "events",
        "partition": 0,
    }
    append(
        lake,
        DUPLICATE_EVENTS,
        [duplicate | {"offset": 9, "item": 1, "items": 1, "batch": 1, "kafka_time": TEN}],
        1,
    )
    came(lake, 1, TEN, TEN + timedelta(minutes=59), ELEVEN)
    first = {
        (10, "event", "", "", 2),
        (10, "duplicate", "", "", 1),
        (10, "rejected", "unknown", "event_type", 2),
        (11, "event", "", "", 1),
        (11, "rejected", "not_json", "(record)", 1),
    }
    update_record_counts(lake)
    assert counted(lake) == first
    update_record_counts(lake)
    assert counted(lake) == first

    # A refused event is one of the events too.
    rejected(lake, 0, (TEN, "mapper_parsing_exception", "price"), by="elasticsearch")
    came(lake, 2)
    rejected(lake, 3, (TEN, "unknown", "event_type"))
    came(lake, 3, TEN)
    changed = {(10, "event", "", "", 3), (10, "rejected", "unknown", "event_type", 3)}
    expected = {row for row in first if row[:4] not in {its[:4] for its in changed}} | changed
    expected |= {(10, "refused", "mapper_parsing_exception", "price", 1)}
    update_record_counts(lake)
    update_record_counts(lake)
    assert counted(lake) == expected

    rows = {
        (row["hour"].hour, row["rule"], row["field"], row["rejected_by"]): (
            *(row["records"], row["received"], row["share"]),
        )
        for row in rejected_counts(lake).to_pylist()
    }
    assert rows == {
        (10, "unknown", "event_type", "ingest"): (3, 7, Decimal("42.86")),
        (10, "mapper_parsing_exception", "price", "elasticsearch"): (1, 7, Decimal("14.29")),
        (11, "not_json", "(record)", "ingest"): (1, 2, Decimal("50.00")),
    }


def test_samples_are_the_last_record_of_each_rule_and_field_without_its_bytes(lake: Lake):
    assert rejected_samples(lake, 10) == []
    rejected(lake, 1, (TEN, "unknown", "event_type"), (ELEVEN, "unknown", "event_type"))
    rejected(lake, 2, (TEN, "missing", "user_id"), (TEN, "missing", "product_id"))
    samples = rejected_samples(lake, 10)
    assert [(row["rule"], row["field"], row["offset"]) for row in samples] == [
        ("unknown", "event_type", 1501),
        ("missing", "product_id", 2501),
        ("missing", "user_id", 2500),
    ]
    assert all("value" not in row for row in samples)
    assert len(rejected_samples(lake, 2)) == 2


@pytest.mark.long_on_spark
def test_the_last_day_is_compared_with_the_week_before_it(lake: Lake):
    newest = at("2024-05-20 00:10")
    week = [newest - timedelta(hours=24 * day + 1) for day in range(1, 8)]
    too_old = newest - timedelta(days=8, hours=1)
    yesterday = newest - timedelta(hours=23)
    rejected(
        lake,
        1,
        *[(time, "missing", "user_id") for time in week],
        *[(too_old, "missing", "user_id")] * 50,
        *[(yesterday, "unknown", "event_type")] * 12,
        (newest, "missing", "user_id"),
    )
    came(lake, 1, *[too_old] * 100, *[time for time in week for _ in range(30)], *[newest] * 40)
    update_record_counts(lake)
    unknown, missing = rejected_shares(lake)
    assert unknown == Share("unknown", "ingest", 12, 53, 0, 217)
    assert unknown.is_unusual
    assert missing == Share("missing", "ingest", 1, 53, 7, 217)
    assert not missing.is_unusual


@pytest.mark.parametrize(
    ("rejected", "received", "rejected_before", "received_before", "is_unusual"),
    [
        # A rule that is new, with many records; with few; and in a shop where few are many.
        (100, 10_000, 0, 70_000, True),
        (9, 10_000, 0, 70_000, False),
        (30, 100, 0, 700, True),
        # As always, and a little more than always, of which there is no doubt.
        (100, 10_000, 700, 70_000, False),
        (15_000, 1_000_000, 70_000, 7_000_000, False),
        (20_000, 1_000_000, 70_000, 7_000_000, True),
        # Twice as often, and too few to tell.
        (12, 600, 42, 4_200, False),
        # Less.
        (0, 10_000, 700, 70_000, False),
        # Nothing to compare with: everything, a fifth, and a hundredth of what came is rejected.
        (1_000, 1_000, 0, 0, True),
        (200, 1_000, 0, 0, True),
        (10, 1_000, 0, 0, False),
        (5, 5, 0, 0, False),
        # Hardly anything to compare with: too little to be sure.
        (12, 20, 0, 3, False),
    ],
)
def test_a_share_is_unusual_where_it_is_hardly_chance_and_worth_a_look(
    rejected: int, received: int, rejected_before: int, received_before: int, is_unusual: bool
):
    share = Share("unknown", "ingest", rejected, received, rejected_before, received_before)
    assert share.is_unusual == is_unusual


def test_the_chance_is_that_of_the_conditional_test_of_two_rates():
    share = Share("unknown", "ingest", 7, 100, 5, 300)
    by_hand = sum(comb(12, n) * 0.25**n * 0.75 ** (12 - n) for n in range(7, 13))
    assert share.chance == pytest.approx(by_hand)
    assert Share("unknown", "ingest", 0, 100, 5, 300).chance == 1


def test_chance_alone_warns_in_none_of_many_days():
    random = np.random.default_rng(7)
    for usual in (0.0005, 0.005, 0.05):
        lately = random.binomial(20_000, usual, 5_000)
        before = random.binomial(140_000, usual, 5_000)
        shares = [
            Share("unknown", "ingest", int(now), 20_000, int(then), 140_000)
            for now, then in zip(lately, before, strict=True)
        ]
        assert not any(share.is_unusual for share in shares)


@pytest.mark.long_on_spark
def test_fields_that_were_left_out_are_counted_beside_the_events(lake: Lake):
    price = {"field": "price", "rule": "not_a_number", "value": "cheap"}
    consent = {"field": "consent", "rule": "wrong_type", "value": "{}"}
    event = {"user_id": "u", "event_time": TEN, "kafka_time": TEN}
    rows = event_table(
        [event, event | {"field_problems": [price]}, event | {"field_problems": [price, consent]}]
    )
    lake.append_batch(EVENTS, lake.engine.from_arrow(rows), 1)
    rejected(lake, 1, (TEN, "missing", "user_id"))
    update_record_counts(lake)
    counts = {
        (row["field"], row["rule"], row["rejected_by"]): (row["records"], row["received"])
        for row in rejected_counts(lake).to_pylist()
    }
    assert counts == {
        ("price", "not_a_number", "nobody"): (2, 4),
        ("consent", "wrong_type", "nobody"): (1, 4),
        ("user_id", "missing", "ingest"): (1, 4),
    }
    assert {share.name: share.rejected for share in left_out_shares(lake)} == {
        "price: not_a_number": 2,
        "consent: wrong_type": 1,
    }
    assert [share.name for share in rejected_shares(lake)] == ["missing"]


@pytest.mark.long_on_spark
def test_each_day_of_the_shop_has_what_became_of_its_records_and_events_of_an_earlier_day_are_late(
    lake: Lake,
):
    kolkata = ShopClock("Asia/Kolkata")
    # Midnight there is at 18:30 UTC: an event of its 1 May that came at 18:29 is in time, and at 18:30 late.
    first, second = at("2024-05-01 12:00"), at("2024-05-02 12:00")
    times = [
        ("2024-05-01 18:29", first),
        ("2024-05-01 18:30", first),
        ("2024-05-01 18:31", second),
        ("2024-05-02 18:45", second),
        ("2024-05-03 10:00", first),
    ]
    rows = event_table(
        {
            "user_id": "u",
            "event_time": happened,
            "kafka_time": at(time),
            "batch": 1,
            "offset": number,
        }
        for number, (time, happened) in enumerate(times)
    )
    lake.append_batch(EVENTS, lake.engine.from_arrow(rows), 1)
    rejected(
        lake, 1, (at("2024-05-01 18:10"), "missing", "user_id"), (at("2024-05-01 20:10"), "not_json", None)
    )
    refused = ((at("2024-05-01 20:10"), f"mapping: [price] of e{number}", "price") for number in (1, 2))
    rejected(lake, 0, *refused, by="elasticsearch")
    update_record_counts(lake, kolkata)
    update_record_counts(lake, kolkata)
    counts = {tuple(str(value) for value in row.values()) for row in record_days(lake, kolkata).to_pylist()}
    # An hour is of the day in which it begins: 18:00 UTC is still of 1 May, and its last half hour with it.
    assert counts == {
        ("2024-05-01", "event", "", "", "3"),
        ("2024-05-01", "late", "", "", "1"),
        ("2024-05-01", "rejected", "missing", "user_id", "1"),
        ("2024-05-02", "rejected", "not_json", "(record)", "1"),
        ("2024-05-02", "refused", "mapping", "price", "2"),
        ("2024-05-02", "event", "", "", "1"),
        ("2024-05-02", "late", "", "", "1"),
        ("2024-05-03", "event", "", "", "1"),
        ("2024-05-03", "late", "", "", "1"),
    }
    assert {row["received"] for row in rejected_counts(lake).to_pylist() if row["rule"] == "missing"} == {4}


@pytest.mark.long_on_spark
def test_days_are_published_whole_and_no_longer_than_ninety(lake: Lake):
    newest = at("2024-05-31 12:00")
    came(lake, 1, newest, newest - timedelta(days=89, hours=12), newest - timedelta(days=90))
    update_record_counts(lake)
    assert {str(row["arrival_date"]) for row in record_days(lake).to_pylist()} == {"2024-03-03", "2024-05-31"}
