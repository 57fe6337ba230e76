"""The page of any daily figure over a range of days: of the whole shop, or by category, campaign or segment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, NamedTuple

from flask import Response, request

from clickstream_assets.api.pages.asked import Range, choice_asked, range_asked
from clickstream_assets.api.pages.parts import Chart, Figure, Kind, Series, compared
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import page, reader_of
from clickstream_assets.api.pages.source import Source

_USUAL_DAYS = 28
_SHOWN = 5
"""So many series of a kind can be told apart."""


class _Daily(NamedTuple):
    label: str
    kind: Kind = "number"
    is_more_better: bool | None = True
    is_summed: bool = True
    rate_of: tuple[str, str] | None = None
    """Of a rate, the figures whose sums make that of several days: so many of a hundred of the second."""


class _By(NamedTuple):
    label: str
    figures: Mapping[str, _Daily]
    path: str
    rows: str
    name: str
    parameters: Mapping[str, Any] = {}


_OF_THE_SHOP = {
    "net_revenue": _Daily("Revenue less refunds", "money"),
    "revenue": _Daily("Revenue", "money"),
    "refunds": _Daily("Refunds", "money", is_more_better=False),
    "orders": _Daily("Orders"),
    "average_order_value": _Daily("Average order", "money", is_summed=False),
    "conversion_rate": _Daily("Visits that bought", "percent", is_summed=False),
    "sessions": _Daily("Visits"),
    "users": _Daily("Visitors a day", is_summed=False),
    "buyer_count": _Daily("Buyers a day", is_summed=False),
    "buyer_rate": _Daily("Visitors who bought", "percent", is_summed=False),
    "bounce_rate": _Daily("Visits of one event", "percent", is_more_better=False, is_summed=False),
    "views": _Daily("Product views"),
    "add_to_carts": _Daily("Put into carts"),
    "total_events": _Daily("Events", is_more_better=None),
    "bot_events": _Daily("Events of bots", is_more_better=None),
}
_BY = {
    "all": _By("the whole shop", _OF_THE_SHOP, "/api/days", "days", ""),
    "category": _By(
        "category",
        {
            "net_revenue": _Daily("Revenue less refunds", "money"),
            "revenue": _Daily("Revenue", "money"),
            "purchases": _Daily("Purchases"),
            "views": _Daily("Product views"),
            "add_to_carts": _Daily("Put into carts"),
            "conversion_rate": _Daily(
                "Purchases per hundred views", "percent", is_summed=False, rate_of=("purchases", "views")
            ),
        },
        "/api/categories",
        "categories",
        "category",
    ),
    "campaign": _By(
        "campaign",
        {"revenue": _Daily("Revenue", "money"), "orders": _Daily("Orders")},
        "/api/attribution",
        "attribution",
        "campaign",
        {"model": "last_touch"},
    ),
    "segment": _By(
        "segment",
        {"users": _Daily("Persons", is_more_better=None, is_summed=False)},
        "/api/segment-counts",
        "segments",
        "segment",
    ),
}


def show_trends() -> Response:
    """Show a figure over a range of days, beside the range before it."""
    source = Source()
    reader = reader_of(source)
    chosen = choice_asked("by", _BY, "all")
    by = _BY[chosen]
    name = choice_asked("figure", by.figures, next(iter(by.figures)))
    asked: Range | None = None
    figures: list[Figure] = []
    charts: list[Chart] = []
    if source.last_day:
        asked = range_asked(source.last_day, _USUAL_DAYS)
        if chosen == "all":
            figures, charts = _of_the_shop(
                source, reader, asked, name, is_before_shown="before" in request.args
            )
        else:
            charts = _by_group(source, reader, asked, by, name)
    return page(
        "trends.html.j2",
        source,
        reader,
        title="Trends",
        asked=asked,
        shop=source.shop,
        by=chosen,
        by_choices={key: each.label for key, each in _BY.items()},
        figure=name,
        figure_choices={key: each.label for key, each in by.figures.items()},
        is_before_shown="before" in request.args,
        figures=figures,
        charts=charts,
    )


def _of_the_shop(
    source: Source, reader: Reader, asked: Range, name: str, *, is_before_shown: bool
) -> tuple[list[Figure], list[Chart]]:
    its, before = (
        {
            date.fromisoformat(row["report_date"]): row
            for row in source.get("/api/days", since=each.first, until=each.last, limit=1000).rows("days")
        }
        for each in (asked, asked.before)
    )
    daily = _OF_THE_SHOP[name]
    values = [its.get(day, {}).get(name) for day in asked.days]
    series = [Series(daily.label, values)]
    if is_before_shown:
        earlier = [before.get(day, {}).get(name) for day in asked.before.days]
        series.append(Series("The days before", earlier, is_compared=True))
    figures = []
    for key, each in _OF_THE_SHOP.items():
        if each.is_summed and its:
            now, then = (sum(row[key] for row in rows.values()) if rows else None for rows in (its, before))
            change = compared(now, then, "against the days before", is_more_better=each.is_more_better)
            figures.append(Figure(each.label, now, each.kind, (change,) if change else ()))
    chart = Chart(
        "trend",
        daily.label,
        reader.unit(daily.kind, "a day"),
        [reader.weekday(day) for day in asked.days],
        series,
        kind=daily.kind,
        links={reader.weekday(day): f"/?date={day}" for day in asked.days},
    )
    return figures, [chart]


def _by_group(source: Source, reader: Reader, asked: Range, by: _By, name: str) -> list[Chart]:
    rows = source.all_rows(by.path, by.rows, since=asked.first, until=asked.last, **by.parameters)
    daily = by.figures[name]
    of_group: defaultdict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        of_group[row[by.name]][row["report_date"]] = row
    known = {row["report_date"] for row in rows}
    totals = {group: _total(daily, name, days.values(), len(known)) for group, days in of_group.items()}
    shown = sorted(of_group, key=lambda group: (-totals[group], group))[:_SHOWN]
    called = [_called(by, group) for group in shown]
    unit = reader.unit(daily.kind, "a day")

    def value(group: str, day: str) -> float | None:
        if row := of_group[group].get(day):
            return row[name]
        # Of a day that has others nothing was of this group; of nothing there is no rate.
        return 0 if day in known and daily.kind != "percent" else None

    series = [
        Series(label, [value(group, str(day)) for day in asked.days])
        for group, label in zip(shown, called, strict=True)
    ]
    labels = [reader.weekday(day) for day in asked.days]
    is_mean = not daily.is_summed and daily.rate_of is None
    return [
        Chart("trend", f"{daily.label} by {by.label}", unit, labels, series, kind=daily.kind),
        Chart(
            "groups",
            f"{daily.label} by {by.label}, {'mean of the days' if is_mean else 'all days'}",
            unit if is_mean else unit.replace("a day", "in all"),
            called,
            [Series(daily.label, [totals[group] for group in shown])],
            form="steps",
            kind=daily.kind,
            label_name=by.label.capitalize(),
        ),
    ]


def _total(daily: _Daily, name: str, days: Collection[Mapping[str, Any]], of_days: int) -> float:
    """Return a group's figure of several days: the sum, the rate of the sums, or the mean of so many days."""
    if daily.rate_of:
        part, whole = (sum(row[each] for row in days) for each in daily.rate_of)
        return 100 * part / whole if whole else 0
    total = sum(row[name] for row in days)
    return total if daily.is_summed else total / of_days


def _called(by: _By, group: str) -> str:
    """Return what a group is called: segments' names are ours, categories' and campaigns' the shop's."""
    return group.replace("_", " ") if by.name == "segment" else group
