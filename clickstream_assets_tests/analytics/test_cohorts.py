"""Retention, by the week of the users' first appearance."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from clickstream_assets.analytics.cohorts import cohort_retention, weeks_seen, with_cohorts
from clickstream_assets.catalogue import COHORT_RETENTION, USER_SEGMENTS
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics.days import table_of
from clickstream_assets_tests.analytics.records import day


def retention(engine: Engine, visits: list[tuple[str, date]]) -> list[tuple]:
    rest = dict.fromkeys(("events", "views", "add_to_carts", "purchases"), 1)
    rows = [
        {"report_date": when, "user_id": user, "segment": "buyer", "revenue": Decimal(0), **rest}
        for user, when in visits
    ]
    df = engine.from_arrow(pa.Table.from_pylist(rows, schema=USER_SEGMENTS.arrow))
    return [
        tuple(row.values())
        for row in table_of(engine, cohort_retention(with_cohorts(weeks_seen(df))), COHORT_RETENTION)
    ]


@pytest.mark.long_on_spark
def test_weeks_are_iso_weeks_also_over_new_year(engine: Engine):
    visits = [
        # Sunday and Monday; Monday 30 December 2024 is in the first week of 2025.
        ("a", day("2024-12-29")),
        ("a", day("2024-12-30")),
        ("b", day("2024-12-30")),
        ("b", day("2025-01-05")),
        ("c", day("2025-01-05")),
        ("b", day("2025-01-13")),
    ]
    assert retention(engine, visits) == [
        (day("2024-12-23"), 0, 1, 1, Decimal("100.00")),
        (day("2024-12-23"), 1, 1, 1, Decimal("100.00")),
        (day("2024-12-23"), 3, 1, 0, Decimal("0.00")),
        (day("2024-12-30"), 0, 2, 2, Decimal("100.00")),
        (day("2024-12-30"), 2, 2, 1, Decimal("50.00")),
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_retention_is_that_of_the_definition(engine: Engine, seed: int):
    source = random.Random(seed)
    visits = sorted(
        {
            (f"u{source.randrange(30)}", day("2024-01-01") + timedelta(days=source.randrange(80)))
            for _ in range(150)
        }
    )
    source.shuffle(visits)
    mondays: dict[str, set[date]] = defaultdict(set)
    for user, when in visits:
        mondays[user].add(when - timedelta(days=when.weekday()))
    weeks = {week for its in mondays.values() for week in its}
    expected = []
    for cohort in {min(its) for its in mondays.values()}:
        members = [its for its in mondays.values() if min(its) == cohort]
        for week in weeks:
            if week >= cohort:
                active = sum(week in its for its in members)
                rate = round(Decimal(100 * active) / len(members), 2)
                expected.append((cohort, (week - cohort).days // 7, len(members), active, rate))
    assert retention(engine, visits) == sorted(expected)
