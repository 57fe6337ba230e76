"""The report as the text of a mail.

The sections up to the table of categories are laid out as older reports lay them out, to the column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any

from clickstream_assets.reports.document import COMPARISONS, Report

RULE = "=" * 60
LINE = "-" * 40
EMPTY = "There were no events on this day."
SO_FAR = "The day is not over: its figures so far, compared with whole days."
NAME_WIDTH, LONGEST_NAME = 15, 40
CAMPAIGNS_SHOWN = 15
FIGURES = {
    "total_events": "Events",
    "users": "Users",
    "buyers": "Buyers",
    "sessions": "Sessions",
    "orders": "Orders",
    "revenue": "Revenue",
    "refunds": "Refunds",
    "net_revenue": "Net revenue",
    "average_order_value": "Average order",
    "bounce_rate": "Bounce rate",
    "conversion_rate": "Conversion",
}
STEPS = {"view": "Viewed", "add_to_cart": "Put into a cart", "purchase": "Purchased"}
# Three counts that a reader might take for one; each is said where it stands.
BUYERS_ARE = "Buyers purchased on this day, whatever they did before; one can have several orders."
STEPS_ARE = (
    "Users who viewed on this day, by the step that they came to from there in order and in time. Not all buyers came "
    "this way."
)
CARTS_ARE = "Carts, not users: one user can fill several, and buy without any."
COMPARED_WITH = {"day_before": "Day before", "week_before": "Week before"}


def title(report: Report) -> str:
    """Return the report's title, which is the subject of its mail."""
    return f"Daily E-commerce Summary - {report['date']}"


def figure(report: Report, name: str) -> Any:
    """Return a figure of FIGURES, as the report has it."""
    return report["buyers"]["count"] if name == "buyers" else report[name]


def shown(name: str, value: float | None) -> str:
    """Write a figure as a person reads it."""
    if value is None:
        return "-"
    if name.endswith("_rate"):
        return f"{value:.2f}%"
    return (
        f"{value:,.2f}"
        if name in ("revenue", "refunds", "net_revenue", "average_order_value")
        else f"{value:,}"
    )


def change_shown(name: str, change: Report | None) -> str:
    """Write how a figure changed: in per cent, rates in percentage points."""
    if change is None:
        return "-"
    if name.endswith("_rate"):
        return f"{change['change']:+.2f} pp"
    return "new" if change["change_percent"] is None else f"{change['change_percent']:+.1f}%"


def amounts_shown(report: Report) -> str:
    """Name the currency of the amounts, and what is in none of them; empty where there is nothing to say."""
    sentences = [f"Amounts are in {report['currency']}."] if report["currency"] else []
    if report["unconverted"]:
        names = ", ".join(name for name in report["currencies"] if name != report["currency"])
        sentences.append(
            f"{report['unconverted']:,} purchases and refunds in another currency{f' ({names})' if names else ''} have "
            "no exchange rate, and are in no amount."
        )
    return " ".join(sentences)


def product_shown(product: Mapping[str, Any]) -> str:
    """Name a product of the report: by its name, where it is known, and its id."""
    name = product.get("name")
    if not name:
        return product["product_id"]
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return f"{name} ({product['product_id']})"


def shortened_campaigns(report: Report) -> list[dict[str, Any]]:
    """Return the campaigns with the highest revenue, and the others together: a shop may name one per mail."""
    rows = report["campaigns"] or []
    others = rows[CAMPAIGNS_SHOWN:]
    if not others:
        return rows
    total = {name: sum(row[name] for row in others) for name in ("orders", "revenue")}
    return [*rows[:CAMPAIGNS_SHOWN], {"campaign": f"{len(others):,} more", **total}]


def render_text(report: Report) -> str:
    """Lay a report out as plain text."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield from (title(report), RULE, "", f"Total Events: {report['total_events']}", "")
    if not report["total_events"]:
        yield from (EMPTY, "")
    if not report["complete"]:
        yield from (SO_FAR, "")
    yield from _head("USER SEGMENTATION")
    yield f"- Buyers: {report['buyers']['count']}"
    yield f"- Window Shoppers: {report['window_shoppers']['count']}"
    yield ""
    yield from _head("TOP 5 VIEWED PRODUCTS")
    for rank, product in enumerate(report["top_5_viewed_products"], start=1):
        yield f"{rank}. {product_shown(product)} - {product['views']} views"
    yield ""
    yield from _head("CONVERSION RATES BY PRODUCT CATEGORY")
    named = _padded(["Category", *report["conversion_rates_by_category"]], NAME_WIDTH)
    head = f"{next(named)} {'Views':>10} {'Purchases':>10} {'Rate':>10}"
    # Of the older text's table, whose names have 15 characters, the line is three short.
    yield from (head, "-" * (len(head) - 3))
    for name, counts in zip(named, report["conversion_rates_by_category"].values(), strict=True):
        rate = f"{counts['conversion_rate']:.2f}%"
        yield f"{name} {counts['views']:>10} {counts['purchases']:>10} {rate:>10}"
    if report["total_events"]:
        yield from _more(report)
    yield from ("", RULE, f"Report generated at: {report['generated_at']}")


def _head(text: str) -> tuple[str, str]:
    return text, LINE


def _padded(names: Iterable[str], width: int) -> Iterator[str]:
    """The names as wide as the widest of them, at least `width` and at most LONGEST_NAME characters."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    widest = max(width, *map(len, names))
    return (name.ljust(widest) for name in names)


def _more(report: Report) -> Iterator[str]:
    yield ""
    yield from _head("THE DAY IN FIGURES")
    names = "".join(f" {COMPARED_WITH[name]:>12}" for name in COMPARISONS)
    yield f"{'':<15} {'':>14}{names}"
    for name, label in FIGURES.items():
        changes = "".join(f" {change_shown(name, report['comparison'][c][name]):>12}" for c in COMPARISONS)
        yield f"{label:<15} {shown(name, figure(report, name)):>14}{changes}"
    if amounts_shown(report):
        yield from ("", amounts_shown(report))
    yield from ("", *wrap(BUYERS_ARE, len(RULE)))
    if report["funnel"]:
        yield ""
        yield from _head("FROM VIEW TO PURCHASE")
        yield from (*wrap(STEPS_ARE, len(RULE)), "")
        for step in report["funnel"]:
            share = f"{step['conversion_from_first']:.2f}%"
            yield f"{STEPS[step['step']]:<15} {step['users']:>10,} {share:>10}"
    if report["carts"]:
        yield ""
        yield from _head("CARTS")
        yield from (*wrap(CARTS_ARE, len(RULE)), "")
        yield from (f"- {name.capitalize()}: {count:,}" for name, count in report["carts"].items())
    if report["customer_segments"]:
        yield ""
        yield from _head("CUSTOMER SEGMENTS")
        yield from (f"- {name}: {count:,}" for name, count in report["customer_segments"].items())
    if report["campaigns"]:
        yield ""
        yield from _head("CAMPAIGNS (LAST TOUCH)")
        rows = shortened_campaigns(report)
        named = _padded(["Campaign", *(row["campaign"] for row in rows)], 25)
        yield f"{next(named)} {'Orders':>10} {'Revenue':>14}"
        for name, row in zip(named, rows, strict=True):
            yield f"{name} {row['orders']:>10,.10g} {row['revenue']:>14,.2f}"
    if report["bots"]["events"]:
        yield ""
        yield f"Left out as bots': {report['bots']['events']:,} events in {report['bots']['sessions']:,} sessions"
