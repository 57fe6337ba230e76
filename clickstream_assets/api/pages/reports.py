"""The pages of the daily reports: their index, and each with what a mail has no room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from flask import Response, redirect
from werkzeug.wrappers import Response as WerkzeugResponse

from clickstream_assets.api.pages.asked import Range, day_asked, range_asked
from clickstream_assets.api.pages.parts import Cell, Chart, Figure, Filter, Kind, Listing, Series, compared
from clickstream_assets.api.pages.products import alerts_asked, alerts_of, product_link
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import NO_FIGURES, reader_of, sheet
from clickstream_assets.api.pages.source import Source
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS
from clickstream_assets.reports.text import CARTS_ARE, STEPS

_USUAL_DAYS = 31
_TREND_DAYS = 28
_SEGMENTS = {segment.name: place for place, segment in enumerate(RFM_SEGMENTS)}
# Label, kind, and whether more is better.
_FIGURES: dict[str, tuple[str, Kind, bool | None]] = {
    "net_revenue": ("Revenue less refunds", "money", True),
    "revenue": ("Revenue", "money", True),
    "refunds": ("Refunds", "money", False),
    "orders": ("Orders", "number", True),
    "average_order_value": ("Average order", "money", True),
    "users": ("Visitors", "number", True),
    "buyers": ("Buyers", "number", True),
    "sessions": ("Visits", "number", True),
    "conversion_rate": ("Visits that bought", "percent", True),
    "bounce_rate": ("Visits of one event", "percent", False),
    "total_events": ("Events", "number", None),
}


def show_reports() -> WerkzeugResponse:
    """List the days that have a report, the newest first."""
    if day := day_asked("date"):
        # Chosen on a report's own page.
        return redirect(f"/reports/{day}")
    source = Source()
    reader = reader_of(source)
    if source.last_day is None or source.today is None:
        return sheet(source, reader, title="Reports", empty=NO_FIGURES)
    # A day without events has a report, too.
    asked = range_asked(source.today, _USUAL_DAYS)
    reports = source.get("/api/reports", since=asked.first, until=asked.last, limit=1000)
    return sheet(
        source,
        reader,
        title="Reports",
        filters=[Filter("since", "From", asked.first), Filter("until", "To", asked.last)],
        tables=[
            Listing(
                "reports",
                "Daily reports",
                ["Day", "Visitors", "Visits", "Orders", "Revenue less refunds", "Visits that bought"],
                [
                    [
                        Cell(
                            reader.weekday(date.fromisoformat(row["report_date"])),
                            f"/reports/{row['report_date']}",
                        ),
                        *(
                            Cell(reader.number(row[name]), is_number=True)
                            for name in ("users", "sessions", "orders")
                        ),
                        Cell(reader.money(row["net_revenue"]), is_number=True),
                        Cell(reader.percent(row["conversion_rate"]), is_number=True),
                    ]
                    for row in reports.rows("reports")
                ],
                empty="No day of these has a report.",
                csv=f"/api/reports?since={asked.first}&until={asked.last}&limit=1000&format=csv",
            )
        ],
    )


def show_report(day: date) -> Response:
    """Show a day's report, with the days before it, its alerts and what was rejected on it."""
    source = Source()
    reader = reader_of(source)
    answer = source.get(f"/api/reports/{day}")
    report = answer.content
    if not report:
        return sheet(
            source,
            reader,
            title=f"Report of {reader.day(day)}",
            filters=_other_days(day),
            empty="" if answer.is_outage else answer.problem or "",
        )
    since = day - timedelta(days=_TREND_DAYS - 1)
    days = {
        row["report_date"]: row
        for row in source.get("/api/days", since=since, until=day, limit=_TREND_DAYS).rows("days")
    }
    # From the day's begin to its end, as all that happened on it.
    its = alerts_asked(reader, Range(day, day))
    alerts = source.get("/api/alerts", **its, limit=50).rows("alerts")
    # Elasticsearch refuses events, and fields are left out of them: neither is a rejected record.
    rejected = source.all_rows("/api/rejected", "rejected", **its, rejected_by="ingest")
    return sheet(
        source,
        reader,
        title=f"Report of {reader.day(day)}",
        filters=_other_days(day),
        note=""
        if report["complete"]
        else "The day was not over when this was made; what came since is not in it.",
        links={
            "The day before": f"/reports/{day - timedelta(days=1)}",
            "The day after": f"/reports/{day + timedelta(days=1)}",
            "All reports": "/reports",
        },
        figures=_figures(report),
        charts=_charts(
            reader, [since + timedelta(days=number) for number in range(_TREND_DAYS)], days, report
        ),
        tables=_tables(reader, report, alerts_of(reader, "Flash sales of the day", alerts, its), rejected),
    )


