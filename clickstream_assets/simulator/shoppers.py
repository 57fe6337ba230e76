"""People in a shop: visits with human gaps, tastes, carts that outlive a visit, funnels, flash sales, and robots.

A visit is planned whole when it begins; the plans of all open visits are merged in stream time.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from heapq import heappop, heappush
from itertools import accumulate, count
from math import inf
from random import Random
from typing import NamedTuple

import msgspec

from clickstream_assets.catalogue.units import HOUR, MINUTE, SECOND
from clickstream_assets.simulator.catalogue import CATEGORIES, CURRENCY, ROBOTS, Catalogue, Shopper
from clickstream_assets.simulator.traffic import Clock, Occurrence, Traffic, to_datetime

# Together they give about 70 views, 20 additions to a cart and 10 purchases in 100 events.
_MORE_LOOKS = 5.0
_SEARCH_FIRST = 0.03
_CLICK_FIRST = 0.03
_ADD_TO_CART = 0.38
_AGAINST_TASTE = 0.12
_REMOVE_ONE = 0.10
_CART_EXPIRES = 0.5
_LOOK_AGAIN_AT_CART = 0.5
_QUANTITIES = (1,) * 17 + (2, 2, 3)

# Median 15 s, mean 25 s, and one gap in 40 longer than 100 s.
_GAP_LOG_SECONDS = (2.7, 1.0)
_LONGEST_GAP = 8 * MINUTE
_LAST_LOOK_AFTER = 25 * MINUTE
_SHORTEST_REST = MINUTE

_CAMPAIGNS = ("newsletter", "spring_sale", "search_ads", "social_ads", "affiliate")
_WITH_CAMPAIGN = 0.15

# Of those who come, at least 86 % are in one window of ten minutes: more than the hundred views that an alert needs,
# and fewer than its five purchases.
_SALE_CAMPAIGN = "flash_sale"
_SALE_VISITS = 160
_SALE_MEAN_SECONDS = 150
_SALE_STOCK = 3
_SALE_BUYS = 0.5
_SALE_LOOKS_AGAIN = 0.3

# A robot with a browser's name gives itself away by its pace: about 220 views a minute.
_DISGUISED = 0.25

PERSON_EVENTS_PER_VISIT = 8.9
ROBOT_EVENTS_PER_VISIT = 75.0
PERSON_SECONDS_PER_EVENT = 40.0
"""About how long a person takes for an event, the rest between visits included."""


class ShopEvent(msgspec.Struct, omit_defaults=True):
    """An event of the shop; `price` is for one unit and carries two decimals."""

    event_id: str
    event_type: str
    user_id: str
    timestamp: datetime
    session_id: str
    product_id: str | None = None
    product_category: str | None = None
    brand: str | None = None
    price: msgspec.Raw | None = None
    currency: str | None = None
    quantity: int | None = None
    order_id: str | None = None
    query: str | None = None
    user_agent: str | None = None
    campaign: str | None = None
    consent: bool | None = None
    properties: dict[str, str] | None = None


class _Visit(NamedTuple):
    shopper: Shopper
    session_id: str
    user_agent: str
    campaign: str | None


class _Step(NamedTuple):
    """One event of a visit's plan; `product` is an index, also of what a search looks for."""

    at: int
    event_type: str
    product: int
    quantity: int | None = None
    order_id: str | None = None


def shop_events(traffic: Traffic, clock: Clock | None = None) -> Iterator[Occurrence]:
    """Make events of the shop's visitors in stream-time order, each when it is asked for.

    The last visits may run past the end of the traffic's time, by less than an hour.

    Args:
        traffic: What to make.
        clock: Stamps the events; without it they carry stream time.
    """
    return _Shop(traffic).events(clock)


