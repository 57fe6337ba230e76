"""The page of a day: its figures beside those of the day and the week before, its hours, and what happens now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from flask import Response

from clickstream_assets.api.pages.asked import day_asked
from clickstream_assets.api.pages.parts import Chart, Figure, Kind, Series, compared
from clickstream_assets.api.pages.products import name_of, product_link, products_named
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import is_part, page, reader_of
from clickstream_assets.api.pages.source import Source
from clickstream_assets.catalogue.clock import ShopClock

_DAY_BEFORE, _WEEK_BEFORE = timedelta(days=1), timedelta(days=7)
# Label, kind, and whether hours add up to it: of the others there is no figure until some time of a day.
_FIGURES: dict[str, tuple[str, Kind, bool]] = {
    "net_revenue": ("Revenue less refunds", "money", True),
    "orders": ("Orders", "number", True),
    "conversion_rate": ("Visits that bought", "percent", True),
    "sessions": ("Visits", "number", True),
    "users": ("Visitors", "number", False),
    "add_to_carts": ("Put into carts", "number", True),
}
_SUMMED = ("net_revenue", "orders", "sessions", "converted_sessions", "add_to_carts")
_LIVE_EVENTS = 10
_HOUR = timedelta(hours=1)


def show_today() -> Response:
    """Show a day: the newest, unless the address names another."""
    source = Source()
    reader = reader_of(source)
    alerts = source.get("/api/alerts", state="open", limit=10)
    events = source.get("/real-time-events", limit=_LIVE_EVENTS)
    met = products_named(source, (event["product_id"] for event in events.rows("real_time_events")))
    last_day, today = source.last_day, source.today
    day = day_asked("date") or last_day
    figures: list[Figure] = []
    charts: list[Chart] = []
    until = None
    # The live part is asked for every second, and has none of it.
    if day is not None and last_day is not None and not is_part():
        figures, charts, until = _of_day(source, reader, day, is_under_way=day == today)
    return page(
        "today.html.j2",
        source,
        reader,
        title="Today" if day in (None, today) else reader.day(day),
        day=day if last_day else None,
        first_day=source.shop.get("first_day"),
        today=today,
        until=until,
        figures=figures,
        charts=charts,
        alerts=alerts,
        events=events,
        names={product_id: name_of(product) for product_id, product in met.items()},
        time=datetime.fromisoformat,
        product_link=product_link,
    )


def _of_day(
    source: Source, reader: Reader, day: date, *, is_under_way: bool
) -> tuple[list[Figure], list[Chart], datetime | None]:
    """Return a day's figures and charts, and until when it and the days before are counted; None for all of them."""
    # Only of the day that it is now is the one before yesterday.
    names = ("yesterday", "a week ago") if is_under_way else ("the day before", "a week before")
    compared_days = dict(zip(names, (day - _DAY_BEFORE, day - _WEEK_BEFORE), strict=True))
    days = {
        row["report_date"]: row
        for asked in (day, *compared_days.values())
        for row in source.get("/api/days", date=asked).rows("days")
    }
    clock = ShopClock(reader.zone.key)
    hours = {
        asked: _hours(source.get("/api/hours", date=asked).rows("hours"), clock.begin(asked))
        for asked in (day, *compared_days.values())
    }
    latest = max(hours[day], default=None) if is_under_way else None
    figures = []
    for name, (label, kind, is_summed) in _FIGURES.items():
        changes = []
        if is_under_way and not is_summed:
            # A day that is not over has fewer visitors than a whole one, which says nothing.
            value = days.get(str(day), {}).get(name)
        else:
            value = _value(name, days.get(str(day)), hours[day], latest)
            for since, other in compared_days.items():
                before = _value(name, days.get(str(other)), hours[other], latest)
                changes.append(compared(value, before, f"against {since}"))
        figures.append(Figure(label, value, kind, tuple(filter(None, changes))))
    until = None if latest is None else clock.begin(day) + (latest + 1) * _HOUR
    return figures, _charts(reader, clock.begin(day), day, compared_days, hours, latest), until


def _hours(rows: Iterable[Mapping[str, Any]], begin: datetime) -> dict[int, Mapping[str, Any]]:
    """Return the hours of a day by their number from its begin on, which clocks that are changed do not show."""
    return {(datetime.fromisoformat(row["hour_start"]) - begin) // _HOUR: row for row in rows}


def _value(
    name: str,
    day: Mapping[str, Any] | None,
    hours: Mapping[int, Mapping[str, Any]],
    latest: int | None,
) -> float | None:
    """Return a figure of a day, or of its hours up to one."""
    if latest is None or day is None:
        return None if day is None else day[name]
    so_far = [row for hour, row in hours.items() if hour <= latest]
    sums = {summed: sum(row[summed] for row in so_far) for summed in _SUMMED}
    if name == "conversion_rate":
        return 100 * sums["converted_sessions"] / sums["sessions"] if sums["sessions"] else None
    return sums[name]


def _of_hour(
    name: str, hours: Mapping[int, Mapping[str, Any]], number: int, latest: int | None
) -> float | None:
    """Return a figure of an hour: 0 where nothing happened; None of a day without any, and of what is to come."""
    if not hours or (latest is not None and number > latest):
        return None
    return hours[number][name] if number in hours else 0


def _charts(
    reader: Reader,
    begin: datetime,
    day: date,
    compared_days: Mapping[str, date],
    hours: Mapping[date, Mapping[int, Mapping[str, Any]]],
    latest: int | None,
) -> list[Chart]:
    """Draw the hours of the days, up to the latest of the day itself; None where it is over."""
    numbers = sorted({number for its in hours.values() for number in its})
    span = range(min(numbers, default=0), max(numbers, default=-1) + 1)
    names = {day: reader.day(day), **{other: since.capitalize() for since, other in compared_days.items()}}
    charts = []
    drawn: tuple[tuple[str, str, str, str, Kind], ...] = (
        ("revenue", "Revenue by hour", reader.unit("money"), "revenue", "money"),
        ("orders", "Orders by hour", "orders", "orders", "number"),
        ("visits", "Visits by hour of their start", "visits", "sessions", "number"),
        ("carts", "Put into carts by hour", "events", "add_to_carts", "number"),
    )
    for id_, title, unit, name, kind in drawn:
        series = [
            Series(
                label,
                [_of_hour(name, hours[its], number, latest if its == day else None) for number in span],
                is_compared=its != day,
            )
            for its, label in names.items()
        ]
        charts.append(
            Chart(
                id_,
                title,
                unit,
                [reader.clock(begin + number * _HOUR) for number in span],
                series,
                kind=kind,
                label_name="Hour",
            )
        )
    return charts
