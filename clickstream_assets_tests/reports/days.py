"""Rows of a day for reports, as the tables have them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from clickstream_assets.reports.document import DayRows, Report, make_report

DAY = date(2024, 5, 8)
NOW = datetime(2024, 5, 9, 2, 0, 3, tzinfo=UTC)


def summary(**more: Any) -> dict[str, Any]:
    """A DAILY_SUMMARY row."""
    return {
        "report_date": DAY,
        "total_events": 28123,
        "buyer_count": 434,
        "window_shopper_count": 2876,
        "buyer_rate": Decimal("13.11"),
        "users": 3310,
        "sessions": 4937,
        "bounced_sessions": 900,
        "bounce_rate": Decimal("18.23"),
        "views": 19800,
        "add_to_carts": 5200,
        "purchases": 2310,
        "orders": 612,
        "revenue": Decimal("47794.5300"),
        "refunds": Decimal("794.5300"),
        "net_revenue": Decimal("47000.0000"),
        "average_order_value": Decimal("78.0956"),
        "converted_sessions": 512,
        "conversion_rate": Decimal("10.37"),
        "bot_events": 1931,
        "bot_sessions": 31,
        "currencies": ["EUR"],
        "currency": "EUR",
        "unconverted": 0,
        **more,
    }


def category(name: str, views: int, purchases: int, rate: str) -> dict[str, Any]:
    """Return a CATEGORY_CONVERSION row, as far as a report needs it."""
    return {"category": name, "views": views, "purchases": purchases, "conversion_rate": Decimal(rate)}


def product(name: str, views: int, rank: int) -> dict[str, Any]:
    """Return a PRODUCT_PERFORMANCE row, as far as a report needs it."""
    return {"product_id": name, "view_count": views, "rank": rank}


def step(name: str, number: int, users: int, from_first: str) -> dict[str, Any]:
    """Return a FUNNEL row, as far as a report needs it."""
    return {
        "dimension": "overall",
        "value": "all",
        "step": name,
        "step_number": number,
        "users": users,
        "conversion_from_previous": None,
        "conversion_from_first": Decimal(from_first),
    }


ROWS = DayRows(
    summary=summary(),
    products=[product("p5", 1, 4), product("p1", 900, 1), product("p3", 70, 3), product("p2", 70, 2)],
    categories=[
        category("books", 3000, 150, "5.00"),
        category("toys", 0, 0, "0.00"),
        category("electronics", 5000, 600, "12.00"),
        category("clothing", 3000, 150, "5.00"),
    ],
    funnel=[
        step("purchase", 3, 400, "12.90"),
        step("view", 1, 3100, "100.00"),
        step("add_to_cart", 2, 1200, "38.71"),
    ],
    users={"buyer": ["u2", "u10", "u1"], "window_shopper": [f"u{n}" for n in range(50, 30, -1)]},
    carts={"opened": 300, "abandoned": 120, "purchased": 150},
    customers={"champions": 30, "at risk": 12},
    campaigns=[
        {"campaign": "spring_sale", "orders": Decimal(12), "revenue": Decimal("900.5")},
        {"campaign": "(direct)", "orders": Decimal(600), "revenue": Decimal("40000")},
    ],
)


def report(rows: DayRows = ROWS, summaries: dict[date, dict[str, Any]] | None = None) -> Report:
    """The report of the day."""
    return make_report(DAY, rows, summaries or {}, NOW)
