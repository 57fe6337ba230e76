"""Checks that a day's tables say the same: sums that agree from table to table."""

import json
from typing import Any

import dagster as dg

from clickstream_assets.catalogue import (
    CATEGORY_CONVERSION,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    HOURLY_SUMMARY,
    PRODUCT_PERFORMANCE,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.scope import rows_of, run_days
from clickstream_assets.defs.sums import Sums, compared, sums, sums_of_sessions
from clickstream_assets.engine import functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_check(PRODUCT_PERFORMANCE, deps=["daily_summary"], is_blocking=True)
def products_add_up_to_the_day(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """Views, additions to carts, purchases and revenue of a day's products are those of the day."""
    names = ("views", "add_to_carts", "purchases", "revenue")
    days = run_days(context)
    of_day = sums(lake, DAILY_SUMMARY, {name: name for name in names}, days)
    columns = {name: "view_count" if name == "views" else name for name in names}
    return compared(of_day, sums(lake, PRODUCT_PERFORMANCE, columns, days))


@table_check(CATEGORY_CONVERSION, deps=["daily_summary"], is_blocking=True)
def categories_add_up_to_the_day(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """Views, additions to carts, purchases, revenue and refunds of a day's categories are those of the day."""
    columns = {name: name for name in ("views", "add_to_carts", "purchases", "revenue", "refunds")}
    expected, actual = (
        sums(lake, table, columns, run_days(context)) for table in (DAILY_SUMMARY, CATEGORY_CONVERSION)
    )
    return compared(expected, actual)


@table_check(DAILY_SUMMARY, deps=["user_segments"], is_blocking=True)
def users_are_those_of_the_segments(
    context: dg.AssetCheckExecutionContext, lake: Lake
) -> dg.AssetCheckResult:
    """A day's buyers, window shoppers, events and revenue are those of its user_segments."""
    days = run_days(context)
    expected = sums(lake, USER_SEGMENTS, {"events": "events", "revenue": "revenue"}, days)
    rows = rows_of(lake, USER_SEGMENTS, days)
    F, _ = functions_of(rows)
    users = rows.groupBy("report_date", "segment").agg(F.count(F.lit(1)).cast("long").alias("users"))
    for row in lake.engine.to_arrow(users).to_pylist():
        expected[row["report_date"]][row["segment"]] = row["users"]
    columns = {
        "events": "total_events",
        "revenue": "revenue",
        "buyer": "buyer_count",
        "window_shopper": "window_shopper_count",
    }
    return compared(expected, sums(lake, DAILY_SUMMARY, columns, days))


@table_check(DAILY_SUMMARY, deps=["sessions"])
def revenue_is_that_of_the_sessions(
    context: dg.AssetCheckExecutionContext, settings: Settings, lake: Lake
) -> dg.AssetCheckResult:
    """A day's revenue is that of the sessions of persons, of which a session over midnight has a part on each day.

    Not blocking: the sessions of the days before may wait for being brought up to date themselves.
    """
    days = run_days(context)
    of_sessions = sums_of_sessions(
        lake, lake.read(SHOPPER_EVENTS), days, ShopClock(settings.shop_time_zone), where="NOT is_bot"
    )
    expected = {day: {"revenue": figures["revenue"]} for day, figures in of_sessions.items()}
    of_days = sums(lake, DAILY_SUMMARY, {"revenue": "revenue"}, days)
    return compared(expected, of_days, severity=dg.AssetCheckSeverity.WARN)


@table_check(HOURLY_SUMMARY, deps=["daily_summary"], is_blocking=True)
def hours_add_up_to_the_day(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """The hours of a day have its events, sessions, orders and amounts in all."""
    days = run_days(context)
    columns = {
        name: name
        for name in ("total_events", "views", "purchases", "orders", "sessions", "revenue", "refunds")
    }
    return compared(*(sums(lake, table, columns, days) for table in (DAILY_SUMMARY, HOURLY_SUMMARY)))


@table_check(DAILY_SUMMARY)
def amounts_are_in_the_shops_currency(
    context: dg.AssetCheckExecutionContext, lake: Lake
) -> dg.AssetCheckResult:
    """All purchases and refunds of a day are in the shop's currency, or have an exchange rate to it.

    The others are kept apart, and are in no sum. Give EXCHANGE_RATES a rate of theirs, at or before these days.
    """
    rows = rows_of(lake, DAILY_SUMMARY, run_days(context))
    F, _ = functions_of(rows)
    apart = rows.where(F.col("unconverted") > 0).select("report_date", "unconverted", "currencies")
    found = sorted(lake.engine.to_arrow(apart).to_pylist(), key=lambda row: row["report_date"])
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": 0,
            "actual": sum(row["unconverted"] for row in found),
            "currencies": sorted({currency for row in found for currency in row["currencies"] or []}),
            "sample_days": [f"{row['report_date']}: {row['unconverted']}" for row in found[:SAMPLES]],
        },
    )


@table_check(FUNNEL, deps=["user_segments"])
def funnel_starts_with_all_viewers(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """The first step overall, and of either kind of segments together, is everybody who viewed.

    No step has more than the one before it.
    """
    days = run_days(context)
    viewers = rows_of(lake, USER_SEGMENTS, days)
    F, _ = functions_of(viewers)
    expected = {
        row["report_date"]: {
            "overall": row["users"],
            "segment": row["users"],
            "rfm": row["users"],
            "growing_steps": 0,
        }
        for row in lake.engine.to_arrow(
            viewers.where(F.col("views") > 0)
            .groupBy("report_date")
            .agg(F.count(F.lit(1)).cast("long").alias("users"))
        ).to_pylist()
    }
    actual: Sums = {}
    groups: dict[Any, dict[int, int]] = {}
    for row in lake.engine.to_arrow(rows_of(lake, FUNNEL, days)).to_pylist():
        of_day = actual.setdefault(
            row["report_date"], {"overall": 0, "segment": 0, "rfm": 0, "growing_steps": 0}
        )
        if row["step_number"] == 1 and row["dimension"] != "category":
            of_day[row["dimension"]] += row["users"]
        group = (row["report_date"], row["dimension"], row["value"])
        groups.setdefault(group, {})[row["step_number"]] = row["users"]
    for (day, *_), users in groups.items():
        if not users[1] >= users[2] >= users[3]:
            actual[day]["growing_steps"] += 1
    return compared(expected, actual)


@table_check(DAILY_REPORT, deps=["daily_summary"], is_blocking=True)
def reports_say_what_the_summary_says(
    context: dg.AssetCheckExecutionContext, lake: Lake
) -> dg.AssetCheckResult:
    """Events, buyers, window shoppers and revenue of each report are those of daily_summary."""
    days = run_days(context)
    actual: Sums = {}
    for row in lake.engine.to_arrow(rows_of(lake, DAILY_REPORT, days)).to_pylist():
        report = json.loads(row["report"])
        actual[row["report_date"]] = {
            "events": report["total_events"],
            "buyers": report["buyers"]["count"],
            "window_shoppers": report["window_shoppers"]["count"],
            "revenue": report["revenue"],
        }
    columns = {
        "events": "total_events",
        "buyers": "buyer_count",
        "window_shoppers": "window_shopper_count",
        "revenue": "revenue",
    }
    summaries = sums(lake, DAILY_SUMMARY, columns, days)
    expected = {day: {**figures, "revenue": float(figures["revenue"])} for day, figures in summaries.items()}
    return compared(expected, actual)
