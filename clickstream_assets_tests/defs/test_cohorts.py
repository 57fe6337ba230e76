"""Users by week, kept right by the weeks that change: the same as of all days at once."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.cohorts import week_of
from clickstream_assets.catalogue import COHORT_INPUTS, USER_SEGMENTS, USER_WEEKS
from clickstream_assets.defs.segments import cohorts
from clickstream_assets.defs.segments.cohorts import update_user_weeks
from clickstream_assets.engine import Engine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import day

MONDAY = day("2024-04-29")


def write(lake: Lake, when: date, users: set[str]) -> None:
    """Replace a day of `user_segments`."""
    rest = dict.fromkeys(("events", "views", "add_to_carts", "purchases"), 1)
    rows = [
        {"report_date": when, "user_id": user, "segment": "buyer", "revenue": Decimal(0), **rest}
        for user in users
    ]
    df = lake.engine.from_arrow(pa.Table.from_pylist(rows, schema=USER_SEGMENTS.arrow))
    lake.replace(USER_SEGMENTS, df, days=(when, when))


def found(lake: Lake) -> set[tuple[Any, ...]]:
    rows = [tuple(row.values()) for row in lake.engine.to_arrow(lake.read(USER_WEEKS)).to_pylist()]
    assert len(rows) == len(set(rows))
    return set(rows)


def defined(visits: dict[date, set[str]]) -> set[tuple[Any, ...]]:
    weeks: dict[str, set[date]] = defaultdict(set)
    for when, users in visits.items():
        for user in users:
            weeks[user].add(week_of(when))
    return {(week, user, min(its)) for user, its in weeks.items() for week in its}


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_whoever_comes_or_goes_has_another_first_week_in_all_later_ones(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    update_user_weeks(lake)
    assert found(lake) == set()
    visits = {MONDAY + timedelta(days=n): {"a", f"u{n % 3}"} for n in (0, 9, 10, 15)}
    for when, users in visits.items():
        write(lake, when, users)
    update_user_weeks(lake)
    assert found(lake) == defined(visits)
    # A late day before all others, and a day that loses somebody, as when an id turns out to be another's.
    visits |= {MONDAY - timedelta(days=1): {"u1", "v"}, MONDAY: {"u0"}}
    for when in (MONDAY - timedelta(days=1), MONDAY):
        write(lake, when, visits[when])
    update_user_weeks(lake)
    assert found(lake) == defined(visits)
    version = lake.version(USER_WEEKS)
    update_user_weeks(lake)
    assert lake.version(USER_WEEKS) == version
    # A table that is lost alone.
    shutil.rmtree(lake.path(USER_WEEKS))
    update_user_weeks(lake)
    assert found(lake) == defined(visits)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
def test_in_whatever_order_days_change_the_weeks_are_those_of_all(
    duckdb_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
):
    monkeypatch.setattr(cohorts, "ROWS_AT_ONCE", 10)
    lake, source = Lake(str(tmp_path), duckdb_engine), random.Random(seed)
    visits: dict[date, set[str]] = {}
    for _ in range(8):
        for _ in range(source.randrange(1, 6)):
            when = MONDAY + timedelta(days=source.randrange(40))
            visits[when] = {f"u{source.randrange(12)}" for _ in range(source.randrange(6))}
            write(lake, when, visits[when])
        if source.random() < 0.3:
            # A run that was killed before it kept what it had made its rows from.
            made = lake.engine.to_arrow(lake.read(COHORT_INPUTS))
            update_user_weeks(lake)
            lake.replace(COHORT_INPUTS, lake.engine.from_arrow(made))
        update_user_weeks(lake)
        assert found(lake) == defined(visits)
