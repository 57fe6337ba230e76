"""A day's figures from JSON lines, in plain loops: what the tables have to say, worked out another way."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

CENT = Decimal("0.01")


@dataclass(frozen=True)
class Line:
    """An event as a sender wrote it."""

    at: datetime
    user: str
    kind: str
    product: str | None
    category: str | None
    price: Decimal | None
    quantity: int
    order: str | None

    @property
    def day(self) -> date:
        return self.at.date()

    @property
    def paid(self) -> Decimal:
        return (self.price or Decimal(0)) * self.quantity if self.kind == "purchase" else Decimal(0)

    @property
    def refunded(self) -> Decimal:
        return (self.price or Decimal(0)) * self.quantity if self.kind == "refund" else Decimal(0)


def read(lines: Iterable[bytes]) -> list[Line]:
    found = []
    for line in lines:
        event = json.loads(line, parse_float=Decimal, parse_int=Decimal)
        price = event.get("price")
        found.append(
            Line(
                at=datetime.fromisoformat(event["timestamp"]).astimezone(UTC),
                user=str(event["user_id"]),
                kind={"cart": "add_to_cart"}.get(event["event_type"], event["event_type"]),
                product=event.get("product_id"),
                category=event.get("product_category"),
                price=None if price is None else Decimal(price),
                quantity=int(event.get("quantity") or 1),
                order=event.get("order_id"),
            )
        )
    return found


def rate(part: int, whole: int) -> Decimal:
    if not whole:
        return Decimal("0.00")
    return (Decimal(part) * 100 / whole).quantize(CENT, ROUND_HALF_EVEN)


def money(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"), ROUND_HALF_EVEN)


def _sales(lines: list[Line]) -> dict[str, Decimal]:
    revenue, refunds = (
        sum((getattr(line, name) for line in lines), Decimal(0)) for name in ("paid", "refunded")
    )
    return {
        "revenue": money(revenue),
        "refunds": money(refunds),
        "net_revenue": money(revenue - refunds),
    }


def _kinds(lines: list[Line], kind: str) -> int:
    return sum(1 for line in lines if line.kind == kind)


def products(lines: list[Line], day: date) -> list[dict[str, Any]]:
    of_product = defaultdict(list)
    for line in lines:
        if line.day == day and line.product is not None:
            of_product[line.product].append(line)
    rows: list[dict[str, Any]] = []
    for product, its in of_product.items():
        named = [(line.at, line.category) for line in its if line.category is not None]
        views, purchases = _kinds(its, "view"), _kinds(its, "purchase")
        rows.append(
            {
                "report_date": day,
                "product_id": product,
                "view_count": views,
                "product_category": max(named)[1] if named else None,
                "add_to_carts": _kinds(its, "add_to_cart"),
                "purchases": purchases,
                "quantity": sum(line.quantity for line in its if line.kind == "purchase"),
                **_sales(its),
                "users": len({line.user for line in its}),
                "buyers": len({line.user for line in its if line.kind == "purchase"}),
                "conversion_rate": rate(purchases, views),
            }
        )
    rows.sort(key=lambda row: (-row["view_count"], row["product_id"]))
    return [{**row, "rank": number} for number, row in enumerate(rows, start=1)]


def categories(lines: list[Line], day: date) -> list[dict[str, Any]]:
    of_category = defaultdict(list)
    for line in lines:
        if line.day == day and line.kind in ("view", "add_to_cart", "purchase", "refund"):
            of_category[line.category or "unknown"].append(line)
    return [
        {
            "report_date": day,
            "category": category,
            "views": _kinds(its, "view"),
            "purchases": _kinds(its, "purchase"),
            "conversion_rate": rate(_kinds(its, "purchase"), _kinds(its, "view")),
            "add_to_carts": _kinds(its, "add_to_cart"),
            **_sales(its),
            "users": len({line.user for line in its if line.kind != "refund"}),
        }
        for category, its in of_category.items()
    ]


def summary(lines: list[Line], day: date, gap: timedelta) -> dict[str, Any]:
    """The day's row, but for what is said of bots."""
    todays = [line for line in lines if line.day == day]
    users = {line.user for line in todays}
    buyers = {line.user for line in todays if line.kind == "purchase"}
    orders = {
        (line.user, line.order or line.at.replace(second=0, microsecond=0))
        for line in todays
        if line.kind == "purchase"
    }
    sales = _sales(todays)
    visits = [visit for visit in _visits(lines, gap) if visit[0].day == day]
    bounced = sum(1 for visit in visits if len(visit) == 1)
    converted = sum(1 for visit in visits if _kinds(visit, "purchase"))
    return {
        "report_date": day,
        "total_events": len(todays),
        "buyer_count": len(buyers),
        "window_shopper_count": len(users - buyers),
        "buyer_rate": rate(len(buyers), len(users)),
        "users": len(users),
        "sessions": len(visits),
        "bounced_sessions": bounced,
        "bounce_rate": rate(bounced, len(visits)),
        "views": _kinds(todays, "view"),
        "add_to_carts": _kinds(todays, "add_to_cart"),
        "purchases": _kinds(todays, "purchase"),
        "orders": len(orders),
        **sales,
        "average_order_value": money(sales["revenue"] / len(orders)) if orders else None,
        "converted_sessions": converted,
        "conversion_rate": rate(converted, len(visits)),
    }


