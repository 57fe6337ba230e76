"""The shop's days, against the clocks of a wall: quarter of an hour by quarter of an hour."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import DAY, EPOCH, MICROSECOND
from clickstream_assets.engine import Engine, functions_of

QUARTER = timedelta(minutes=15)
# Years in which a zone's clocks change, if they ever do: by an hour, by half an hour, at midnight, over a whole day.
YEARS = [
    ("UTC", 2024, {24}),
    ("Europe/Berlin", 2024, {23, 24, 25}),
    ("America/New_York", 2024, {23, 24, 25}),
    ("Australia/Lord_Howe", 2024, {23.5, 24, 24.5}),
    ("America/Sao_Paulo", 2018, {23, 24, 25}),
    ("Asia/Kolkata", 2024, {24}),
    ("Pacific/Apia", 2011, {0, 23, 24, 25}),
]


def quarters(year: int) -> list[datetime]:
    start = datetime(year, 1, 1, tzinfo=UTC)
    return [start + number * QUARTER for number in range(366 * 96)]


@pytest.mark.parametrize(("zone", "year", "lengths"), YEARS)
def test_a_moment_is_of_the_day_that_the_clocks_of_the_zone_show(zone: str, year: int, lengths: set[float]):
    clock, wall = ShopClock(zone), ZoneInfo(zone)
    first: dict[date, datetime] = {}
    for moment in quarters(year):
        day = moment.astimezone(wall).date()
        assert clock.day_of(moment) == day
        first.setdefault(day, moment)
    shown = sorted(first)[1:]
    assert [clock.begin(day) for day in shown] == [first[day] for day in shown]
    days = [date(year, 1, 2) + timedelta(days=number) for number in range(363)]
    ends = [clock.begin(day + timedelta(days=1)) for day in days]
    assert {
        (end - clock.begin(day)) / timedelta(hours=1) for day, end in zip(days, ends, strict=True)
    } == lengths


def test_clocks_that_are_put_back_over_midnight_do_not_bring_back_the_day_before():
    # A minute after midnight on 7 November 2010 it was 23:01 again in St John's.
    clock = ShopClock("America/St_Johns")
    midnight = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)
    shown = [
        (midnight + timedelta(minutes=n)).astimezone(ZoneInfo(clock.zone)).date().day for n in (-1, 0, 1, 61)
    ]
    assert shown == [6, 7, 6, 7]
    assert [clock.day_of(midnight + timedelta(minutes=n)).day for n in (-1, 0, 1, 61)] == [6, 7, 7, 7]
    assert clock.begin(date(2010, 11, 7)) == midnight


def test_the_days_of_utc_are_those_of_24_hours_since_1970():
    for moment in (-1, 0, DAY - 1, DAY, 19_844 * DAY):
        assert UTC_CLOCK.day_number(moment) == moment // DAY == ShopClock("Etc/UTC").day_number(moment)
    assert UTC_CLOCK.begin(date(2024, 5, 1)) == datetime(2024, 5, 1, tzinfo=UTC)


def test_both_engines_say_when_days_begin(engine: Engine):
    days = [date(2010, 12, 25) + timedelta(days=number) for number in range(14 * 366)]
    df = engine.from_arrow(pa.table({"day": pa.array(days, pa.date32())}))
    F, _ = functions_of(df)
    clocks = {f"zone{number}": ShopClock(zone) for number, (zone, _, _) in enumerate(YEARS)}
    columns = {name: clock.begin_column(F, F.col("day"), days[0], days[-1]) for name, clock in clocks.items()}
    rows = engine.to_arrow(df.select("day", *(column.alias(name) for name, column in columns.items())))
    wrong: Counter[str] = Counter()
    for row in rows.to_pylist():
        for name, clock in clocks.items():
            wrong[clock.zone] += EPOCH + row[name] * MICROSECOND != clock.begin(row["day"])
    assert rows.num_rows == len(days)
    assert not +wrong