def _other_days(day: date) -> list[Filter]:
    return [Filter("date", "Day", day)]


def _figures(report: Mapping[str, Any]) -> list[Figure]:
    figures = []
    for name, (label, kind, is_more_better) in _FIGURES.items():
        value = report["buyers"]["count"] if name == "buyers" else report[name]
        changes = []
        for compared_with, since in (
            ("day_before", "against the day before"),
            ("week_before", "against a week before"),
        ):
            if (change := report["comparison"][compared_with][name]) is not None:
                changes.append(compared(value, change["before"], since, is_more_better=is_more_better))
        figures.append(Figure(label, value, kind, tuple(filter(None, changes))))
    return figures


def _charts(
    reader: Reader, days: Sequence[date], rows: Mapping[str, Mapping[str, Any]], report: Mapping[str, Any]
) -> list[Chart]:
    labels = [reader.weekday(day) for day in days]
    drawn: tuple[tuple[str, str, str, Kind], ...] = (
        ("net_revenue", "Revenue less refunds", reader.unit("money"), "money"),
        ("users", "Visitors", "a day", "number"),
    )
    trends = [
        Chart(
            name,
            title,
            unit,
            labels,
            [Series(title, [rows.get(str(day), {}).get(name) for day in days])],
            kind=kind,
            links={label: f"/reports/{day}" for label, day in zip(labels, days, strict=True)},
        )
        for name, title, unit, kind in drawn
    ]
    steps = {row["step"]: row["users"] for row in report["funnel"]}
    funnel = Chart(
        "funnel",
        "From view to purchase",
        "visitors",
        [STEPS[step] for step in steps],
        [Series("Visitors", list(steps.values()))],
        form="steps",
        label_name="Step",
    )
    customers = report["customer_segments"] or {}
    # Those of an older report can have other names.
    names = sorted(customers, key=lambda name: (_SEGMENTS.get(name, len(_SEGMENTS)), name))
    segments = Chart(
        "segments",
        "Customers by segment, the best first",
        "customers",
        [name.replace("_", " ") for name in names],
        [Series("Customers", [customers[name] for name in names])],
        form="steps",
        label_name="Segment",
    )
    return [*trends, funnel, segments]


def _tables(
    reader: Reader,
    report: Mapping[str, Any],
    alerts: Listing,
    rejected: Sequence[Mapping[str, Any]],
) -> list[Listing]:
    by_rule: Counter[tuple[str, str]] = Counter()
    for row in rejected:
        by_rule[row["rule"], row["field"]] += row["records"]
    return [
        Listing(
            "products",
            "Most viewed products",
            ["Product", "Views"],
            [
                [
                    Cell(product.get("name") or product["product_id"], product_link(product["product_id"])),
                    Cell(reader.number(product["views"]), is_number=True),
                ]
                for product in report["top_5_viewed_products"]
            ],
            empty="No product was viewed.",
        ),
        Listing(
            "categories",
            "Categories, those that convert best first",
            ["Category", "Views", "Purchases", "Purchases per hundred views"],
            [
                [
                    Cell(category),
                    *(Cell(reader.number(counts[name]), is_number=True) for name in ("views", "purchases")),
                    Cell(reader.percent(counts["conversion_rate"]), is_number=True),
                ]
                for category, counts in report["conversion_rates_by_category"].items()
            ],
            empty="No category was viewed.",
        ),
        Listing(
            "campaigns",
            "Orders by the campaign that was met last",
            ["Campaign", "Orders", "Revenue"],
            [
                [
                    Cell(campaign["campaign"]),
                    Cell(reader.number(campaign["orders"]), is_number=True),
                    Cell(reader.money(campaign["revenue"]), is_number=True),
                ]
                for campaign in report["campaigns"] or ()
            ],
            empty="There was no order.",
        ),
        Listing(
            "carts",
            "Carts",
            ["What happened to them", "Carts"],
            [
                [Cell(state), Cell(reader.number(carts), is_number=True)]
                for state, carts in (report["carts"] or {}).items()
            ],
            note=CARTS_ARE,
            empty="Nothing happened to a cart.",
        ),
        alerts,
        Listing(
            "rejected",
            "Records that were rejected",
            ["Rule", "Field", "Records"],
            [
                [Cell(rule), Cell(field), Cell(reader.number(records), is_number=True)]
                for (rule, field), records in by_rule.most_common()
            ],
            note="Of what came on this day; `clickstream rejected list` shows the records.",
            empty="Every record was taken.",
        ),
    ]