class _Shop:
    """The visits that are open, and what outlives them: carts and who is busy until when."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._random = Random(f"{traffic.seed}:shoppers")
        self._catalogue = Catalogue(traffic.products)
        self._robots = _robot_count(traffic)
        people = (traffic.users - self._robots) or traffic.users
        # Some shoppers come often and most seldom, whatever their number.
        habits = [(rank + 5) ** -0.4 for rank in range(people)]
        Random("habits").shuffle(habits)
        self._visitors = range(1, people + 1)
        self._habits = list(accumulate(habits))
        self._shopper = cache(self._catalogue.shopper)
        self._carts: dict[int, dict[int, int]] = {}
        self._busy_until: dict[int, int] = {}
        self._plan: list[tuple[int, int, _Visit, _Step]] = []
        self._planned = 0
        self._visits = 0
        self._orders = 0

    def events(self, clock: Clock | None) -> Iterator[Occurrence]:
        limit = self._traffic.events
        run_id = self._traffic.run_id
        plan = self._plan
        next_visit = self._traffic.start_microseconds
        sales = self._sales()
        next_sale = next(sales, inf)
        made = 0
        while limit is None or made < limit:
            if (limit is None or self._planned < limit) and (
                not plan or min(next_visit, next_sale) <= plan[0][0]
            ):
                if next_sale <= next_visit:
                    self._open_sale(int(next_sale))
                    next_sale = next(sales, inf)
                else:
                    self._open_visit(next_visit)
                    next_visit += self._until_next_visit(next_visit)
                continue
            at, _, visit, step = heappop(plan)
            stamp = clock() if clock else at
            made += 1
            yield Occurrence(at, stamp, self._event(f"{run_id}-{made:09d}", stamp, visit, step))

    def _event(self, event_id: str, stamp: int, visit: _Visit, step: _Step) -> ShopEvent:
        product = self._catalogue.products[step.product]
        event = ShopEvent(
            event_id,
            step.event_type,
            visit.shopper.user_id,
            to_datetime(stamp),
            visit.session_id,
            user_agent=visit.user_agent,
            campaign=visit.campaign,
            consent=visit.shopper.consent,
        )
        if step.event_type == "search":
            event.query = f"{product.brand} {product.category}".lower()
            return event
        event.product_id = product.product_id
        event.product_category = product.category
        event.brand = product.brand
        event.price = product.price
        event.currency = CURRENCY
        event.quantity = step.quantity
        event.order_id = step.order_id
        if step.event_type == "click":
            event.properties = {"element": "search_result" if visit.campaign is None else "campaign_teaser"}
        return event

    def _until_next_visit(self, now: int) -> int:
        robots = self._traffic.bots
        per_visit = (1 - robots) * PERSON_EVENTS_PER_VISIT + robots * ROBOT_EVENTS_PER_VISIT
        if self._traffic.events is None:
            mean = per_visit / self._traffic.rate * SECOND
        else:
            # Steered by what is left of both, so that the wanted number fits the wanted time.
            end = self._traffic.start_microseconds + int(self._traffic.seconds * SECOND)
            visits = max(1.0, (self._traffic.events - self._planned) / per_visit)
            mean = max(0, end - now) / visits
        return int(self._random.expovariate(1.0) * mean)

    def _open_visit(self, at: int) -> None:
        random = self._random
        self._visits += 1
        is_robot = random.random() < self._traffic.bots
        number = self._robot() if is_robot else self._person(at)
        at = max(at, self._busy_until.get(number, at))
        shopper = self._shopper(number)
        is_disguised = is_robot and random.random() < _DISGUISED
        visit = _Visit(
            shopper,
            f"{self._traffic.run_id}-s{self._visits}",
            random.choice(ROBOTS) if is_robot and not is_disguised else shopper.user_agent,
            random.choice(_CAMPAIGNS) if not is_robot and random.random() < _WITH_CAMPAIGN else None,
        )
        steps = self._crawl(at, is_disguised) if is_robot else self._shop_around(at, number, shopper)
        self._plan_visit(number, visit, steps)

    def _plan_visit(self, number: int, visit: _Visit, steps: list[_Step]) -> None:
        for step in steps:
            self._planned += 1
            heappush(self._plan, (step.at, self._planned, visit, step))
        self._busy_until[number] = steps[-1].at + _SHORTEST_REST

    def _sales(self) -> Iterator[int]:
        """When flash sales begin."""
        hours = self._traffic.flash_sale_hours
        if hours:
            begin = self._traffic.start_microseconds + int(hours / 2 * HOUR)
            yield from count(begin, int(hours * HOUR))

    def _open_sale(self, start: int) -> None:
        """Plan the visits of all who come for one product; most are too late for one of the few."""
        random = self._random
        product = int(random.random() * self._traffic.products)
        category = CATEGORIES.index(self._catalogue.products[product].category)
        stock = _SALE_STOCK
        for delay in sorted(random.expovariate(1 / _SALE_MEAN_SECONDS) for _ in range(_SALE_VISITS)):
            number = self._fan(category, start)
            at = max(start + int(delay * SECOND), self._busy_until.get(number, 0))
            self._visits += 1
            shopper = self._shopper(number)
            visit = _Visit(
                shopper, f"{self._traffic.run_id}-s{self._visits}", shopper.user_agent, _SALE_CAMPAIGN
            )
            steps = [_Step(at, "view", product)]
            at += self._gap()
            if stock and random.random() < _SALE_BUYS:
                stock -= 1
                steps.append(_Step(at, "add_to_cart", product, 1))
                steps += self._order(at + self._gap(), {product: 1})
            elif random.random() < _SALE_LOOKS_AGAIN:
                steps.append(_Step(at, "view", product))
            self._plan_visit(number, visit, steps)

    def _fan(self, category: int, at: int) -> int:
        """Number of a shopper who likes a category, if there is one among some who are not in the shop."""
        number = 0
        for _ in range(8):
            number = self._person(at)
            if category in self._shopper(number).favourites:
                break
        return number

    def _person(self, at: int) -> int:
        """Number of a shopper who is not in the shop, or of one who is when all that were asked are."""
        number = 0
        for _ in range(8):
            number = self._random.choices(self._visitors, cum_weights=self._habits)[0]
            if self._busy_until.get(number, at) <= at:
                break
        return number

    def _robot(self) -> int:
        return self._traffic.users - int(self._random.random() * self._robots)

    def _shop_around(self, at: int, number: int, shopper: Shopper) -> list[_Step]:
        random = self._random
        cart = self._carts.setdefault(number, {})
        if cart and random.random() < _CART_EXPIRES:
            cart.clear()
        steps: list[_Step] = []
        for product in list(cart):
            if random.random() < _LOOK_AGAIN_AT_CART:
                steps.append(_Step(at, "view", product))
                at += self._gap()
        last_look = at + _LAST_LOOK_AFTER
        for _ in range(1 + int(random.expovariate(1 / _MORE_LOOKS))):
            product = self._pick(shopper)
            first = random.random()
            if first < _SEARCH_FIRST:
                steps.append(_Step(at, "search", product))
                at += self._gap()
            elif first < _SEARCH_FIRST + _CLICK_FIRST:
                steps.append(_Step(at, "click", product))
                at += SECOND
            steps.append(_Step(at, "view", product))
            at += self._gap()
            if product not in cart and random.random() < _ADD_TO_CART:
                cart[product] = random.choice(_QUANTITIES)
                steps.append(_Step(at, "add_to_cart", product, cart[product]))
                at += self._gap()
            if at > last_look:
                break
        if cart and random.random() < _REMOVE_ONE:
            product = random.choice(list(cart))
            steps.append(_Step(at, "remove_from_cart", product, cart.pop(product)))
            at += self._gap()
        if cart and random.random() < shopper.checkout_rate:
            steps += self._order(at, cart)
            cart.clear()
        return steps

    def _order(self, at: int, cart: dict[int, int]) -> list[_Step]:
        """One order; its lines are a few milliseconds apart and of different products."""
        self._orders += 1
        order_id = f"{self._traffic.run_id}-o{self._orders}"
        return [
            _Step(at + 5_000 * line, "purchase", product, quantity, order_id)
            for line, (product, quantity) in enumerate(cart.items())
        ]

    def _crawl(self, at: int, is_disguised: bool) -> list[_Step]:
        random = self._random
        pages, shortest, longest = (
            (random.randint(160, 260), 0.15, 0.4) if is_disguised else (random.randint(20, 60), 1.0, 4.0)
        )
        steps = []
        for _ in range(pages):
            steps.append(_Step(at, "view", int(random.random() * self._traffic.products)))
            at += int(random.uniform(shortest, longest) * SECOND)
        return steps

    def _pick(self, shopper: Shopper) -> int:
        random = self._random
        if random.random() < _AGAINST_TASTE:
            return self._catalogue.any_product(random)
        favourites = shopper.favourites
        # The power gives the dearest of two categories 63 % of the looks, of three 48 %.
        return self._catalogue.product_of(favourites[int(random.random() ** 1.5 * len(favourites))], random)

    def _gap(self) -> int:
        return min(_LONGEST_GAP, int(self._random.lognormvariate(*_GAP_LOG_SECONDS) * SECOND))


def _robot_count(traffic: Traffic) -> int:
    """Robots are the last of the users, so that no person's visits mingle with theirs."""
    return max(1, round(traffic.users * traffic.bots)) if traffic.bots else 0
