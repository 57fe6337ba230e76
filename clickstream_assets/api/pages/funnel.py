"""The page of the way from view to purchase, of a day and by group, and over the days before it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from flask import Response

from clickstream_assets.api.pages.asked import choice_asked, day_asked
from clickstream_assets.api.pages.parts import Cell, Chart, Filter, Listing, Series
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import NO_FIGURES, reader_of, sheet
from clickstream_assets.api.pages.source import Source

_BY = {
    "category": "category",
    "segment": "what they did that day",
    "rfm": "customers' segment the day before",
}
_STEPS = {"view": "Viewed", "add_to_cart": "Put into a cart", "purchase": "Bought"}
_DAYS = timedelta(days=27)


def show_funnel() -> Response:
    """Show the funnel of a day: the newest, unless the address names another."""
    source = Source()
    reader = reader_of(source)
    day = day_asked("date") or source.last_day
    by = choice_asked("by", _BY, "category")
    if day is None:
        return sheet(source, reader, title="Funnel", empty=NO_FIGURES)
    overall = source.all_rows("/api/funnel", "funnel", since=day - _DAYS, until=day, dimension="overall")
    of_day = [row for row in overall if row["report_date"] == str(day)]
    groups = source.all_rows("/api/funnel", "funnel", date=day, dimension=by)
    return sheet(
        source,
        reader,
        title="Funnel",
        filters=[Filter("date", "Day", day), Filter("by", "By", by, _BY)],
        note=f"{reader.day(day, 'full')}: who viewed a product, by how far they came from there, in order and in time.",
        charts=[_steps(of_day), _over_days(reader, day, overall)],
        tables=[_by_group(reader, by, groups)],
    )


def _steps(rows: list[dict[str, Any]]) -> Chart:
    users = {row["step"]: row["users"] for row in rows}
    return Chart(
        "steps",
        "From view to purchase",
        "visitors",
        list(_STEPS.values()),
        [Series("Visitors", [users.get(step) for step in _STEPS])],
        form="steps",
        label_name="Step",
    )


def _over_days(reader: Reader, day: date, rows: list[dict[str, Any]]) -> Chart:
    days = [day - _DAYS + timedelta(days=number) for number in range(_DAYS.days + 1)]
    rates = {(row["report_date"], row["step"]): row["conversion_from_first"] for row in rows}
    return Chart(
        "rates",
        "Of the viewers of each day",
        "per cent",
        [reader.weekday(each) for each in days],
        [
            Series(label, [rates.get((str(each), step)) for each in days])
            for step, label in _STEPS.items()
            if step != "view"
        ],
        kind="percent",
        links={reader.weekday(each): f"/funnel?date={each}" for each in days},
    )


def _by_group(reader: Reader, by: str, rows: list[dict[str, Any]]) -> Listing:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["value"], {})[row["step"]] = row
    ordered = sorted(groups.items(), key=lambda item: (-item[1]["view"]["users"], item[0]))
    return Listing(
        "groups",
        f"By {_BY[by]}",
        ["Group", *_STEPS.values(), "Bought of viewers"],
        [
            [
                # Categories are called what the shop calls them.
                Cell(group if by == "category" else group.replace("_", " ")),
                *(Cell(reader.number(steps[step]["users"]), is_number=True) for step in _STEPS),
                Cell(reader.percent(steps["purchase"]["conversion_from_first"]), is_number=True),
            ]
            for group, steps in ordered
        ],
        empty="Nobody viewed a product on this day.",
        csv=f"/api/funnel?date={rows[0]['report_date']}&dimension={by}&limit=1000&format=csv"
        if rows
        else None,
    )
