"""The report as an HTML page that mail programs and phones show alike: tables, inline styles, bars of table cells."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from clickstream_assets.reports.document import COMPARISONS, Report
from clickstream_assets.reports.text import (
    BUYERS_ARE,
    CARTS_ARE,
    EMPTY,
    FIGURES,
    SO_FAR,
    STEPS,
    STEPS_ARE,
    amounts_shown,
    change_shown,
    figure,
    product_shown,
    shortened_campaigns,
    shown,
    title,
)

# Where less is better, a rise is not painted as good news.
BETTER_LOW = {"bounce_rate", "refunds"}
CATEGORIES_SHOWN = 15


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def render_html(report: Report) -> str:
    """Lay a report out as a page that needs nothing from elsewhere; every value in it is escaped."""
    return _template().render(
        report=report,
        title=title(report),
        empty=EMPTY,
        so_far=SO_FAR,
        buyers_are=BUYERS_ARE,
        steps_are=STEPS_ARE,
        carts_are=CARTS_ARE,
        amounts=amounts_shown(report),
        figures=[_figure(report, name, label) for name, label in FIGURES.items()],
        products=_bars(
            [{**product, "label": product_shown(product)} for product in report["top_5_viewed_products"]],
            "views",
        ),
        categories=_bars(_categories(report), "conversion_rate"),
        steps=_bars([{**step, "label": STEPS[step["step"]]} for step in report["funnel"]], "users"),
        carts=_bars([{"state": name, "carts": n} for name, n in (report["carts"] or {}).items()], "carts"),
        customers=_bars(
            [{"segment": name, "users": n} for name, n in (report["customer_segments"] or {}).items()],
            "users",
        ),
        campaigns=_bars(shortened_campaigns(report), "revenue"),
    )


def _categories(report: Report) -> list[dict[str, Any]]:
    """Return the most viewed categories, those that convert best first, and the others together.

    Gmail cuts a mail off at 102 KB, and a shop may have a thousand of them.
    """
    rows = [
        {"category": category, **counts}
        for category, counts in report["conversion_rates_by_category"].items()
    ]
    most_viewed = sorted(rows, key=lambda row: (-row["views"], row["category"]))
    others = most_viewed[CATEGORIES_SHOWN:]
    if not others:
        return rows
    views, purchases = (sum(row[name] for row in others) for name in ("views", "purchases"))
    rest = {
        "category": f"{len(others):,} more",
        "views": views,
        "purchases": purchases,
        "conversion_rate": 100 * purchases / views if views else 0,
    }
    return [*(row for row in rows if row not in others), rest]


def _figure(report: Report, name: str, label: str) -> dict[str, Any]:
    changes = []
    for compared, before in COMPARISONS.items():
        change = report["comparison"][compared][name]
        if change is None:
            continue
        direction = (change["change"] > 0) - (change["change"] < 0)
        changes.append(
            {
                "text": change_shown(name, change),
                # Short: two of these stand side by side on a phone.
                "since": f"in {before.days} day{'s' if before.days > 1 else ''}",
                "mood": -direction if name in BETTER_LOW else direction,
            }
        )
    return {"label": label, "value": shown(name, figure(report, name)), "changes": changes}


def _bars(rows: list[dict[str, Any]], measure: str) -> list[dict[str, Any]]:
    """Return the rows with `width`: per cent of the longest bar, at least what can be seen."""
    longest = max((row[measure] for row in rows), default=0)
    return [
        {**row, "width": max(1, round(100 * row[measure] / longest)) if row[measure] > 0 else 0}
        for row in rows
    ]
