"""People in a shop: visits with human gaps, tastes, carts that outlive a visit, funnels, flash sales, and robots.

A visit is planned whole when it begins; the plans of all open visits are merged in stream time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from heapq import heappop, heappush
from itertools import accumulate, count
from math import inf
from random import Random
from typing import Literal, NamedTuple

import msgspec

from clickstream_assets.catalogue.units import DAY, HOUR, MINUTE, SECOND
from clickstream_assets.simulator.catalogue import (
    CATEGORIES,
    CURRENCY,
    RATES,
    ROBOTS,
    Catalogue,
    Shopper,
    cents_in,
    price_of,
)
from clickstream_assets.simulator.habits import Habits
from clickstream_assets.simulator.identities import Identities
from clickstream_assets.simulator.traffic import Clock, Occurrence, Traffic, to_datetime

# Together they give about 70 views, 20 additions to a cart and 10 purchases in 100 events.
_MORE_LOOKS = 5.0
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

_SEES_NO_MORE = 0.15
# Of the visits of who logs in late: most stay logged in until the next, and of the others not all log in at all.
_STAYS_LOGGED_IN = 0.6
_LOGS_IN = 0.4

_REFUND_AFTER_DAYS = (1.0, 5.0)
_REFUND_OF_A_PART = 0.25
_REFUND_IS_NEGATIVE_PURCHASE = 0.3

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


def _events_per_visit(habits: Habits) -> float:
    """Return how many events a person's visit has, about: of six looks, and half an order of two products."""
    of_looks = 6 * (5.5 * habits.impressions + habits.wishlists + habits.searches - 0.03)
    of_orders = 0.45 * habits.checkouts * (1 + habits.items) + 0.9 * habits.refunds
    whole = PERSON_EVENTS_PER_VISIT + of_looks + of_orders
    return habits.page_views + (1 - habits.page_views * _SEES_NO_MORE) * whole + habits.custom


class Item(msgspec.Struct, omit_defaults=True):
    """A product of a record that has several."""

    product_id: str
    product_category: str
    brand: str
    price: msgspec.Raw
    quantity: int | None = None
    order_line: str | None = None


class ShopEvent(msgspec.Struct, omit_defaults=True):
    """A record of the shop: an event, or one for each of `items`; `price` is for one unit and has two decimals."""

    event_id: str
    event_type: str
    timestamp: datetime
    user_id: str | None = None
    anonymous_id: str | None = None
    session_id: str | None = None
    event_name: str | None = None
    product_id: str | None = None
    product_category: str | None = None
    brand: str | None = None
    price: msgspec.Raw | None = None
    currency: str | None = None
    quantity: int | None = None
    order_id: str | None = None
    order_line: str | None = None
    query: str | None = None
    user_agent: str | None = None
    campaign: str | None = None
    consent: bool | None = None
    properties: dict[str, str] | None = None
    items: list[Item] | None = None

    @property
    def events(self) -> int:
        """Number of events that the record has."""
        return len(self.items) if self.items else 1


@dataclass(slots=True)
class _Visit:
    """Ids and all else that the events of a visit have in common.

    `named_from` is the moment from which they carry the user id.
    """

    person: int
    shopper: Shopper
    session_id: str | None
    user_agent: str | None
    campaign: str | None
    anonymous_id: str | None
    named_from: float
    is_robot: bool
    shares_device: bool
    clock: Literal["utc", "with offset", "without offset"]


class _Order(NamedTuple):
    order_id: str
    currency: str


class _Line(NamedTuple):
    """A product (its index) of a record of several, and of an order, of which several lines can be of one product."""

    product: int
    quantity: int | None = None
    order_line: str | None = None


