"""The report as the text of a mail.

The sections up to the table of categories are laid out as older reports lay them out, to the column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clickstream_assets.reports.document import COMPARISONS, Report

RULE = "=" * 60
LINE = "-" * 40
EMPTY = "There were no events on this day."
FIGURES = {
    "total_events": "Events",
    "users": "Users",
    "buyers": "Buyers",
    "sessions": "Sessions",
    "orders": "Orders",
    "revenue": "Revenue",
    "average_order_value": "Average order",
    "bounce_rate": "Bounce rate",
    "conversion_rate": "Conversion",
}
STEPS = {"view": "Viewed", "add_to_cart": "Put into a cart", "purchase": "Purchased"}
COMPARED_WITH = {"day_before": "Day before", "week_before": "Week before"}


def title(report: Report) -> str:
    """The report's title, and the subject of its mail."""
    return f"Daily E-commerce Summary - {report['date']}"


def figure(report: Report, name: str) -> Any:
    """A figure of FIGURES, as the report has it."""
    return report["buyers"]["count"] if name == "buyers" else report[name]


def shown(name: str, value: float | None) -> str:
    """A figure as a person reads it."""
    if value is None:
        return "-"
    if name.endswith("_rate"):
        return f"{value:.2f}%"
    return f"{value:,.2f}" if name in ("revenue", "average_order_value") else f"{value:,}"


def change_shown(name: str, change: Report | None) -> str:
    """How a figure changed: in per cent, rates in percentage points."""
    if change is None:
        return "-"
    if name.endswith("_rate"):
        return f"{change['change']:+.2f} pp"
    return "new" if change["change_percent"] is None else f"{change['change_percent']:+.1f}%"


def render_text(report: Report) -> str:
    """Lay a report out as plain text."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield from (title(report), RULE, "", f"Total Events: {report['total_events']}", "")
    if not report["total_events"]:
        yield from (EMPTY, "")
    yield from _head("USER SEGMENTATION")
    yield f"- Buyers: {report['buyers']['count']}"
    yield f"- Window Shoppers: {report['window_shoppers']['count']}"
    yield ""
    yield from _head("TOP 5 VIEWED PRODUCTS")
    for place, product in enumerate(report["top_5_viewed_products"], start=1):
        yield f"{place}. {product['product_id']} - {product['views']} views"
    yield ""
    yield from _head("CONVERSION RATES BY PRODUCT CATEGORY")
    yield f"{'Category':<15} {'Views':>10} {'Purchases':>10} {'Rate':>10}"
    yield "-" * 45
    for category, counts in report["conversion_rates_by_category"].items():
        rate = f"{counts['conversion_rate']:.2f}%"
        yield f"{category:<15} {counts['views']:>10} {counts['purchases']:>10} {rate:>10}"
    if report["total_events"]:
        yield from _more(report)
    yield from ("", RULE, f"Report generated at: {report['generated_at']}")


def _head(text: str) -> tuple[str, str]:
    return text, LINE


def _more(report: Report) -> Iterator[str]:
    yield ""
    yield from _head("THE DAY IN FIGURES")
    names = "".join(f" {COMPARED_WITH[name]:>12}" for name in COMPARISONS)
    yield f"{'':<15} {'':>14}{names}"
    for name, label in FIGURES.items():
        changes = "".join(f" {change_shown(name, report['comparison'][c][name]):>12}" for c in COMPARISONS)
        yield f"{label:<15} {shown(name, figure(report, name)):>14}{changes}"
    if report["funnel"]:
        yield ""
        yield from _head("FROM VIEW TO PURCHASE")
        for step in report["funnel"]:
            share = f"{step['conversion_from_first']:.2f}%"
            yield f"{STEPS[step['step']]:<15} {step['users']:>10,} {share:>10}"
    if report["carts"]:
        yield ""
        yield from _head("CARTS")
        yield from (f"- {name.capitalize()}: {count:,}" for name, count in report["carts"].items())
    if report["customer_segments"]:
        yield ""
        yield from _head("CUSTOMER SEGMENTS")
        yield from (f"- {name}: {count:,}" for name, count in report["customer_segments"].items())
    if report["campaigns"]:
        yield ""
        yield from _head("CAMPAIGNS (LAST TOUCH)")
        yield f"{'Campaign':<25} {'Orders':>10} {'Revenue':>14}"
        for row in report["campaigns"]:
            yield f"{row['campaign']:<25} {row['orders']:>10,g} {row['revenue']:>14,.2f}"
    if report["bots"]["events"]:
        yield ""
        yield f"Left out as bots': {report['bots']['events']:,} events in {report['bots']['sessions']:,} sessions"
