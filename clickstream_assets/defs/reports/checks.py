"""Whether a day's tables say the same: each key once, and sums that agree from table to table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from clickstream_assets.analytics.schema import (
    CATEGORY_CONVERSION,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.defs.keys import keys_are_unique
from clickstream_assets.engine import functions_of
from clickstream_assets.lake import Lake
from clickstream_assets.resources.lake import LakeResource

SAMPLES = 5
Sums = dict[Any, dict[str, Any]]


product_performance_keys = keys_are_unique(PRODUCT_PERFORMANCE)
category_conversion_keys = keys_are_unique(CATEGORY_CONVERSION)
daily_summary_keys = keys_are_unique(DAILY_SUMMARY)
funnel_keys = keys_are_unique(FUNNEL)
daily_report_keys = keys_are_unique(DAILY_REPORT)


def _sums(lake: Lake, table: Table, columns: Mapping[str, str], where: str | None = None) -> Sums:
    """Per day the sums of some columns, under other names; `where` is an SQL condition."""
    (day,) = table.partition_by
    rows = lake.read(table)
    F, _ = functions_of(rows)
    if where:
        rows = rows.where(F.expr(where))
    types = {c.name: "decimal(18,4)" if str(c.type).startswith("decimal") else "long" for c in table.columns}
    sums = rows.groupBy(day).agg(
        *(F.sum(column).cast(types[column]).alias(f"sum_{name}") for name, column in columns.items())
    )
    return {
        row[day]: {name: row[f"sum_{name}"] for name in columns}
        for row in lake.engine.to_arrow(sums).to_pylist()
    }


def _compared(expected: Sums, actual: Sums, **more: Any) -> dg.AssetCheckResult:
    """Whether the days' figures are the same; a day that one of the two has not counts as zeros there."""
    names = sorted({name for figures in (*expected.values(), *actual.values()) for name in figures})

    def total(sums: Sums, day: Any, name: str) -> Any:
        return sums.get(day, {}).get(name, 0)

    wrong = [
        f"{day} {name}: {total(expected, day, name)} expected, {total(actual, day, name)} found"
        for day in sorted({*expected, *actual})
        for name in names
        if total(expected, day, name) != total(actual, day, name)
    ]
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={
            "expected": {name: float(sum(total(expected, day, name) for day in expected)) for name in names},
            "actual": {name: float(sum(total(actual, day, name) for day in actual)) for name in names},
            "sample_days": wrong[:SAMPLES],
        },
        **more,
    )


@dg.asset_check(asset="product_performance", additional_deps=["daily_summary"])
def products_add_up_to_the_day(lake: LakeResource) -> dg.AssetCheckResult:
    """Views, additions to carts, purchases and revenue of a day's products are those of the day."""
    names = ("views", "add_to_carts", "purchases", "revenue")
    of_day = _sums(lake.get(), DAILY_SUMMARY, {name: name for name in names})
    columns = {name: "view_count" if name == "views" else name for name in names}
    return _compared(of_day, _sums(lake.get(), PRODUCT_PERFORMANCE, columns))


@dg.asset_check(asset="category_conversion", additional_deps=["daily_summary"])
def categories_add_up_to_the_day(lake: LakeResource) -> dg.AssetCheckResult:
    """Views, additions to carts, purchases and revenue of a day's categories are those of the day."""
    columns = {name: name for name in ("views", "add_to_carts", "purchases", "revenue")}
    return _compared(
        _sums(lake.get(), DAILY_SUMMARY, columns), _sums(lake.get(), CATEGORY_CONVERSION, columns)
    )


@dg.asset_check(asset="daily_summary", additional_deps=["user_segments"])
def users_are_those_of_the_segments(lake: LakeResource) -> dg.AssetCheckResult:
    """A day's buyers, window shoppers, events and revenue are those of its user_segments."""
    the_lake = lake.get()
    expected = _sums(the_lake, USER_SEGMENTS, {"events": "events", "revenue": "revenue"})
    rows = the_lake.read(USER_SEGMENTS)
    F, _ = functions_of(rows)
    users = rows.groupBy("report_date", "segment").agg(F.count(F.lit(1)).cast("long").alias("users"))
    for row in the_lake.engine.to_arrow(users).to_pylist():
        expected[row["report_date"]][row["segment"]] = row["users"]
    columns = {
        "events": "total_events",
        "revenue": "revenue",
        "buyer": "buyer_count",
        "window_shopper": "window_shopper_count",
    }
    return _compared(expected, _sums(the_lake, DAILY_SUMMARY, columns))


@dg.asset_check(asset="daily_summary", additional_deps=["sessions"])
def revenue_is_that_of_the_sessions(lake: LakeResource) -> dg.AssetCheckResult:
    """The revenue of all days is that of all sessions of persons.

    Of a single day the two differ by the sessions that go on at midnight. Not blocking: while days are still being
    brought up to date one after another, the sums differ.
    """
    the_lake = lake.get()
    of_sessions = _sums(the_lake, SESSIONS, {"revenue": "revenue"}, where="NOT is_bot")
    of_days = _sums(the_lake, DAILY_SUMMARY, {"revenue": "revenue"})
    return _compared(
        {"all days": {"revenue": sum(figures["revenue"] for figures in of_sessions.values())}},
        {"all days": {"revenue": sum(figures["revenue"] for figures in of_days.values())}},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset="funnel", additional_deps=["user_segments"])
def funnel_starts_with_all_viewers(lake: LakeResource) -> dg.AssetCheckResult:
    """The first step overall, and of the segments together, is everybody who viewed; no step has more than the last."""
    the_lake = lake.get()
    viewers = the_lake.read(USER_SEGMENTS)
    F, _ = functions_of(viewers)
    expected = {
        row["report_date"]: {"overall": row["users"], "segment": row["users"], "growing_steps": 0}
        for row in the_lake.engine.to_arrow(
            viewers.where(F.col("views") > 0)
            .groupBy("report_date")
            .agg(F.count(F.lit(1)).cast("long").alias("users"))
        ).to_pylist()
    }
    actual: Sums = {}
    groups: dict[Any, dict[int, int]] = {}
    for row in the_lake.engine.to_arrow(the_lake.read(FUNNEL)).to_pylist():
        of_day = actual.setdefault(row["report_date"], {"overall": 0, "segment": 0, "growing_steps": 0})
        if row["step_number"] == 1 and row["dimension"] != "category":
            of_day[row["dimension"]] += row["users"]
        group = (row["report_date"], row["dimension"], row["value"])
        groups.setdefault(group, {})[row["step_number"]] = row["users"]
    for (day, *_), users in groups.items():
        if not users[1] >= users[2] >= users[3]:
            actual[day]["growing_steps"] += 1
    return _compared(expected, actual)


@dg.asset_check(asset="daily_report", additional_deps=["daily_summary"])
def reports_say_what_the_summary_says(lake: LakeResource) -> dg.AssetCheckResult:
    """Events, buyers, window shoppers and revenue of each report are those of daily_summary."""
    the_lake = lake.get()
    actual: Sums = {}
    for row in the_lake.engine.to_arrow(the_lake.read(DAILY_REPORT)).to_pylist():
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
    summaries = _sums(the_lake, DAILY_SUMMARY, columns)
    expected = {day: {**figures, "revenue": float(figures["revenue"])} for day, figures in summaries.items()}
    return _compared(expected, actual)
