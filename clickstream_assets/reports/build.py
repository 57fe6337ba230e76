"""Makes the reports of days from the lake's tables, and keeps those that compare with these days right."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CART_DAYS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    EVENTS,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.reports.document import (
    COMPARISONS,
    TOP_PRODUCTS,
    USERS_NAMED,
    DayRows,
    Report,
    make_report,
    without_time,
)
from clickstream_assets.stores.lake import Lake

LONGEST_COMPARISON = max(COMPARISONS.values())
# Of the attribution models the one that gives each order to one campaign, so that the orders are whole.
ATTRIBUTION_MODEL = "last_touch"
# A late purchase concerns the reports of all days after it; users and products of so many days are read at once.
DAYS_AT_ONCE = 31


def update_reports(lake: Lake, first: date, last: date, now: datetime) -> list[date]:
    """Make the reports of the days from `first` to `last`, and again those of other days that have become wrong.

    These are the later days that compare with them, and those whose carts or customers are no longer what the report
    was made from: a late purchase changes the customer segments of every day after it. A report whose content stays
    the same stays as it is, with the time at which it was made. A day without events gets a report too, which says
    so.

    Args:
        lake: where the tables are; `daily_report` is replaced in one commit.
        first: first UTC day.
        last: last UTC day.
        now: the current time, in UTC.

    Returns:
        The days whose reports are new or changed, in order.
    """
    reports = lake.read(DAILY_REPORT)
    kept = _kept(lake)
    asked = {first + timedelta(days=offset) for offset in range((last - first).days + 1)}
    compared = {day + longer for day in asked for longer in COMPARISONS.values()} & set(kept)
    eventless = _eventless_days(lake)
    hashes = _hashes(lake, asked | set(kept), eventless)
    days = sorted(asked | compared | {day for day, its in kept.items() if its != hashes[day]})
    before = {
        row["report_date"]: row for row in _rows(lake, between(reports, "report_date", days[0], days[-1]))
    }
    after = dict(before)
    changed = []
    for portion in _portions(days):
        for day, report in _made(lake, portion, eventless, now).items():
            row = {"report_date": day, "generated_at": now, "made_from": hashes[day]}
            there = before.get(day)
            if there and without_time(json.loads(there["report"])) == without_time(report):
                after[day] = {**there, "made_from": hashes[day]}
            else:
                after[day] = {**row, "report": json.dumps(report, ensure_ascii=False)}
                changed.append(day)
    if after != before:
        table = pa.Table.from_pylist([after[day] for day in sorted(after)], schema=DAILY_REPORT.arrow)
        rows = lake.engine.from_arrow(table)
        lake.replace(DAILY_REPORT, rows, days=(days[0], days[-1]))
        lake.engine.release(rows)
    return changed


def outdated_days(lake: Lake) -> list[date]:
    """The days, in order, whose reports are made from carts or customers that have changed since."""
    kept = _kept(lake)
    hashes = _hashes(lake, kept, _eventless_days(lake))
    return sorted(day for day, its in kept.items() if its != hashes[day])


def _kept(lake: Lake) -> dict[date, str | None]:
    """What the reports that there are were made from, by day."""
    rows = _rows(lake, lake.read(DAILY_REPORT, columns=("report_date", "made_from")))
    return {row["report_date"]: row["made_from"] for row in rows}


def _portions(days: Sequence[date]) -> Iterable[Sequence[date]]:
    """The days, which are in order, in portions that lie within DAYS_AT_ONCE."""
    start = 0
    for number, day in enumerate(days):
        if (day - days[start]).days >= DAYS_AT_ONCE:
            yield days[start:number]
            start = number
    yield days[start:]


def _eventless_days(lake: Lake) -> Callable[[date], bool]:
    """What tells whether a day, which is not before the first event of all, has no events."""
    days = lake.snapshot(EVENTS).rows_by("event_date").keys()
    first = min(days, default=date.max)
    return lambda day: day > first and day not in days


def _hashes(lake: Lake, days: Iterable[date], eventless: Callable[[date], bool]) -> dict[date, str]:
    """For each of the days a hash of what its report is made from besides the tables of the day.

    A day's customers are made from all days up to it, so its hash takes up that of the day before. What happened to
    carts is taken up by its counts, which another run may have made than the customers. Which of the days that it is
    compared with have no events changes with the first event of all.
    """
    made_from = {row["report_date"]: row for row in _rows(lake, lake.read(CUSTOMER_SEGMENT_DAYS))}
    carts = {row["report_date"]: row for row in _rows(lake, lake.read(CART_DAYS))}
    wanted = set(days)
    hashes: dict[date, str] = {}
    so_far = ""
    for day in sorted(wanted | made_from.keys()):
        if row := made_from.get(day):
            so_far = _hash(so_far, row["as_of"].timestamp(), row["fingerprint"])
        if day in wanted:
            compared = (eventless(day - before) for before in COMPARISONS.values())
            hashes[day] = _hash(so_far, *compared, *(carts.get(day) or {}).values())
    return hashes


def _hash(*parts: object) -> str:
    return sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def report_rows(lake: Lake, first: date, last: date) -> dict[date, Report]:
    """Read the reports of the days from `first` to `last`, where there are any."""
    rows = _rows(lake, between(lake.read(DAILY_REPORT), "report_date", first, last))
    return {row["report_date"]: json.loads(row["report"]) for row in rows}


def _made(
    lake: Lake, days: Iterable[date], eventless: Callable[[date], bool], now: datetime
) -> dict[date, Report]:
    wanted = sorted(days)
    first, last = wanted[0], wanted[-1]

    def of_days(table: Table, **more: Any) -> dict[date, list[dict[str, Any]]]:
        found = between(lake.read(table), "report_date", first, last)
        F, _ = functions_of(found)
        for column, most in more.items():
            found = found.where(F.col(column) <= most if isinstance(most, int) else F.col(column) == most)
        return _by_day(_rows(lake, found))

    start = first - LONGEST_COMPARISON
    before = (start + timedelta(days=number) for number in range((last - start).days + 1))
    summaries: dict[date, dict[str, Any] | None] = dict.fromkeys(filter(eventless, before))
    summaries |= {
        row["report_date"]: row
        for row in _rows(lake, between(lake.read(DAILY_SUMMARY), "report_date", start, last))
    }
    products = of_days(PRODUCT_PERFORMANCE, rank=TOP_PRODUCTS)
    categories = of_days(CATEGORY_CONVERSION)
    steps = of_days(FUNNEL, dimension="overall")
    users = _first_users(lake, first, last)
    carts = _carts(lake, first, last)
    customers = _customers(lake, first, last)
    campaigns = of_days(CAMPAIGN_ATTRIBUTION, model=ATTRIBUTION_MODEL)
    return {
        day: make_report(
            day,
            DayRows(
                summary=summaries.get(day),
                products=products.get(day, ()),
                categories=categories.get(day, ()),
                funnel=steps.get(day, ()),
                users=users.get(day, {}),
                carts=carts.get(day),
                customers=customers.get(day, {}),
                campaigns=campaigns.get(day, ()),
            ),
            summaries,
            now,
        )
        for day in wanted
    }


def _rows(lake: Lake, rows: DataFrame) -> list[dict[str, Any]]:
    return lake.engine.to_arrow(rows).to_pylist()


def _by_day(rows: Iterable[dict[str, Any]]) -> dict[date, list[dict[str, Any]]]:
    days = defaultdict(list)
    for row in rows:
        days[row["report_date"]].append(row)
    return days


def _first_users(lake: Lake, first: date, last: date) -> dict[date, dict[str, list[str]]]:
    segments = between(lake.read(USER_SEGMENTS), "report_date", first, last)
    F, Window = functions_of(segments)
    in_order = Window.partitionBy("report_date", "segment").orderBy("user_id")
    numbered = segments.select(
        "report_date", "segment", "user_id", F.row_number().over(in_order).alias("number")
    )
    days: dict[date, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(lake, numbered.where(F.col("number") <= USERS_NAMED)):
        days[row["report_date"]][row["segment"]].append(row["user_id"])
    return days


def _carts(lake: Lake, first: date, last: date) -> dict[date, dict[str, int]]:
    """What happened to carts on each day: how many were opened, abandoned and purchased."""
    rows = _rows(lake, between(lake.read(CART_DAYS), "report_date", first, last))
    return {row.pop("report_date"): row for row in rows}


def _customers(lake: Lake, first: date, last: date) -> dict[date, Counter[str]]:
    customers = between(lake.read(CUSTOMER_SEGMENTS), "report_date", first, last)
    F, _ = functions_of(customers)
    counts = (
        customers.where(F.col("rfm_segment").isNotNull())
        .groupBy("report_date", "rfm_segment")
        .agg(F.count(F.lit(1)).cast("long").alias("customers"))
    )
    days: dict[date, Counter[str]] = defaultdict(Counter)
    for row in _rows(lake, counts):
        days[row["report_date"]][row["rfm_segment"]] = row["customers"]
    return days
