"""Reports of simulated days, from tables in a lake, against plain loops over the lines."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.funnel import funnel
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.products import category_conversion, product_performance
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.summary import daily_summary
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
from clickstream_assets.defs.reports.update import report_rows, update_reports
from clickstream_assets.engine import Engine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics import by_hand
from clickstream_assets_tests.analytics.days import FIRST, LAST, load, simulated_lines
from clickstream_assets_tests.analytics.records import at, event_table, money

NOW = datetime(2024, 5, 4, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def from_rows(lake: Lake, table: Table, rows: list[dict[str, Any]]) -> None:
    """Replace a table."""
    lake.replace(table, lake.engine.from_arrow(pa.Table.from_pylist(rows, schema=table.arrow)))


def customer(day: date, user: str, segment: str | None) -> dict[str, Any]:
    return {
        **dict.fromkeys(CUSTOMER_SEGMENTS.column_names),
        "report_date": day,
        "user_id": user,
        "rfm_segment": segment,
        "frequency": 1,
        "monetary": money("1"),
        "refunds": money("0"),
        "net_monetary": money("1"),
        "abandoned_carts": 0,
        "abandoned_value": money("0"),
    }


def made_from(*fingerprints: str) -> list[dict[str, Any]]:
    """CUSTOMER_SEGMENT_DAYS rows, from FIRST on."""
    return [
        {
            "report_date": FIRST + timedelta(days=number),
            "as_of": at("2024-05-02") + timedelta(days=number),
            "events": 1,
            "fingerprint": fingerprint,
        }
        for number, fingerprint in enumerate(fingerprints)
    ]


def write_tables(lake: Lake, lines: list[bytes]) -> None:
    """The tables that a report is made of."""
    engine = lake.engine
    events, visits = load(engine, lines)
    lake.append_batch(EVENTS, events, 1)
    persons = shopper_events(events, visits, FIRST, LAST)
    segments = user_segments(persons)
    days = (FIRST, LAST)
    lake.replace(USER_SEGMENTS, segments, days)
    lake.replace(PRODUCT_PERFORMANCE, product_performance(persons), days)
    lake.replace(CATEGORY_CONVERSION, category_conversion(persons), days)
    lake.replace(DAILY_SUMMARY, daily_summary(persons, segments, events, visits, *days), days)
    nobody = lake.engine.from_arrow(CUSTOMER_SEGMENTS.arrow.empty_table())
    lake.replace(FUNNEL, funnel(persons, nobody, *days, HOUR), days)
    carts = [
        {"report_date": day, "opened": 1, "abandoned": sold, "purchased": sold}
        for day, sold in ((FIRST, 0), (FIRST + timedelta(days=1), 1), (LAST, 0))
    ]
    from_rows(lake, CART_DAYS, carts)
    customers = (("a", "champions"), ("b", "champions"), ("c", "lost"), ("d", None))
    from_rows(lake, CUSTOMER_SEGMENTS, [customer(LAST, *one) for one in customers])
    from_rows(lake, CUSTOMER_SEGMENT_DAYS, made_from("x", "y", "z"))
    campaigns = [
        {
            "report_date": FIRST,
            "model": model,
            "campaign": name,
            "orders": money("2"),
            "revenue": money(revenue),
        }
        for model, name, revenue in (
            ("last_touch", "sale", "5.50"),
            ("last_touch", "(direct)", "7"),
            ("linear", "sale", "99"),
        )
    ]
    from_rows(lake, CAMPAIGN_ATTRIBUTION, campaigns)


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_reports_say_what_plain_loops_find_and_stay_as_long_as_that_is_so(engine: Engine, tmp_path: Path):
    lines = simulated_lines(seed=3)
    read = by_hand.read(lines)
    lake = Lake(str(tmp_path / "lake"), engine)
    write_tables(lake, lines)
    days = [FIRST, FIRST + timedelta(days=1), LAST]
    # A day after the others, which has no events.
    assert update_reports(lake, [*days, LAST + timedelta(days=1)], NOW) == [*days, LAST + timedelta(days=1)]
    reports = report_rows(lake, FIRST, LAST + timedelta(days=1))

    for day in days:
        report = reports[day]
        lines_of_day = [line for line in read if line.day == day]
        buyers = {line.user for line in lines_of_day if line.kind == "purchase"}
        others = {line.user for line in lines_of_day} - buyers
        assert report["date"] == day.isoformat()
        assert report["total_events"] == len(lines_of_day)
        assert report["buyers"] == {"count": len(buyers), "user_ids": sorted(buyers)[:10]}
        assert report["window_shoppers"] == {"count": len(others), "user_ids": sorted(others)[:10]}
        assert report["top_5_viewed_products"] == [
            {"product_id": row["product_id"], "views": row["view_count"]}
            for row in by_hand.products(read, day)[:5]
        ]
        categories = by_hand.categories(read, day)
        categories.sort(key=lambda row: (-row["conversion_rate"], row["category"]))
        assert list(report["conversion_rates_by_category"].items()) == [
            (
                row["category"],
                {
                    "views": row["views"],
                    "purchases": row["purchases"],
                    "conversion_rate": float(row["conversion_rate"]),
                },
            )
            for row in categories
        ]
        reached = by_hand.funnel(read, day, HOUR, {})["overall", "all"]
        assert tuple(step["users"] for step in report["funnel"]) == reached
    assert [reports[day]["carts"] for day in days] == [
        {"opened": 1, "abandoned": 0, "purchased": 0},
        {"opened": 1, "abandoned": 1, "purchased": 1},
        {"opened": 1, "abandoned": 0, "purchased": 0},
    ]
    assert [reports[day]["customer_segments"] for day in days] == [None, None, {"champions": 2, "lost": 1}]
    assert [reports[day]["campaigns"] for day in days] == [
        [
            {"campaign": "(direct)", "orders": 2.0, "revenue": 7.0},
            {"campaign": "sale", "orders": 2.0, "revenue": 5.5},
        ],
        None,
        None,
    ]
    revenues = {day: sum(float(line.paid) for line in read if line.day == day) for day in days}
    assert reports[LAST]["comparison"]["day_before"]["revenue"]["before"] == round(revenues[days[1]], 4)
    empty = reports[LAST + timedelta(days=1)]
    assert (empty["total_events"], empty["comparison"]["day_before"]["total_events"]["change_percent"]) == (
        0,
        -100.0,
    )

    version = lake.snapshot(DAILY_REPORT).version
    assert update_reports(lake, days, NOW + HOUR) == []
    assert lake.snapshot(DAILY_REPORT).version == version


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_what_changes_customers_or_carts_makes_the_reports_of_all_later_days_again(
    engine: Engine, tmp_path: Path
):
    lake = Lake(str(tmp_path / "lake"), engine)
    days = [FIRST + timedelta(days=number) for number in range(40)]
    fingerprints = [f"of {day}" for day in days]
    from_rows(lake, CUSTOMER_SEGMENT_DAYS, made_from(*fingerprints))
    from_rows(lake, CUSTOMER_SEGMENTS, [customer(day, "ann", "champions") for day in days])
    # Before the first event of all there is nothing to report.
    assert update_reports(lake, days, NOW) == []
    first = event_table([{"user_id": "ann", "event_time": datetime.combine(FIRST, time(10), UTC)}])
    lake.append_batch(EVENTS, engine.from_arrow(first), 1)
    assert update_reports(lake, [FIRST - timedelta(days=1)], NOW) == []
    # The reports of two days were never asked for, and are not made.
    assert update_reports(lake, days[:20], NOW) == days[:20]
    assert update_reports(lake, days[22:], NOW) == days[22:]

    fingerprints[3] = "one more purchase"
    from_rows(lake, CUSTOMER_SEGMENT_DAYS, made_from(*fingerprints))
    bought = [customer(day, "bob", "lost") for day in days[3:] if day != days[30]]
    from_rows(lake, CUSTOMER_SEGMENTS, [*(customer(day, "ann", "champions") for day in days), *bought])
    from_rows(lake, CART_DAYS, [{"report_date": days[38], "opened": 0, "abandoned": 4, "purchased": 0}])
    changed = [day for day in [*days[3:20], *days[22:]] if day != days[30]]
    assert update_reports(lake, [days[2]], NOW + HOUR) == changed
    reports = report_rows(lake, days[0], days[-1])
    assert [reports[day]["customer_segments"] for day in (days[2], days[3], days[39])] == [
        {"champions": 1},
        {"champions": 1, "lost": 1},
        {"champions": 1, "lost": 1},
    ]
    assert (reports[days[37]]["carts"], reports[days[38]]["carts"]) == (
        None,
        {"opened": 0, "abandoned": 4, "purchased": 0},
    )
    # That of which the content stayed the same need not be looked at again.
    version = lake.snapshot(DAILY_REPORT).version
    assert update_reports(lake, [days[2]], NOW + 2 * HOUR) == []
    assert lake.snapshot(DAILY_REPORT).version == version