def hours(lines: list[Line], gap: timedelta) -> list[dict[str, Any]]:
    """The rows of all hours with an event, in order."""
    first_bought: dict[Any, datetime] = {}
    for line in lines:
        if line.kind == "purchase":
            order = (line.user, line.order or line.at.replace(second=0, microsecond=0), line.day)
            first_bought[order] = min(line.at, first_bought.get(order, line.at))
    visits = _visits(lines, gap)
    found = []
    for start in sorted({_hour(line.at) for line in lines}):
        its = [line for line in lines if _hour(line.at) == start]
        started = [visit for visit in visits if _hour(visit[0].at) == start]
        converted = sum(1 for visit in started if _kinds(visit, "purchase"))
        found.append(
            {
                "report_date": start.date(),
                "hour_start": start,
                "total_events": len(its),
                "users": len({line.user for line in its}),
                "sessions": len(started),
                "converted_sessions": converted,
                "conversion_rate": rate(converted, len(started)),
                "views": _kinds(its, "view"),
                "add_to_carts": _kinds(its, "add_to_cart"),
                "purchases": _kinds(its, "purchase"),
                "orders": sum(1 for time in first_bought.values() if _hour(time) == start),
                **_sales(its),
            }
        )
    return found


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _visits(lines: list[Line], gap: timedelta) -> list[list[Line]]:
    visits: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.user, line.at)):
        last = visits[-1][-1] if visits else None
        if last and last.user == line.user and line.at - last.at <= gap:
            visits[-1].append(line)
        else:
            visits.append([line])
    return visits


def funnel(
    lines: list[Line], day: date, window: timedelta, customers: Mapping[tuple[date, str], str]
) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Viewers, carters and purchasers per group; every view of a user is tried with every later step.

    `customers` are the RFM segments by day and user.
    """
    of_user = defaultdict(list)
    for line in lines:
        if line.kind in ("view", "add_to_cart", "purchase"):
            of_user[line.user].append(line)
    reached: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for user, its in of_user.items():
        bought = any(line.kind == "purchase" and line.day == day for line in its)
        depth = _depth(its, day, window)
        if depth:
            reached["overall", "all"][user] = depth
            reached["segment", "buyer" if bought else "window_shopper"][user] = depth
            known_as = customers.get((day - timedelta(days=1), user), "not_a_customer")
            reached["rfm", known_as][user] = depth
        for category in {line.category or "unknown" for line in its}:
            depth = _depth([line for line in its if (line.category or "unknown") == category], day, window)
            if depth:
                reached["category", category][user] = depth
    return {
        group: tuple(sum(1 for depth in users.values() if depth >= step) for step in (1, 2, 3))  # type: ignore[misc]
        for group, users in reached.items()
    }


def _depth(its: list[Line], day: date, window: timedelta) -> int:
    deepest = 0
    for view in its:
        if view.kind != "view" or view.day != day:
            continue
        deepest = max(deepest, 1)
        for cart in its:
            if cart.kind != "add_to_cart" or not view.at <= cart.at <= view.at + window:
                continue
            deepest = max(deepest, 2)
            for purchase in its:
                if purchase.kind == "purchase" and cart.at <= purchase.at <= view.at + window:
                    return 3
    return deepest
