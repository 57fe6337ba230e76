"""The index of the daily reports."""

from __future__ import annotations

from datetime import date

from flask import Response

from clickstream_assets.api.pages.asked import range_asked
from clickstream_assets.api.pages.parts import Cell, Filter, Listing
from clickstream_assets.api.pages.rendering import NO_FIGURES, reader_of, sheet
from clickstream_assets.api.pages.source import Source

_USUAL_DAYS = 31


def show_reports() -> Response:
    """List the days that have a report, the newest first."""
    source = Source()
    reader = reader_of(source)
    last_day = source.answers[0].content.get("last_day")
    if last_day is None:
        return sheet(source, reader, title="Reports", empty=NO_FIGURES)
    # A day without events has a report, too.
    asked = range_asked(date.fromisoformat(source.answers[0].content["today"]), _USUAL_DAYS)
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
