"""Makes the reports of days from the rows of their tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeAlias

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CART_DAYS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_SUMMARY,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.reports.document import (
    COMPARISONS,
    TOP_PRODUCTS,
    USERS_NAMED,
    DayRows,
    Report,
    make_report,
)

# Of the attribution models the one that gives each order to one campaign, so that the orders are whole.
ATTRIBUTION_MODEL = "last_touch"

Read: TypeAlias = Callable[[Table, date, date], DataFrame]
"""Returns the rows of a table from a first to a last day."""
Rows: TypeAlias = Iterable[Mapping[str, Any]]


def make_reports(
    engine: Engine,
    read: Read,
    days: Collection[date],
    is_eventless: Callable[[date], bool],
    now: datetime,
    clock: ShopClock,
) -> dict[date, Report]:
    """Make the reports of some days; all rows of these days' tables that reports name are collected at once.

    Args:
        engine: where the tables are.
        read: reads them.
        days: the days.
        is_eventless: says of a day that is not before the first event of all whether it has no events.
        now: the current time, in UTC.
        clock: says when a day is over.
    """
    first, last = min(days), max(days)

    def rows_of(table: Table, **more: Any) -> dict[date, list[dict[str, Any]]]:
        found = read(table, first, last)
        F, _ = functions_of(found)
        for column, most in more.items():
            found = found.where(F.col(column) <= most if isinstance(most, int) else F.col(column) == most)
        by_day = defaultdict(list)
        for row in engine.to_arrow(found).to_pylist():
            by_day[row["report_date"]].append(row)
        return by_day

    start = first - max(COMPARISONS.values())
    compared = (start + timedelta(days=number) for number in range((last - start).days + 1))
    summaries: dict[date, dict[str, Any] | None] = dict.fromkeys(filter(is_eventless, compared))
    for row in engine.to_arrow(read(DAILY_SUMMARY, start, last)).to_pylist():
        summaries[row["report_date"]] = row
    products = rows_of(PRODUCT_PERFORMANCE, rank=TOP_PRODUCTS)
    categories = rows_of(CATEGORY_CONVERSION)
    steps = rows_of(FUNNEL, dimension="overall")
    users = _first_users(engine, read(USER_SEGMENTS, first, last))
    carts = {row.pop("report_date"): row for row in engine.to_arrow(read(CART_DAYS, first, last)).to_pylist()}
    customers = _customers(engine, read(CUSTOMER_SEGMENTS, first, last))
    campaigns = rows_of(CAMPAIGN_ATTRIBUTION, model=ATTRIBUTION_MODEL)
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
            clock,
        )
        for day in sorted(days)
    }


def input_hashes(
    days: Collection[date], customers: Rows, carts: Rows, is_eventless: Callable[[date], bool]
) -> dict[date, str]:
    """Hash, for each of the days, what its report is made from other than the tables of the day.

    A day's customers are made from all days up to it, so its hash takes up that of the day before. What happened to
    carts is taken up by its counts, which another run may have made than the customers. Which of the days that it is
    compared with have no events changes with the first event of all.

    Args:
        days: the days.
        customers: CUSTOMER_SEGMENT_DAYS rows, all of them.
        carts: CART_DAYS rows, at least those of the days.
        is_eventless: says of a day that is not before the first event of all whether it has no events.
    """
    customers_by_day = {row["report_date"]: row for row in customers}
    carts_by_day = {row["report_date"]: row for row in carts}
    hashes: dict[date, str] = {}
    so_far = ""
    for day in sorted({*days, *customers_by_day}):
        if row := customers_by_day.get(day):
            so_far = _hash(so_far, row["as_of"].timestamp(), row["fingerprint"])
        if day in days:
            compared = (is_eventless(day - before) for before in COMPARISONS.values())
            hashes[day] = _hash(so_far, *compared, *carts_by_day.get(day, {}).values())
    return hashes


def _hash(*parts: object) -> str:
    return sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def _first_users(engine: Engine, segments: DataFrame) -> dict[date, dict[str, list[str]]]:
    """Collect the first USERS_NAMED user ids of each segment and day, from USER_SEGMENTS rows."""
    F, Window = functions_of(segments)
    in_order = Window.partitionBy("report_date", "segment").orderBy("user_id")
    numbered = segments.select(
        "report_date", "segment", "user_id", F.row_number().over(in_order).alias("number")
    )
    days: dict[date, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in engine.to_arrow(numbered.where(F.col("number") <= USERS_NAMED)).to_pylist():
        days[row["report_date"]][row["segment"]].append(row["user_id"])
    return days


def _customers(engine: Engine, customers: DataFrame) -> dict[date, Counter[str]]:
    """Count each day's customers by their named segment, from CUSTOMER_SEGMENTS rows."""
    F, _ = functions_of(customers)
    counts = (
        customers.where(F.col("rfm_segment").isNotNull())
        .groupBy("report_date", "rfm_segment")
        .agg(F.count(F.lit(1)).cast("long").alias("customers"))
    )
    days: dict[date, Counter[str]] = defaultdict(Counter)
    for row in engine.to_arrow(counts).to_pylist():
        days[row["report_date"]][row["rfm_segment"]] = row["customers"]
    return days