class _Step(NamedTuple):
    """One record of a visit's plan; `product` is an index, also of what a search looks for.

    `cents` are of one unit, in the order's currency, where they are not the product's price. `lines` are those of a
    record with several products.
    """

    at: int
    event_type: str
    product: int | None = None
    quantity: int | None = None
    order: _Order | None = None
    order_line: str | None = None
    cents: int | None = None
    lines: tuple[_Line, ...] = ()


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
        self._mix = traffic.habits
        self._zone = traffic.zone
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
        self._identities = Identities(traffic.habits, people)
        self._logged_in: dict[str, int] = {}
        self._carts: dict[int, dict[int, int]] = {}
        # Of a household, because a device is in one hand at a time.
        self._busy_until: dict[int, int] = {}
        self._plan: list[tuple[int, int, _Visit, _Step]] = []
        self._steps = 0
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
            event = self._event(f"{run_id}-{made + 1:09d}", stamp, visit, step)
            if event.items and limit is not None:
                del event.items[limit - made :]
            made += event.events
            person = None if visit.is_robot else visit.person
            yield Occurrence(at, stamp, event, person, visit.shares_device)

    def _event(self, event_id: str, stamp: int, visit: _Visit, step: _Step) -> ShopEvent:
        event_type = step.event_type
        shopper = visit.shopper
        event = ShopEvent(
            event_id,
            event_type,
            to_datetime(stamp) if visit.clock == "utc" else self._local_time(stamp, visit),
            shopper.user_id if step.at >= visit.named_from else None,
            visit.anonymous_id,
            visit.session_id,
            user_agent=visit.user_agent,
            campaign=visit.campaign,
            consent=shopper.consent,
        )
        if step.order:
            event.order_id = step.order.order_id
        if step.lines:
            event.currency = step.order.currency if step.order else CURRENCY
            event.items = [self._item(line, event.currency) for line in step.lines]
            return event
        if step.product is None:
            if event_type == "custom":
                event.event_name = "newsletter_signup"
            return event
        product = self._catalogue.products[step.product]
        if event_type == "search":
            event.query = f"{product.brand} {product.category}".lower()
            return event
        event.product_id = product.product_id
        event.product_category = product.category
        event.brand = product.brand
        event.price = product.price
        event.currency = CURRENCY
        event.quantity = step.quantity
        event.order_line = step.order_line
        if step.cents is not None:
            event.price = price_of(step.cents)
        if step.order:
            event.currency = step.order.currency
        if event_type == "click":
            event.properties = {"element": "search_result" if visit.campaign is None else "campaign_teaser"}
        return event

    def _item(self, line: _Line, currency: str) -> Item:
        product = self._catalogue.products[line.product]
        price = product.price if currency == CURRENCY else price_of(cents_in(currency, product.cents))
        return Item(
            product.product_id, product.category, product.brand, price, line.quantity, line.order_line
        )

    def _local_time(self, stamp: int, visit: _Visit) -> datetime:
        """Return what the shop's clock shows; of an hour that it shows twice, the second time is told by its offset."""
        local = to_datetime(stamp).astimezone(self._zone)
        return local if visit.clock == "with offset" or local.fold else local.replace(tzinfo=None)

    def _until_next_visit(self, now: int) -> int:
        robots = self._traffic.bots
        per_visit = (1 - robots) * _events_per_visit(self._mix) + robots * ROBOT_EVENTS_PER_VISIT
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
        is_robot = random.random() < self._traffic.bots
        number = self._robot() if is_robot else self._person(at)
        at = self._free_from(number, at)
        shopper = self._shopper(number)
        is_disguised = is_robot and random.random() < _DISGUISED
        visit = self._begin_visit(
            number,
            at,
            random.choice(ROBOTS) if is_robot and not is_disguised else shopper.user_agent,
            random.choice(_CAMPAIGNS) if not is_robot and random.random() < _WITH_CAMPAIGN else None,
            is_robot=is_robot,
        )
        steps = self._crawl(at, is_disguised) if is_robot else self._shop_around(at, visit)
        self._plan_visit(visit, steps)

    def _free_from(self, number: int, at: int) -> int:
        return max(at, self._busy_until.get(self._identities.of(number).household, at))

    def _begin_visit(
        self, number: int, at: int, user_agent: str, campaign: str | None, *, is_robot: bool = False
    ) -> _Visit:
        random = self._random
        self._visits += 1
        identity = self._identities.of(number)
        device, named_from = None, 0.0
        if identity.devices:
            device = random.choice(identity.devices)
            is_logged_in = self._logged_in.get(device) == number
            stays = is_logged_in and random.random() < _STAYS_LOGGED_IN
            named_from = at if identity.login == "early" or stays else inf
        clock: Literal["utc", "with offset", "without offset"] = "utc"
        if self._happens(self._mix.local_times):
            clock = "with offset" if random.random() < 0.5 else "without offset"
        session_id = f"{self._traffic.run_id}-s{self._visits}"
        shopper = self._shopper(number)
        return _Visit(
            number,
            shopper,
            session_id,
            user_agent,
            campaign,
            device,
            named_from,
            is_robot,
            identity.shares_device,
            clock,
        )

    def _happens(self, share: float) -> bool:
        """Return whether something does of which this is the share; what never does draws no number."""
        return share > 0 and self._random.random() < share

    def _log_in(self, visit: _Visit, at: int) -> list[_Step]:
        """Name the visitor from a moment on; return what announces it."""
        device = visit.anonymous_id
        assert device
        visit.named_from = min(visit.named_from, at)
        is_new = self._logged_in.get(device) != visit.person
        self._logged_in[device] = visit.person
        return [_Step(at, "identify")] if is_new and self._happens(self._mix.identify) else []

    def _plan_visit(self, visit: _Visit, steps: list[_Step]) -> None:
        for step in steps:
            self._plan_step(visit, step)
        self._busy_until[self._identities.of(visit.person).household] = steps[-1].at + _SHORTEST_REST

    def _plan_step(self, visit: _Visit, step: _Step) -> None:
        self._steps += 1
        self._planned += len(step.lines) or 1
        heappush(self._plan, (step.at, self._steps, visit, step))

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
            at = self._free_from(number, start + int(delay * SECOND))
            visit = self._begin_visit(number, at, self._shopper(number).user_agent, _SALE_CAMPAIGN)
            steps = self._log_in(visit, at) if visit.anonymous_id and visit.named_from <= at else []
            steps.append(_Step(at, "view", product))
            at += self._gap()
            if stock and random.random() < _SALE_BUYS:
                stock -= 1
                steps.append(_Step(at, "add_to_cart", product, 1))
                steps += self._check_out(at + self._gap(), visit, {product: 1})
            elif random.random() < _SALE_LOOKS_AGAIN:
                steps.append(_Step(at, "view", product))
            self._plan_visit(visit, steps)

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
            if self._free_from(number, at) <= at:
                break
        return number

    def _robot(self) -> int:
        return self._traffic.users - int(self._random.random() * self._robots)

    def _shop_around(self, at: int, visit: _Visit) -> list[_Step]:
        random, mix = self._random, self._mix
        cart = self._carts.setdefault(visit.person, {})
        if cart and random.random() < _CART_EXPIRES:
            cart.clear()
        steps: list[_Step] = []
        if visit.anonymous_id and visit.named_from <= at:
            steps += self._log_in(visit, at)
        if self._happens(mix.page_views):
            steps.append(_Step(at, "page_view"))
            at += self._gap()
            if random.random() < _SEES_NO_MORE:
                return steps
        for product in list(cart):
            if random.random() < _LOOK_AGAIN_AT_CART:
                steps.append(_Step(at, "view", product))
                at += self._gap()
        last_look = at + _LAST_LOOK_AFTER
        logs_in_at = self._looks_before_login(visit)
        for look in range(1 + int(random.expovariate(1 / _MORE_LOOKS))):
            if look == logs_in_at:
                steps += self._log_in(visit, at)
                at += SECOND
            product = self._pick(visit.shopper)
            first = random.random()
            if first < mix.searches:
                steps.append(_Step(at, "search", product))
                at += self._gap()
            elif first < mix.searches + _CLICK_FIRST:
                steps.append(_Step(at, "click", product))
                at += SECOND
            if self._happens(mix.impressions):
                steps += self._list_with(product, at)
                at += self._gap()
            steps.append(_Step(at, "view", product))
            at += self._gap()
            if self._happens(mix.wishlists):
                steps.append(_Step(at, "add_to_wishlist", product))
                at += SECOND
            if product not in cart and random.random() < _ADD_TO_CART:
                cart[product] = random.choice(_QUANTITIES)
                steps.append(_Step(at, "add_to_cart", product, cart[product]))
                at += self._gap()
            if at > last_look:
                break
        if self._happens(mix.custom):
            steps.append(_Step(at, "custom"))
            at += self._gap()
        if cart and random.random() < _REMOVE_ONE:
            product = random.choice(list(cart))
            steps.append(_Step(at, "remove_from_cart", product, cart.pop(product)))
            at += self._gap()
        if cart and random.random() < visit.shopper.checkout_rate:
            bought = self._check_out(at, visit, cart)
            steps += bought
            if bought:
                cart.clear()
        return steps

    def _looks_before_login(self, visit: _Visit) -> int:
        """Return how many products a visitor looks at before logging in; -1 of one who does not, or is logged in."""
        if visit.named_from < inf or self._identities.of(visit.person).login != "late":
            return -1
        return self._random.choice((1, 2, 3)) if self._random.random() < _LOGS_IN else -1

    def _list_with(self, product: int, at: int) -> list[_Step]:
        """Plan a list of products, in which one is."""
        others = {self._catalogue.any_product(self._random) for _ in range(self._random.randint(2, 7))}
        return self._together(
            at, "impression", [_Line(other) for other in {product: 0} | dict.fromkeys(others)]
        )

    def _together(
        self, at: int, event_type: str, lines: list[_Line], order: _Order | None = None
    ) -> list[_Step]:
        """Plan what happens to several products at once, in one record or one for each line.

        Lines of one product are of the same moment, or they would be taken for repetitions.
        """
        if together := self._in_one_record(lines):
            return [_Step(at, event_type, order=order, lines=together)]
        places = {
            product: place for place, product in enumerate(dict.fromkeys(line.product for line in lines))
        }
        return [
            _Step(
                at + 5_000 * places[line.product],
                event_type,
                line.product,
                line.quantity,
                order,
                line.order_line,
                self._foreign_cents(line.product, order),
            )
            for line in lines
        ]

    def _in_one_record(self, lines: Iterable[_Line]) -> tuple[_Line, ...]:
        """Return the lines where they are several that become one record, else none."""
        several = tuple(lines)
        return several if len(several) > 1 and self._happens(self._mix.items) else ()

    def _foreign_cents(self, product: int, order: _Order | None) -> int | None:
        if order is None or order.currency == CURRENCY:
            return None
        return cents_in(order.currency, self._catalogue.products[product].cents)

    def _check_out(self, at: int, visit: _Visit, cart: dict[int, int]) -> list[_Step]:
        """Plan an order of all that is in the cart; nothing where the visitor would have to log in and never does."""
        mix, steps = self._mix, []
        if visit.named_from == inf and not self._happens(mix.guest_checkout):
            if self._identities.of(visit.person).login == "never":
                return []
            steps = self._log_in(visit, at)
            at += SECOND
        if self._happens(mix.checkouts):
            steps.append(_Step(at, "begin_checkout", lines=self._in_one_record(_Line(p) for p in cart)))
            at += self._gap()
        return steps + self._order(at, visit, cart)

    def _order(self, at: int, visit: _Visit, cart: dict[int, int]) -> list[_Step]:
        """Plan one order; its lines are a few milliseconds apart, but for those of one product."""
        random, mix = self._random, self._mix
        self._orders += 1
        currency = random.choice(tuple(RATES)) if self._happens(mix.foreign_currency) else CURRENCY
        order = _Order(f"{self._traffic.run_id}-o{self._orders}", currency)
        lines = [_Line(product, quantity) for product, quantity in cart.items()]
        if self._happens(mix.unit_rows):
            units = [line.product for line in lines for _ in range(line.quantity or 1)]
            is_numbered = random.random() < 0.5
            lines = [
                _Line(product, 1, str(number) if is_numbered else None)
                for number, product in enumerate(units, start=1)
            ]
        for product, quantity in cart.items():
            if self._happens(mix.refunds):
                self._send_back(at, visit, order, product, quantity)
        return self._together(at, "purchase", lines, order)

    def _send_back(self, at: int, visit: _Visit, order: _Order, product: int, quantity: int) -> None:
        """Plan the refund of a product that was ordered, as the shop's own system reports it: outside of any visit."""
        random = self._random
        at += int(random.uniform(*_REFUND_AFTER_DAYS) * DAY)
        end = self._traffic.end_microseconds
        if end is not None and at >= end:
            return
        returned = random.randint(1, quantity)
        cents = cents_in(order.currency, self._catalogue.products[product].cents)
        if quantity == 1 and random.random() < _REFUND_OF_A_PART:
            cents = max(1, cents // 2)
        event_type = "purchase" if random.random() < _REFUND_IS_NEGATIVE_PURCHASE else "refund"
        if event_type == "purchase" and random.random() < 0.5:
            cents = -cents
        elif event_type == "purchase":
            returned = -returned
        reported = replace(visit, session_id=None, user_agent=None, campaign=None)
        self._plan_step(reported, _Step(at, event_type, product, returned, order, cents=cents))

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
