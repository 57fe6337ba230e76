"""Sums of a simulated shop's visits, in plain loops over what its simulator knows: no code of the product's."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

import msgspec

from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.simulator.catalogue import RATES
from clickstream_assets.simulator.shoppers import shop_events
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets_tests.analytics.by_hand import Line, money

from .judge import events_of, kind

_STEPS = ("add_to_cart", "remove_from_cart", "purchase")


@dataclass(frozen=True)
class Act(Line):
    """An event of a shopper: `user` is the person that it counts for, `shopper` who it really was."""

    event_id: str
    shopper: str
    anonymous_id: str | None
    is_named: bool

    @property
    def ids(self) -> dict[str, Any]:
        """Return what the rule of persons reads."""
        named = self.shopper if self.is_named else None
        return {"event_time": self.at, "event_id": self.event_id, "user_id": named,
                "anonymous_id": self.anonymous_id, "session_id": None}  # fmt: skip


def acts(traffic: Traffic) -> list[Act]:
    """Return all that shoppers do, in order, at the shop's time and in its currency; `user` is the shopper."""
    return [act for occurrence in shop_events(traffic) for act in _acts_of(occurrence, traffic.zone)]


def _acts_of(occurrence: Any, zone: tzinfo) -> Iterator[Act]:
    record = json.loads(msgspec.json.encode(occurrence.event), parse_float=Decimal)
    for event in events_of(record):
        worth = RATES.get(event.get("currency"), Decimal(1))
        price = event.get("price")
        shopper = f"user_{occurrence.person}"
        yield Act(
            at=(EPOCH + occurrence.stamp * MICROSECOND).astimezone(zone),
            user=shopper,
            kind=kind(event),
            product=event.get("product_id"),
            category=event.get("product_category"),
            price=None if price is None else abs(price) * worth,
            quantity=abs(event.get("quantity", 1)),
            order=event.get("order_id"),
            event_id=event["event_id"],
            shopper=shopper,
            anonymous_id=event.get("anonymous_id"),
            is_named="user_id" in event,
        )


def unknowable(all_acts: Iterable[Act], lookback: timedelta) -> set[str]:
    """Return the ids of the events of which nobody can tell from their ids whose they are.

    They have no user id and are on a device on which nobody logs in, or the first time only after the lookback; or on
    one that somebody else uses as well, while it was not they who logged in last (or first, if nobody did before).
    """
    logins = defaultdict(list)
    for act in all_acts:
        if act.is_named and act.anonymous_id:
            logins[act.anonymous_id].append((act.at, act.shopper))
    found = set()
    for act in all_acts:
        if act.is_named or not act.anonymous_id:
            continue
        before = [login for login in logins[act.anonymous_id] if login[0] <= act.at]
        told = before[-1:] or [one for one in logins[act.anonymous_id][:1] if one[0] - act.at <= lookback]
        if [who for _, who in told] != [act.shopper]:
            found.add(act.event_id)
    return found


def visits(all_acts: Iterable[Act], gap: timedelta) -> list[tuple[Any, ...]]:
    """Return person, begin, end, events, furthest step, purchases and revenue of each visit."""
    found = []
    for user, its in _by_user(all_acts).items():
        visit: list[Act] = []
        for act in [*its, None]:
            if visit and (act is None or act.at - visit[-1].at > gap):
                kinds = [one.kind for one in visit]
                step = next((step for step in ("purchase", "add_to_cart") if step in kinds), None)
                step = step or ("view" if {"view", "click"} & set(kinds) else "none")
                revenue = money(sum((one.paid for one in visit), Decimal(0)))
                bought = kinds.count("purchase")
                found.append((user, visit[0].at, visit[-1].at, len(visit), step, bought, revenue))
                visit = []
            if act:
                visit.append(act)
    return sorted(found)


def _by_user(all_acts: Iterable[Act]) -> dict[str, list[Act]]:
    found = defaultdict(list)
    for act in sorted(all_acts, key=lambda act: (act.at, act.event_id)):
        found[act.user].append(act)
    return found


@dataclass
class _Cart:
    user: str
    opened_at: datetime
    last_at: datetime
    content: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    bought: list[tuple[str, int, Decimal]] = field(default_factory=list)
    purchased_at: datetime | None = None
    order: str | None = None
    was_left: bool = False

    def row(self, as_of: datetime, left_after: timedelta) -> tuple[Any, ...]:
        lines = self.bought or [(product, *its) for product, its in self.content.items()]
        if self.purchased_at:
            state = "recovered" if self.was_left else "converted"
        elif not self.content:
            state = "emptied"
        else:
            state = "abandoned" if as_of - self.last_at >= left_after else "open"
        value = money(sum((units * price for _, units, price in lines), Decimal(0)))
        products = sorted({product for product, *_ in lines})
        return self.user, self.opened_at, state, products, value, self.purchased_at, self.order


def carts(all_acts: list[Act], left_after: timedelta = timedelta(days=1)) -> list[tuple[Any, ...]]:
    """Return person, opening, state, products, value, purchase and order of each cart; none lives for 30 days."""
    as_of = max(act.at for act in all_acts)
    found = []
    for user, its in _by_user(act for act in all_acts if act.kind in _STEPS).items():
        cart: _Cart | None = None
        last_bought: _Cart | None = None
        for act in sorted(its, key=lambda act: (act.at, _STEPS.index(act.kind), act.event_id)):
            product = act.product
            assert product
            assert act.price is not None
            if act.kind == "purchase" and not (cart and product in cart.content):
                if last_bought and act.order == last_bought.order and product in last_bought.content:
                    last_bought.bought.append((product, act.quantity, act.price))
                continue
            if act.kind == "remove_from_cart" and not (cart and product in cart.content):
                continue
            if cart is None:
                cart = _Cart(user, act.at, act.at)
                found.append(cart)
            cart.was_left |= act.at - cart.last_at >= left_after
            cart.last_at = act.at
            if act.kind == "add_to_cart":
                units = cart.content.get(product, (0, act.price))[0]
                cart.content[product] = (units + act.quantity, act.price)
            elif act.kind == "remove_from_cart":
                units, price = cart.content.pop(product)
                if units > act.quantity:
                    cart.content[product] = (units - act.quantity, price)
                cart = cart if cart.content else None
            else:
                cart.purchased_at, cart.order = act.at, act.order
                cart.bought.append((product, act.quantity, act.price))
                last_bought, cart = cart, None
    return sorted(one.row(as_of, left_after) for one in found)


def segments(all_acts: Iterable[Act]) -> dict[tuple[date, str], tuple[str, Decimal]]:
    """Return by day and person whether they are a buyer that day, and what they paid."""
    found = defaultdict(list)
    for act in all_acts:
        found[act.day, act.user].append(act)
    return {
        key: (
            "buyer" if any(act.kind == "purchase" for act in its) else "window_shopper",
            money(sum((act.paid for act in its), Decimal(0))),
        )
        for key, its in found.items()
    }
