"""The content of the daily report: one JSON object, from which alone text and HTML are made.

Whoever reads a published report adds the names of its products.

It starts with what older reports of this shape hold, under the same names; the rest follows. Rates are per cent,
money is in the shop's currency, `currency`: what is in another one without an exchange rate is counted as
`unconverted`, and is in no amount. `complete` says whether the
day was over when the report was made; until then its figures are those so far, and what it compares with whole days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import percent

TOP_PRODUCTS = 5
USERS_NAMED = 10
COMPARISONS = {"day_before": timedelta(days=1), "week_before": timedelta(days=7)}
"""The days that a day is compared with: the report's key, and how long before."""
COMPARED = (
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

Row = Mapping[str, Any]
Report = dict[str, Any]


@dataclass(frozen=True)
class DayRows:
    """The rows of one day that its report is made of; a day without events has none.

    Attributes:
        summary: The DAILY_SUMMARY row.
        products: PRODUCT_PERFORMANCE rows, at least the first by rank.
        categories: CATEGORY_CONVERSION rows.
        funnel: FUNNEL rows.
        users: Per segment the first ids of its users.
        carts: Carts by what happened to them that day: opened, abandoned, purchased.
        customers: Customers per named segment.
        campaigns: CAMPAIGN_ATTRIBUTION rows of one model.
    """

    summary: Row | None = None
    products: Sequence[Row] = ()
    categories: Sequence[Row] = ()
    funnel: Sequence[Row] = ()
    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    carts: Mapping[str, int] | None = None
    customers: Mapping[str, int] = field(default_factory=dict)
    campaigns: Sequence[Row] = ()


def make_report(
    day: date,
    rows: DayRows,
    summaries: Mapping[date, Row | None],
    generated_at: datetime,
    clock: ShopClock = UTC_CLOCK,
) -> Report:
    """Make a day's report.

    Args:
        day: the day.
        rows: its rows, in any order.
        summaries: DAILY_SUMMARY rows of the days that it is compared with; None for those without events. Where
            nothing is known of a day, it is not among them, and the report does not compare with it.
        generated_at: the current time, in UTC.
        clock: says when the day is over.
    """
    figures = _figures(rows.summary)
    top = [row for row in sorted(rows.products, key=lambda row: row["rank"]) if row["view_count"]]
    converting = [row for row in rows.categories if row["views"] or row["purchases"]]
    converting.sort(key=lambda row: (-row["conversion_rate"], row["category"]))
    users = {name: sorted(ids)[:USERS_NAMED] for name, ids in rows.users.items()}
    summary = rows.summary or {}
    report = {
        "date": day.isoformat(),
        "total_events": figures["total_events"],
        "window_shoppers": {
            "count": summary.get("window_shopper_count", 0),
            "user_ids": users.get("window_shopper", []),
        },
        "buyers": {"count": figures["buyers"], "user_ids": users.get("buyer", [])},
        "top_5_viewed_products": [
            {"product_id": row["product_id"], "views": row["view_count"]} for row in top[:TOP_PRODUCTS]
        ],
        "conversion_rates_by_category": {
            row["category"]: {name: row[name] for name in ("views", "purchases", "conversion_rate")}
            for row in converting
        },
        "generated_at": generated_at.isoformat(timespec="seconds"),
        **{name: value for name, value in figures.items() if name not in ("total_events", "buyers")},
        "views": summary.get("views", 0),
        "add_to_carts": summary.get("add_to_carts", 0),
        "purchases": summary.get("purchases", 0),
        "buyer_rate": summary.get("buyer_rate", 0),
        "currency": summary.get("currency"),
        "currencies": summary.get("currencies") or [],
        "unconverted": summary.get("unconverted", 0),
        "complete": generated_at >= clock.begin(day + timedelta(days=1)),
        "bots": {"events": summary.get("bot_events", 0), "sessions": summary.get("bot_sessions", 0)},
        "funnel": _funnel(rows.funnel),
        "carts": dict(rows.carts) if rows.carts else None,
        "customer_segments": dict(sorted(rows.customers.items())) or None,
        "campaigns": _campaigns(rows.campaigns) or None,
        "comparison": {
            name: _comparison(figures, day - before, summaries) for name, before in COMPARISONS.items()
        },
    }
    return _plain(report)


def without_time(report: Report) -> Report:
    """Return what a report says, but for when it was made."""
    return {name: value for name, value in report.items() if name != "generated_at"}


def _figures(summary: Row | None) -> dict[str, Any]:
    names = {"buyers": "buyer_count"}
    if summary is None:
        return {name: None if name == "average_order_value" else 0 for name in COMPARED}
    return {name: summary[names.get(name, name)] for name in COMPARED}


def _comparison(figures: Row, day: date, summaries: Mapping[date, Row | None]) -> Report:
    before = _figures(summaries[day]) if day in summaries else {}
    return {"date": day.isoformat(), **{name: _change(figures[name], before.get(name)) for name in COMPARED}}


def _change(now: Any, before: Any) -> Report | None:
    """Return the figure then, the difference, and that in per cent; None where there is nothing to compare."""
    if now is None or before is None:
        return None
    change = now - before
    if not before:
        return {"before": before, "change": change, "change_percent": None if change else 0}
    # What was given back can be more than what was paid: a rise from below 0 is a rise.
    return {"before": before, "change": change, "change_percent": percent(change, abs(before))}


def _funnel(rows: Sequence[Row]) -> list[Row]:
    overall = [row for row in rows if row["dimension"] == "overall"]
    names = ("step", "users", "conversion_from_previous", "conversion_from_first")
    return [
        {name: row[name] for name in names} for row in sorted(overall, key=lambda row: row["step_number"])
    ]


def _campaigns(rows: Sequence[Row]) -> list[Row]:
    ordered = sorted(rows, key=lambda row: (-row["revenue"], row["campaign"]))
    return [{name: row[name] for name in ("campaign", "orders", "revenue")} for row in ordered]


def _plain(value: Any) -> Any:
    """Return the value in JSON's own types; two or four decimals survive as they are."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, Decimal) else value
