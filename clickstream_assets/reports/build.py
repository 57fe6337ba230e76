"""Makes the reports of days from the lake's tables, and keeps those that compare with these days right."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.schema import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.lake import Lake
from clickstream_assets.reports.document import (
    COMPARISONS,
    TOP_PRODUCTS,
    USERS_NAMED,
    DayRows,
    Report,
    make_report,
    without_time,
)

LONGEST_COMPARISON = max(COMPARISONS.values())
# Of the attribution models the one that gives each order to one campaign, so that the orders are whole.
ATTRIBUTION_MODEL = "last_touch"
CART_TIMES = {"opened": "opened_at", "abandoned": "abandoned_at", "purchased": "purchased_at"}


def update_reports(lake: Lake, first: date, last: date, now: datetime) -> list[date]:
    """Make the reports of the days from `first` to `last`, and again those of later days that compare with them.

    A report whose content stays the same stays as it is, with the time at which it was made. A day without events
    gets a report too, which says so. Carts and customer segments look back further than a week: of these a report
    says what was known when its day, or one that it compares with, was last brought up to date.

    Args:
        lake: where the tables are; `daily_report` is replaced in one commit.
        first: first UTC day.
        last: last UTC day.
        now: the current time, in UTC.

    Returns:
        The days whose reports are new or changed, in order.
    """
    reach = last + LONGEST_COMPARISON
    reports = lake.read(DAILY_REPORT)
    before = {row["report_date"]: row for row in _rows(lake, between(reports, "report_date", first, reach))}
    asked = {first + timedelta(days=offset) for offset in range((last - first).days + 1)}
    compared = {day + longer for day in asked for longer in COMPARISONS.values()} & set(before)
    days = asked | compared
    after = dict(before)
    for day, report in _made(lake, days, now).items():
        kept = before.get(day)
        if kept is None or without_time(json.loads(kept["report"])) != without_time(report):
            text = json.dumps(report, ensure_ascii=False)
            after[day] = {"report_date": day, "generated_at": now, "report": text}
    changed = sorted(day for day, row in after.items() if row is not before.get(day))
    if changed:
        table = pa.Table.from_pylist([after[day] for day in sorted(after)], schema=DAILY_REPORT.arrow)
        rows = lake.engine.from_arrow(table)
        lake.replace(DAILY_REPORT, rows, days=(first, reach))
        lake.engine.release(rows)
    return changed


def report_rows(lake: Lake, first: date, last: date) -> dict[date, Report]:
    """Read the reports of the days from `first` to `last`, where there are any."""
    rows = _rows(lake, between(lake.read(DAILY_REPORT), "report_date", first, last))
    return {row["report_date"]: json.loads(row["report"]) for row in rows}


def _made(lake: Lake, days: Iterable[date], now: datetime) -> dict[date, Report]:
    wanted = sorted(days)
    first, last = wanted[0], wanted[-1]

    def of_days(table: Table, **more: Any) -> dict[date, list[dict[str, Any]]]:
        found = between(lake.read(table), "report_date", first, last)
        F, _ = functions_of(found)
        for column, most in more.items():
            found = found.where(F.col(column) <= most if isinstance(most, int) else F.col(column) == most)
        return _by_day(_rows(lake, found))

    summaries = {
        row["report_date"]: row
        for row in _rows(
            lake, between(lake.read(DAILY_SUMMARY), "report_date", first - LONGEST_COMPARISON, last)
        )
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
    carts = lake.read(CARTS)
    F, _ = functions_of(carts)
    start, end = (datetime.combine(day, time.min, UTC) for day in (first, last + timedelta(days=1)))
    days: dict[date, dict[str, int]] = defaultdict(lambda: dict.fromkeys(CART_TIMES, 0))
    for name, column in CART_TIMES.items():
        moment = F.col(column)
        counts = (
            carts.where((moment >= F.lit(start)) & (moment < F.lit(end)))
            .withColumn("report_date", F.to_date(column))
            .groupBy("report_date")
            .agg(F.count(F.lit(1)).cast("long").alias("carts"))
        )
        for row in _rows(lake, counts):
            days[row["report_date"]][name] = row["carts"]
    return days


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
