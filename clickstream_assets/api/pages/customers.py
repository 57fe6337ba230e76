"""The page of customers: segments and the moves between them, cohorts, likely buyers, and carts that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

from flask import Response

from clickstream_assets.api.pages.asked import day_asked
from clickstream_assets.api.pages.parts import Cell, Chart, Filter, Listing, Series
from clickstream_assets.api.pages.products import name_of, products_named
from clickstream_assets.api.pages.reader import NOTHING, Reader
from clickstream_assets.api.pages.rendering import NO_FIGURES, reader_of, sheet
from clickstream_assets.api.pages.source import Answer, Source
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS

_MOVED_DAYS = 7
_COHORTS = 12
_LISTED = 20
# Products of a cart that are named.
_OF_CART = 3
_NOWHERE = "no customer"
# Best first, as the segments are defined.
_SEGMENTS = {segment.name: segment.meaning for segment in RFM_SEGMENTS}


def person_link(person: str) -> str:
    """Return the address of what is recommended to a person, beside what they did."""
    return f"/recommendations?person={quote(person, safe='')}"


def show_customers() -> Response:
    """Show customers as of the end of a day: the newest, unless the address names another."""
    source = Source()
    reader = reader_of(source)
    if source.last_day is None:
        return sheet(source, reader, title="Customers", empty=NO_FIGURES)
    day = day_asked("date") or source.last_day
    counts = source.get("/api/segments", date=day, limit=100).rows("segments")
    moves = source.get("/api/segment-moves", date=day, days=_MOVED_DAYS).rows("moves")
    first_week = day - timedelta(weeks=_COHORTS)
    cohorts = source.all_rows("/api/cohorts", "cohorts", since=first_week, until=day)
    buyers = source.get("/api/predictions", limit=_LISTED)
    carts = source.get("/api/carts", state="abandoned", sort="value", limit=_LISTED)
    filled_with = products_named(
        source, (product for cart in carts.rows("carts") for product in cart["product_ids"][:_OF_CART])
    )
    return sheet(
        source,
        reader,
        title="Customers",
        filters=[Filter("date", "As of", day)],
        charts=[_segments(day, counts, are_listed=source.shows_persons), _activity(counts)],
        tables=[
            _moves(reader, day, moves),
            _cohorts(reader, first_week, day, cohorts),
            _buyers(reader, buyers),
            _carts(reader, carts, filled_with),
            Listing(
                "meanings",
                "What the segments are",
                ["Segment", "Customers who"],
                [[Cell(_shown(name)), Cell(text)] for name, text in _SEGMENTS.items()],
            ),
        ],
    )


def _shown(segment: str | None) -> str:
    return segment.replace("_", " ") if segment else _NOWHERE


def _segments(day: date, counts: list[dict[str, Any]], *, are_listed: bool) -> Chart:
    users = {row["segment"]: row["users"] for row in counts if row["kind"] == "rfm"}
    there = [name for name in _SEGMENTS if name in users]
    return Chart(
        "segments",
        "Customers by segment",
        "customers",
        [_shown(name) for name in there],
        [Series("Customers", [users[name] for name in there])],
        form="steps",
        label_name="Segment",
        links={
            _shown(name): f"/api/segments?date={day}&segment={name}&limit=1000&format=csv" for name in there
        }
        if are_listed
        else {},
    )


def _activity(counts: list[dict[str, Any]]) -> Chart:
    users = {row["segment"]: row["users"] for row in counts if row["kind"] != "rfm"}
    names = {
        "buyer": "Bought that day",
        "window_shopper": "Were there and did not buy",
        "cart_abandoner": "Left a cart in 30 days",
    }
    return Chart(
        "activity",
        "What visitors did",
        "persons",
        list(names.values()),
        [Series("Persons", [users.get(name, 0 if users else None) for name in names])],
        form="steps",
        label_name="Segment",
    )


def _moves(reader: Reader, day: date, moves: list[dict[str, Any]]) -> Listing:
    moved = [move for move in moves if move["from_segment"] != move["to_segment"]]
    return Listing(
        "moves",
        f"Moves between segments in {_MOVED_DAYS} days",
        ["From", "To", "Customers"],
        [
            [
                Cell(_shown(move["from_segment"])),
                Cell(_shown(move["to_segment"])),
                Cell(reader.number(move["users"]), is_number=True),
            ]
            for move in moved[:_LISTED]
        ],
        empty="Nobody moved.",
        csv=f"/api/segment-moves?date={day}&days={_MOVED_DAYS}&limit=1000&format=csv",
    )


def _cohorts(reader: Reader, first: date, last_day: date, rows: list[dict[str, Any]]) -> Listing:
    """Return cohorts as a heat map: a row a week of first visits, a column a week after it."""
    weeks = sorted({row["cohort_week"] for row in rows}, reverse=True)
    last = max((row["weeks_since"] for row in rows), default=-1)
    by_place = {(row["cohort_week"], row["weeks_since"]): row for row in rows}
    table = []
    for week in weeks:
        cells = [
            Cell(reader.day(date.fromisoformat(week))),
            Cell(reader.number(by_place[week, 0]["users"]), is_number=True),
        ]
        for since in range(last + 1):
            row = by_place.get((week, since))
            # Of the counts: the API's rate is rounded already.
            rate = 100 * row["active_users"] / row["users"] if row else None
            warmth = None if rate is None else min(10, round(rate / 10))
            cells.append(Cell(reader.percent(rate, 0) if rate is not None else "", warmth=warmth))
        table.append(cells)
    return Listing(
        "cohorts",
        "Who comes back",
        ["First there in the week of", "Persons", *(f"+{since}" for since in range(last + 1))],
        table,
        note="Of the persons who were first there in a week, per cent that were there so many weeks later.",
        empty="There are no weeks yet.",
        csv=f"/api/cohorts?since={first}&until={last_day}&limit=1000&format=csv",
    )


def _buyers(reader: Reader, buyers: Answer) -> Listing:
    rows = buyers.rows("predictions")
    known = [
        row for row in rows if row["probability_28_days"] is not None or row["probability_7_days"] is not None
    ]

    def chance(probability: float | None) -> str:
        return NOTHING if probability is None else reader.percent(100 * probability, 1)

    return Listing(
        "buyers",
        "Who is likely to buy",
        ["Person", "Within 7 days", "Within 28 days", "Why"],
        [
            [
                Cell(row["user_id"], person_link(row["user_id"])),
                Cell(chance(row["probability_7_days"]), is_number=True),
                Cell(chance(row["probability_28_days"]), is_number=True),
                Cell("; ".join(row["reasons"])),
            ]
            for row in known
        ],
        empty=buyers.instead(
            "No model foretells it better than the base rate and a simple rule: there is too little to learn from."
        ),
        csv="/api/predictions?limit=1000&format=csv",
    )


def _carts(reader: Reader, carts: Answer, products: Mapping[str, Mapping[str, Any]]) -> Listing:
    return Listing(
        "carts",
        "Carts worth a reminder",
        ["Person", "Value", "Products", "Left"],
        [
            [
                Cell(row["user_id"], person_link(row["user_id"])),
                Cell(reader.money(row["value"]), is_number=True),
                Cell(_named(row["product_ids"], products)),
                Cell(reader.moment_of(row["abandoned_at"])),
            ]
            for row in carts.rows("carts")
        ],
        note="Abandoned carts, the dearest first.",
        empty=carts.instead("No cart is abandoned."),
        csv="/api/carts?state=abandoned&sort=value&limit=1000&format=csv",
    )


def _named(product_ids: Sequence[str], products: Mapping[str, Mapping[str, Any]]) -> str:
    more = len(product_ids) - _OF_CART
    names = ", ".join(name_of(products[product]) for product in product_ids[:_OF_CART])
    return f"{names} and {more} more" if more > 0 else names
