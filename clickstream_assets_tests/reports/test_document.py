"""The content of a report."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

from clickstream_assets.reports.document import DayRows, without_time
from clickstream_assets_tests.reports.days import DAY, ROWS, report, summary

OLDER_KEYS = [
    "date",
    "total_events",
    "window_shoppers",
    "buyers",
    "top_5_viewed_products",
    "conversion_rates_by_category",
    "generated_at",
]


def test_it_starts_with_what_older_reports_hold():
    made = report()
    assert list(made)[: len(OLDER_KEYS)] == OLDER_KEYS
    assert {name: made[name] for name in OLDER_KEYS} == {
        "date": "2024-05-08",
        "total_events": 28123,
        # The first ten, in order.
        "window_shoppers": {"count": 2876, "user_ids": [f"u{n}" for n in range(31, 41)]},
        "buyers": {"count": 434, "user_ids": ["u1", "u10", "u2"]},
        "top_5_viewed_products": [
            {"product_id": "p1", "views": 900},
            {"product_id": "p2", "views": 70},
            {"product_id": "p3", "views": 70},
            {"product_id": "p5", "views": 1},
        ],
        "conversion_rates_by_category": {
            "electronics": {"views": 5000, "purchases": 600, "conversion_rate": 12.0},
            "books": {"views": 3000, "purchases": 150, "conversion_rate": 5.0},
            "clothing": {"views": 3000, "purchases": 150, "conversion_rate": 5.0},
        },
        "generated_at": "2024-05-09T02:00:03+00:00",
    }
    assert list(made["conversion_rates_by_category"]) == ["electronics", "books", "clothing"]


def test_it_is_json_and_the_same_but_for_its_time():
    made = report()
    assert json.loads(json.dumps(made)) == made
    assert "generated_at" not in without_time(made)
    assert without_time(made) == without_time(json.loads(json.dumps(report())))


def test_it_compares_with_the_day_and_the_week_before_where_they_are():
    day_before = summary(total_events=30000, orders=0, average_order_value=None, bounce_rate=Decimal("20.00"))
    made = report(summaries={DAY - timedelta(days=1): day_before})
    compared = made["comparison"]["day_before"]
    assert compared["date"] == "2024-05-07"
    assert compared["total_events"] == {"before": 30000, "change": -1877, "change_percent": -6.26}
    assert compared["users"] == {"before": 3310, "change": 0, "change_percent": 0}
    assert compared["bounce_rate"] == {"before": 20.0, "change": -1.77, "change_percent": -8.85}
    # From nothing there is no per cent, and of no orders no average.
    assert compared["orders"] == {"before": 0, "change": 612, "change_percent": None}
    assert compared["average_order_value"] is None
    assert made["comparison"]["week_before"] == {"date": "2024-05-01"} | dict.fromkeys(
        (
            "total_events",
            "users",
            "buyers",
            "sessions",
            "orders",
            "revenue",
            "refunds",
            "net_revenue",
            "average_order_value",
            "bounce_rate",
            "conversion_rate",
        )
    )


def test_a_rise_from_a_day_on_which_more_was_given_back_than_paid_is_a_rise():
    day_before = summary(revenue=Decimal("10.00"), refunds=Decimal("60.00"), net_revenue=Decimal("-50.00"))
    compared = report(summaries={DAY - timedelta(days=1): day_before})["comparison"]["day_before"][
        "net_revenue"
    ]
    assert compared["before"] == -50
    assert compared["change"] > 0
    assert compared["change_percent"] == 2 * compared["change"]


def test_a_day_without_events_has_the_same_keys_and_nothing_in_them():
    empty = report(DayRows())
    assert list(empty) == list(report())
    assert (empty["total_events"], empty["revenue"], empty["average_order_value"]) == (0, 0, None)
    assert empty["buyers"] == {"count": 0, "user_ids": []}
    assert (empty["top_5_viewed_products"], empty["conversion_rates_by_category"]) == ([], {})
    assert (empty["carts"], empty["customer_segments"], empty["campaigns"]) == (None, None, None)


def test_products_that_nobody_viewed_are_not_among_the_most_viewed():
    rows = DayRows(summary=ROWS.summary, products=[{"product_id": "p", "view_count": 0, "rank": 1}])
    assert report(rows)["top_5_viewed_products"] == []
