"""Counts of what was made, by the simulator's own knowledge of its shoppers, for tests to compare."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf

import msgspec

from clickstream_assets.catalogue.units import MICROSECOND
from clickstream_assets.simulator.catalogue import CURRENCY, RATES
from clickstream_assets.simulator.shoppers import Item, ShopEvent
from clickstream_assets.simulator.traffic import Occurrence, Traffic

# Amounts are counted in hundredths of a cent, which the rates have no parts of.
_UNITS = 10_000
_WORTH = {currency: int(rate * 100) for currency, rate in RATES.items()} | {CURRENCY: 100}

_OUTCOMES = ("events", "duplicates", "conflicts", "rejected")


@dataclass
class Made:
    """Counts of the records made so far; with `seed` and `start` and the same options the same is made again.

    Attributes:
        seed: Of the random choices.
        start: Beginning of the traffic.
        sent: Records.
        items: Events, and repetitions, contradictions and broken ones of such: the sum of the next four counts, and
            more than `sent` where records have several.
        events: New events. All further counts but `rejected_by_kind` are of these alone.
        duplicates: Events once more.
        conflicts: Events with the id of another.
        rejected: Records that are no event.
        late: Events that are sent after later ones.
        users: Persons as they can be known by their ids, robots too: users, and visitors who never log in, or only
            later than the lookback.
        buyers: Of those, who purchased.
        persons: Shoppers as the simulator knows them, whatever their ids.
        logins: Of those with an anonymous id, who were logged in from their first event on (`early`), logged in later
            (`late`) or did not (`never`).
        devices: Anonymous ids.
        shared_devices: Of those, who were used by several shoppers.
        orders: Orders.
        guest_orders: Of those, who have no user id.
        foreign_orders: Of those, who are in another currency.
        unit_orders: Of those, who have a row for each of several units.
        several_items: Records of several events.
        revenue: Sum of the purchases in the shop's currency.
        refunds: Sum of what was given back.
        by_type: Events by their type; a purchase of a negative price or quantity is a refund.
        rejected_by_kind: Broken records by what is wrong with them.
    """

    seed: int
    start: datetime
    sent: int = 0
    items: int = 0
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    late: int = 0
    users: int = 0
    buyers: int = 0
    persons: int = 0
    logins: dict[str, int] = field(default_factory=dict)
    devices: int = 0
    shared_devices: int = 0
    orders: int = 0
    guest_orders: int = 0
    foreign_orders: int = 0
    unit_orders: int = 0
    several_items: int = 0
    revenue: float = 0.0
    refunds: float = 0.0
    by_type: dict[str, int] = field(default_factory=dict)
    rejected_by_kind: dict[str, int] = field(default_factory=dict)


class _Device:
    """Use of an anonymous id: when first without a user, and the logins on it."""

    __slots__ = ("by", "logins", "unnamed_from", "users")

    def __init__(self) -> None:
        self.unnamed_from: float = inf
        self.users: dict[str, int] = {}
        self.by: set[int | None] = set()
        # Of a shared one, where it matters who was the last.
        self.logins: list[tuple[int, str]] = []


class _Orders:
    """Orders by what is special about them."""

    def __init__(self) -> None:
        self.all: set[str] = set()
        self.of_guests: set[str] = set()
        self.foreign: set[str] = set()
        self.by_unit: set[str] = set()
        self.products: set[tuple[str, str | None]] = set()


class Tally:
    """Running counts of what is handed out.

    Args:
        traffic: What is made.
        lookback: Time before its first login that a visitor is counted as the user.
        max_users: The most users that an anonymous id can have and be counted as theirs.
    """

    def __init__(self, traffic: Traffic, lookback: timedelta, max_users: int) -> None:
        self._traffic = traffic
        self._lookback = lookback // MICROSECOND
        self._max_users = max_users
        self._counts: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._users: set[str] = set()
        self._buyers: set[str] = set()
        self._devices: dict[str, _Device] = {}
        # Of a shopper with an anonymous id: when first with a user id, and when first without.
        self._seen: dict[int, list[float]] = {}
        self._persons: set[int] = set()
        self._guests: list[tuple[str, int]] = []
        self._orders = _Orders()
        self._revenue = self._refunds = 0

    def count(self, occurrence: Occurrence, *, is_late: bool) -> None:
        """Count a record of new events."""
        event = occurrence.event
        counts = self._counts
        counts["sent"] += 1
        user_id = event.user_id
        if user_id is not None:
            self._users.add(user_id)
        if occurrence.person is not None:
            self._persons.add(occurrence.person)
        if not isinstance(event, ShopEvent):
            events = 1
            self._types[event.event_type] += 1
            if event.event_type == "purchase":
                self._buyers.add(user_id)
        else:
            events = event.events
            if event.anonymous_id is not None:
                self._count_device(occurrence, event, event.anonymous_id)
            event_type = event.event_type
            if event_type in ("purchase", "refund"):
                event_type = self._count_money(occurrence, event)
            self._types[event_type] += events
            if event.items:
                counts["several_items"] += 1
        counts["events"] += events
        if is_late:
            counts["late"] += events

    def count_again(self, outcome: str, events: int) -> None:
        """Count a record that repeats or contradicts events; `outcome` is `duplicates` or `conflicts`."""
        self._counts["sent"] += 1
        self._counts[outcome] += events

    def count_rejected(self, kind: str) -> None:
        """Count a record that is no event."""
        self._counts["sent"] += 1
        self._counts["rejected"] += 1
        self._kinds[kind] += 1

    def _count_device(self, occurrence: Occurrence, event: ShopEvent, anonymous_id: str) -> None:
        device = self._devices.get(anonymous_id)
        if device is None:
            device = self._devices[anonymous_id] = _Device()
        stamp, user_id, person = occurrence.stamp, event.user_id, occurrence.person
        device.by.add(person)
        if user_id is None:
            device.unnamed_from = min(device.unnamed_from, stamp)
        else:
            device.users[user_id] = min(stamp, device.users.get(user_id, stamp))
            if occurrence.shares_device:
                device.logins.append((stamp, user_id))
        if person is not None:
            seen = self._seen.setdefault(person, [inf, inf])
            place = user_id is None
            seen[place] = min(seen[place], stamp)

    def _count_money(self, occurrence: Occurrence, event: ShopEvent) -> str:
        """Count a purchase, or what is one as it is written; return what it is."""
        lines = event.items or (event,)
        paid = sum(_amount(line, event.currency) for line in lines)
        if event.event_type == "refund" or paid < 0:
            self._refunds += abs(paid)
            return "refund"
        self._revenue += paid
        orders, order_id = self._orders, event.order_id
        assert order_id
        orders.all.add(order_id)
        if event.user_id is None:
            orders.of_guests.add(order_id)
            assert event.anonymous_id
            self._guests.append((event.anonymous_id, occurrence.stamp))
        else:
            self._buyers.add(event.user_id)
        if event.currency != CURRENCY:
            orders.foreign.add(order_id)
        for line in lines:
            its = (order_id, line.product_id)
            if its in orders.products:
                orders.by_unit.add(order_id)
            orders.products.add(its)
        return "purchase"

    @property
    def items(self) -> int:
        """Number of events, repeated, contradicting and broken ones too."""
        return sum(self._counts[name] for name in _OUTCOMES)

    def made(self) -> Made:
        """Return the counts so far."""
        counts = self._counts
        visitors = {
            anonymous_id
            for anonymous_id, device in self._devices.items()
            if device.unnamed_from < inf and self._user_of(device, device.unnamed_from) is None
        }
        buyers = set(self._buyers)
        for anonymous_id, stamp in self._guests:
            user = self._user_of(self._devices[anonymous_id], stamp)
            buyers.add(user or f"anonymous {anonymous_id}")
        logins = Counter(
            "never" if named == inf else "early" if named <= unnamed else "late"
            for named, unnamed in self._seen.values()
        )
        orders = self._orders
        return Made(
            seed=self._traffic.seed,
            start=self._traffic.start,
            items=self.items,
            **{name: counts[name] for name in ("sent", *_OUTCOMES, "late", "several_items")},
            users=len(self._users) + len(visitors),
            buyers=len(buyers),
            persons=len(self._persons),
            logins={when: logins[when] for when in ("early", "late", "never")},
            devices=len(self._devices),
            shared_devices=sum(len(device.by) > 1 for device in self._devices.values()),
            orders=len(orders.all),
            guest_orders=len(orders.of_guests),
            foreign_orders=len(orders.foreign),
            unit_orders=len(orders.by_unit),
            revenue=self._revenue / _UNITS,
            refunds=self._refunds / _UNITS,
            by_type=dict(sorted(self._types.items())),
            rejected_by_kind=dict(sorted(self._kinds.items())),
        )

    def _user_of(self, device: _Device, stamp: float) -> str | None:
        """Return the user that an event without one is of: that of the last login, or of the first if it is soon."""
        if not device.users or len(device.users) > self._max_users:
            return None
        first_at, first = min((at, user) for user, at in device.users.items())
        if first_at > stamp:
            return first if first_at - stamp <= self._lookback else None
        return max((login for login in device.logins if login[0] <= stamp), default=(first_at, first))[1]


def _amount(line: ShopEvent | Item, currency: str | None) -> int:
    """Return price times quantity in the shop's currency, in its ten-thousandths."""
    assert isinstance(line.price, msgspec.Raw)
    assert currency
    cents = int(bytes(line.price).replace(b".", b""))
    return cents * _WORTH[currency] * (1 if line.quantity is None else line.quantity)
