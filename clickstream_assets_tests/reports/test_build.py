"""Reports of simulated days, from tables in a lake, against plain loops over the lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.funnel import funnel
from clickstream_assets.analytics.persons import persons_events
from clickstream_assets.analytics.products import category_conversion, product_performance
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
)
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.summary import daily_summary
from clickstream_assets.engine import Engine
from clickstream_assets.lake import Lake
from clickstream_assets.reports.build import report_rows, update_reports
from clickstream_assets_tests.analytics import by_hand
from clickstream_assets_tests.analytics.days import FIRST, LAST, load, simulated_lines
from clickstream_assets_tests.analytics.records import at, money

NOW = datetime(2024, 5, 4, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def cart(number: int, state: str, **times: datetime) -> dict[str, Any]:
    return {
        **dict.fromkeys(CARTS.column_names),
        "cart_id": f"c{number}",
        "user_id": f"u{number}",
        "state": state,
        "last_activity_at": times["opened_at"],
        "items": 1,
        "quantity": 1,
        "value": money("1"),
        "product_ids": ["p1"],
        **times,
    }


def write_tables(lake: Lake, lines: list[bytes]) -> None:
    """The tables that a report is made of."""
    engine = lake.engine
    events, visits = load(engine, lines)
    persons = persons_events(events, visits, FIRST, LAST)
    segments = user_segments(persons)
    days = (FIRST, LAST)
    lake.replace(USER_SEGMENTS, segments, days)
    lake.replace(PRODUCT_PERFORMANCE, product_performance(persons), days)
    lake.replace(CATEGORY_CONVERSION, category_conversion(persons), days)
    lake.replace(DAILY_SUMMARY, daily_summary(events, visits, *days), days)
    lake.replace(FUNNEL, funnel(events, visits, segments, *days, HOUR), days)
    carts = [
        cart(1, "abandoned", opened_at=at("2024-05-01 23:59:59"), abandoned_at=at("2024-05-02 23:59:59")),
        cart(2, "converted", opened_at=at("2024-05-02 00:00"), purchased_at=at("2024-05-02 01:00")),
        cart(3, "open", opened_at=at("2024-05-03 10:00")),
    ]
    lake.replace(CARTS, engine.from_arrow(pa.Table.from_pylist(carts, schema=CARTS.arrow)))
    customers = [
        {
            **dict.fromkeys(CUSTOMER_SEGMENTS.column_names),
            "report_date": LAST,
            "user_id": user,
            "rfm_segment": segment,
            "frequency": 1,
            "monetary": money("1"),
            "abandoned_carts": 0,
            "abandoned_value": money("0"),
        }
        for user, segment in (("a", "champions"), ("b", "champions"), ("c", "lost"), ("d", None))
    ]
    lake.replace(
        CUSTOMER_SEGMENTS,
        engine.from_arrow(pa.Table.from_pylist(customers, schema=CUSTOMER_SEGMENTS.arrow)),
    )
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
    lake.replace(
        CAMPAIGN_ATTRIBUTION,
        engine.from_arrow(pa.Table.from_pylist(campaigns, schema=CAMPAIGN_ATTRIBUTION.arrow)),
    )


def test_reports_say_what_plain_loops_find_and_stay_as_long_as_that_is_so(engine: Engine, tmp_path: Path):
    lines = simulated_lines(seed=3)
    read = by_hand.read(lines)
    lake = Lake(str(tmp_path / "lake"), engine)
    write_tables(lake, lines)
    days = [FIRST, FIRST + timedelta(days=1), LAST]
    # A day after the others, which has no events.
    assert update_reports(lake, FIRST, LAST + timedelta(days=1), NOW) == [*days, LAST + timedelta(days=1)]
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
        reached = by_hand.funnel(read, day, HOUR)["overall", "all"]
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
    assert update_reports(lake, FIRST, LAST, NOW + HOUR) == []
    assert lake.snapshot(DAILY_REPORT).version == version
