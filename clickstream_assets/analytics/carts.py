"""Carts: the products that shoppers put in, across sessions, until they are bought, taken out or abandoned.

A cart opens when a product is put in while the user has none. Additions and removals change it; a removal of what
is not in it does nothing. It ends

- emptied, when nothing is left in it;
- bought, by the first order with a product that is in it. All lines of that order (the same order_id, or without
  one the same minute) of products in it are bought from it. What the order leaves behind ends with the cart, as a
  checkout does: it is neither abandoned nor carried over;
- over, after a lifetime without activity: a product that is put in later opens a new cart, and a line that comes later
  is not of the order that bought it.

It is abandoned while there is no activity for some hours, as seen at the newest event of all: the data's own clock,
not the computer's. A purchase of a product that never was in a cart concerns none.

Carts can be followed from any day on. All that later events depend on is a user's open cart and the one that was bought
last, as they were at the end of the last day with cart events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.measures import (
    MONEY_SUM,
    count_where,
    event_hash,
    fingerprint,
    rows_of,
    units,
)
from clickstream_assets.catalogue import CART_DAYS, CART_STATES, CART_STEP_NAMES, CART_STEPS, CARTS, Table
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.units import DAY, EPOCH, HOUR, MICROSECOND, MINUTE, MONEY_UNITS, SECOND
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of
from clickstream_assets.settings import Settings

ADD, REMOVE, PURCHASE = CART_EVENTS = ("add_to_cart", "remove_from_cart", "purchase")
"""The events that change carts, in the order in which those of one moment count."""

OPENED, GIVEN_UP, TAKEN_UP, BOUGHT = CART_STEP_NAMES
NOTHING = "{}"
"""State of a user who has no cart and has bought none lately."""

_CENTS = Decimal("0.0001")
_CART, _STATE = "cart", "state"


def _nullable(*fields: pa.Field) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in fields])


_SCHEMAS = {
    _CART: _nullable(*CARTS.arrow),
    _STATE: _nullable(*CART_STATES.arrow),
    **dict.fromkeys(CART_STEP_NAMES, _nullable(*CART_STEPS.arrow)),
}
FOLLOWED = pa.schema(
    [
        pa.field("what", pa.string()),
        *{field.name: field for kind in (_CART, _STATE, OPENED) for field in _SCHEMAS[kind]}.values(),
    ]
)
"""Rows of CARTS, CART_STATES and CART_STEPS, in this order of columns; `what` says which one is."""


@dataclass(frozen=True)
class CartRules:
    """Times without activity after which carts are abandoned and over, in microseconds; `as_of` since 1970.

    `clock` says which days the times are of.
    """

    as_of: int
    abandoned_after: int
    lifetime: int
    clock: ShopClock = UTC_CLOCK

    @classmethod
    def of(cls, settings: Settings, as_of: datetime) -> Self:
        """Take the rules from the settings; `as_of` is the time of the newest event."""
        return cls(
            as_of=(as_of - EPOCH) // MICROSECOND,
            abandoned_after=settings.cart_abandoned_after_hours * HOUR,
            lifetime=settings.cart_lifetime_days * DAY,
            clock=ShopClock(settings.shop_time_zone),
        )

    @property
    def text(self) -> str:
        """The settings as one text, without the time."""
        return f"{self.abandoned_after} {self.lifetime}"

    def oldest_day(self, day: date) -> date:
        """Return the first day on which a cart that is not over when `day` begins can have had its last activity."""
        return self.clock.day_of(self.clock.begin(day) - self.lifetime * MICROSECOND)


def cart_states(
    engine: Engine,
    events: DataFrame,
    rules: CartRules,
    before: DataFrame | None = None,
    days: tuple[date, date] = (date.min, date.max),
) -> DataFrame:
    """Follow each user's carts through some days.

    Args:
        engine: computes.
        events: SHOPPER_EVENTS rows of these days; only CART_EVENTS count.
        rules: say when carts are abandoned and over.
        before: `user_id` and `carts` as `latest_states` returns them, at the end of the day before; none where the
            days are all that there are.
        days: the first and the last.

    Returns:
        FOLLOWED rows, to be released: of the days, and of earlier ones the carts that went on into these. The last day
        that there is has to be `date.max`, so that what will happen by the clock is there too.
    """
    F, _ = functions_of(events)
    turn = F.when(F.col("event_type") == ADD, 0).when(F.col("event_type") == REMOVE, 1).otherwise(2)
    rows = cart_events(events).select(
        "user_id",
        F.struct(
            F.unix_micros("event_time").alias("at"),
            turn.alias("turn"),
            F.col("event_id"),
            F.col("product_id"),
            (units(F) * F.lit(MONEY_UNITS)).cast("long").alias("quantity"),
            (F.col("price") * F.lit(MONEY_UNITS)).cast("long").alias("price"),
            F.col("currency"),
            F.col("order_id"),
            event_hash(F).alias("hash"),
        ).alias("event"),
    )
    # One row per user, because an engine hands out rows in batches as it likes and a cart needs all of its user's.
    histories = as_view(rows.groupBy("user_id").agg(F.collect_list("event").alias("history")))
    if before is None:
        both = histories.select("user_id", "history", F.lit(NOTHING).alias("carts"))
    else:
        known = as_view(before.select(F.col("user_id").alias("known_id"), "carts"))
        same = F.col("user_id") == F.col("known_id")
        both = histories.join(known, on=same, how="full_outer").select(
            F.coalesce("user_id", "known_id").alias("user_id"),
            "history",
            F.coalesce("carts", F.lit(NOTHING)).alias("carts"),
        )
    return engine.map_arrow(both, partial(follow_carts, rules=rules, days=days), FOLLOWED)


def cart_events(events: DataFrame) -> DataFrame:
    """Return the events that change carts."""
    F, _ = functions_of(events)
    return events.where(F.col("event_type").isin(*CART_EVENTS))


def cart_input(events: DataFrame) -> DataFrame:
    """Make a fingerprint of the cart events of each user and day.

    Args:
        events: SHOPPER_EVENTS rows.

    Returns:
        `state_date`, `user_id` and `fingerprint`, as CART_STATES rows have them.
    """
    F, _ = functions_of(events)
    of_days = cart_events(events).groupBy(F.col("event_date").alias("state_date"), "user_id")
    return of_days.agg(fingerprint(F).alias("fingerprint"))


def latest_states(states: DataFrame) -> DataFrame:
    """Return the last `carts` of each `user_id` that has any, of CART_STATES rows."""
    F, _ = functions_of(states)
    latest = states.groupBy("user_id").agg(F.max_by("carts", "state_date").alias("carts"))
    return as_view(latest).where(F.col("carts") != F.lit(NOTHING))


def carts(followed: DataFrame) -> DataFrame:
    """Return the CARTS rows of FOLLOWED rows."""
    return _rows_of(followed, CARTS, _CART)


def states(followed: DataFrame) -> DataFrame:
    """Return the CART_STATES rows of FOLLOWED rows."""
    return _rows_of(followed, CART_STATES, _STATE)


def steps(followed: DataFrame) -> DataFrame:
    """Return the CART_STEPS rows of FOLLOWED rows."""
    return _rows_of(followed, CART_STEPS, *CART_STEP_NAMES)


def _rows_of(followed: DataFrame, table: Table, *kinds: str) -> DataFrame:
    F, _ = functions_of(followed)
    return followed.where(F.col("what").isin(*kinds)).select(*table.column_names)


def overdue(carts: DataFrame, rules: CartRules) -> DataFrame:
    """Return the CARTS rows that are open and, as of the newest event, no longer."""
    F, _ = functions_of(carts)
    idle = F.lit(rules.as_of) - F.unix_micros("last_activity_at")
    return carts.where((F.col("state") == "open") & (idle >= F.lit(rules.abandoned_after)))


def abandoned(overdue: DataFrame, rules: CartRules) -> DataFrame:
    """Return CARTS rows that are overdue as they are from then on."""
    F, _ = functions_of(overdue)
    abandoned_at = F.col("last_activity_at") + F.expr(f"INTERVAL {rules.abandoned_after} MICROSECOND")
    return rows_of(CARTS, overdue, {"state": F.lit("abandoned"), "abandoned_at": abandoned_at})


def abandonments(steps: DataFrame, rules: CartRules) -> DataFrame:
    """Return a row for each time that a cart was given up, and one that takes it back where it was taken up again.

    Args:
        steps: CART_STEPS rows.
        rules: say which time it is.

    Returns:
        `user_id`, `step_date`, `given_up_date`, and `carts` and `value`, of which the sums up to a day are those of the
        carts that are abandoned at its end.
    """
    F, _ = functions_of(steps)
    is_given_up = F.col("step") == GIVEN_UP
    # Null, as of what is no pause, is not true.
    return steps.where(F.unix_micros("given_up_at") <= F.lit(rules.as_of)).select(
        "user_id",
        "step_date",
        "given_up_date",
        F.when(is_given_up, F.lit(1)).otherwise(F.lit(-1)).alias("carts"),
        F.when(is_given_up, F.col("value")).otherwise(-F.col("value")).cast(MONEY_SUM).alias("value"),
    )


def cart_days(steps: DataFrame, rules: CartRules) -> DataFrame:
    """Count the carts opened, abandoned and purchased on each day, as of then: no event changes days before its own.

    Args:
        steps: CART_STEPS rows of the days.
        rules: say which time it is.

    Returns:
        CART_DAYS rows.
    """
    F, _ = functions_of(steps)
    kinds = {
        "opened": F.col("step") == OPENED,
        "abandoned": (F.col("step") == GIVEN_UP) & (F.unix_micros("at") <= F.lit(rules.as_of)),
        "purchased": F.col("step") == BOUGHT,
    }
    counted = steps.groupBy(F.col("step_date").alias("report_date")).agg(
        *(count_where(F, condition).alias(name) for name, condition in kinds.items())
    )
    happened = as_view(counted.select(*CART_DAYS.column_names))
    return happened.where(F.col("opened") + F.col("abandoned") + F.col("purchased") > 0)


def follow_carts(
    batches: Iterator[pa.RecordBatch], rules: CartRules, days: tuple[date, date]
) -> Iterator[pa.RecordBatch]:
    """Turn users' histories into FOLLOWED rows.

    Args:
        batches: `user_id`, `history` (their events, in any order, or null) and `carts` (their state before).
        rules: say when carts are abandoned and over.
        days: the first and the last day; see `cart_states`.
    """
    # Carts that are over by then change no more.
    since = rules.clock.begin_us(days[0]) - rules.lifetime if days[0] > date.min else 0
    for batch in batches:
        histories = batch.column("history")
        events = zip(*(field.to_pylist() for field in histories.flatten().flatten()), strict=True)
        lengths = pc.fill_null(pc.list_value_length(histories), 0).to_pylist()
        rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in _SCHEMAS}
        states = batch.column("carts").to_pylist()
        for user_id, text, length in zip(batch.column("user_id").to_pylist(), states, lengths, strict=True):
            found = {
                name: _Cart(**cart) for name, cart in json.loads(text).items() if cart["last_at"] >= since
            }
            its_events = sorted(islice(events, length))
            _Follower(user_id, rules, days, rows).follow(found.get("open"), found.get("bought"), its_events)
        tables = [_table(kind, its) for kind, its in rows.items() if its]
        if tables:
            merged = pa.concat_tables([FOLLOWED.empty_table(), *tables], promote_options="default")
            yield from merged.combine_chunks().to_batches()


def _table(kind: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    schema = _SCHEMAS[kind]
    columns = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    return table.append_column("what", pa.repeat(pa.scalar(kind), len(rows)))


class _Follower:
    """Follows the carts of one user, and adds what happens to them to `rows`, by its kind."""

    def __init__(
        self,
        user_id: str,
        rules: CartRules,
        days: tuple[date, date],
        rows: dict[str, list[tuple[Any, ...]]],
    ) -> None:
        self._user_id = user_id
        self._rules = rules
        self._first, self._last = (day.toordinal() - EPOCH.toordinal() for day in days)
        self._rows = rows

    def follow(self, cart: _Cart | None, bought: _Cart | None, events: Iterable[tuple[Any, ...]]) -> None:
        """Go through the events, which are in order, with the open cart and the last bought one before them."""
        rules = self._rules
        carts = [one for one in (bought, cart) if one]
        day: int | None = None
        number = hashes = 0
        for at, turn, _, product_id, quantity, price, currency, order_id, its_hash in events:
            its_day = rules.clock.day_number(at)
            if day is not None and its_day != day:
                self._keep(day, f"{number}:{hashes}", cart, bought)
                number = hashes = 0
            day, number, hashes = its_day, number + 1, hashes + its_hash
            if cart and at - cart.last_at > rules.lifetime:
                cart = None
            if bought and at - bought.last_at > rules.lifetime:
                bought = None
            if turn == 0:
                if cart is None:
                    cart = _Cart(at, at)
                    carts.append(cart)
                    self._note(OPENED, cart, at)
                self._note_activity(cart, at)
                cart.add(product_id, quantity, price, currency)
            elif turn == 1 and cart and product_id in cart.content:
                self._note_activity(cart, at)
                cart.remove(product_id, quantity)
                if not cart.content:
                    cart = None
            elif turn == 2:
                order = order_id or at // MINUTE
                if cart and product_id in cart.content:
                    self._note_activity(cart, at)
                    self._note(BOUGHT, cart, at)
                    cart.purchased_at, cart.order = at, order
                    bought, cart = cart, None
                elif not (bought and order == bought.order and product_id in bought.content):
                    continue
                # A bought cart is not abandoned again, however late a further line of the order comes.
                bought.last_at = at
                bought.buy(product_id, quantity, price, currency)
        if day is not None:
            self._keep(day, f"{number}:{hashes}", cart, bought)
        for one in carts:
            if one.content and one.purchased_at is None:
                self._note_pause(GIVEN_UP, one, self._given_up_at(one))
            self._rows[_CART].append(self._row(one))

    def _keep(self, day: int, its_fingerprint: str, cart: _Cart | None, bought: _Cart | None) -> None:
        """Add the state at the end of a day."""
        state = {name: vars(one) for name, one in (("open", cart), ("bought", bought)) if one}
        text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
        self._rows[_STATE].append((day, self._user_id, its_fingerprint, text))

    def _given_up_at(self, cart: _Cart) -> int:
        return cart.last_at + self._rules.abandoned_after

    def _note_activity(self, cart: _Cart, at: int) -> None:
        given_up_at = self._given_up_at(cart)
        if at >= given_up_at:
            cart.abandoned_at = given_up_at
            self._note_pause(GIVEN_UP, cart, given_up_at)
            self._note_pause(TAKEN_UP, cart, at)
        cart.last_at = at

    def _note_pause(self, step: str, cart: _Cart, at: int) -> None:
        given_up_at = self._given_up_at(cart)
        self._note(step, cart, at, given_up_at, self._rules.clock.day_number(given_up_at), cart.value)

    def _note(self, step: str, cart: _Cart, at: int, *pause: int | Decimal | None) -> None:
        """Add what happened to a cart, if it is of the days; `pause` says when it was given up, its day and value."""
        day = self._rules.clock.day_number(at)
        if self._first <= day <= self._last:
            self._rows[step].append(
                (day, self._user_id, self._id(cart), step, at, *(pause or (None, None, None)))
            )

    def _id(self, cart: _Cart) -> str:
        return sha256(f"{self._user_id}|{cart.opened_at}".encode()).hexdigest()[:32]

    def _row(self, cart: _Cart) -> tuple[Any, ...]:
        abandoned_at = cart.abandoned_at
        if cart.purchased_at is not None:
            state = "converted" if abandoned_at is None else "recovered"
        elif not cart.content:
            state = "emptied"
        elif self._rules.as_of - cart.last_at >= self._rules.abandoned_after:
            state = "abandoned"
            abandoned_at = cart.last_at + self._rules.abandoned_after
        else:
            state = "open"
        lines = cart.lines
        products = sorted({product_id for product_id, *_ in lines})
        currencies = {currency for *_, currency in lines}
        to_purchase = None if cart.purchased_at is None else cart.purchased_at - cart.opened_at
        row: dict[str, Any] = {
            "cart_id": self._id(cart),
            "user_id": self._user_id,
            "state": state,
            "opened_at": cart.opened_at,
            "last_activity_at": cart.last_at,
            "last_activity_date": self._rules.clock.day_number(cart.last_at),
            "items": len(products),
            "quantity": Decimal(sum(quantity for _, quantity, _, _ in lines)).scaleb(-4),
            "value": cart.value,
            "currency": currencies.pop() if len(currencies) == 1 else None,
            "product_ids": products,
            "abandoned_at": abandoned_at,
            "purchased_at": cart.purchased_at,
            "seconds_to_purchase": None if to_purchase is None else to_purchase // SECOND,
            "order_id": cart.order if isinstance(cart.order, str) else None,
        }
        return tuple(row[name] for name in CARTS.column_names)


@dataclass
class _Cart:
    """One cart, as far as its user's events have been followed; a state is made of what it has, as JSON.

    Units are ten-thousandths and prices in MONEY_UNITS; times are microseconds since 1970.
    """

    opened_at: int
    last_at: int
    content: dict[str, list[Any]] = field(default_factory=dict)
    """The products that were put in and not taken out: units of each, and price and currency if they are known."""
    abandoned_at: int | None = None
    purchased_at: int | None = None
    order: str | int | None = None
    """The order that bought it: its id, or its minute."""
    sold: list[list[Any]] = field(default_factory=list)
    """Its lines: product, units, price and currency."""

    def add(self, product_id: str, quantity: int, price: int | None, currency: str | None) -> None:
        units, known_price, known_currency = self.content.get(product_id, (0, None, None))
        price = known_price if price is None else price
        self.content[product_id] = [units + quantity, price, currency or known_currency]

    def remove(self, product_id: str, quantity: int) -> None:
        self.content[product_id][0] -= quantity
        if self.content[product_id][0] <= 0:
            del self.content[product_id]

    def buy(self, product_id: str, quantity: int, price: int | None, currency: str | None) -> None:
        _, known_price, known_currency = self.content[product_id]
        self.sold.append(
            [product_id, quantity, known_price if price is None else price, currency or known_currency]
        )

    @property
    def lines(self) -> list[list[Any]]:
        """The lines that were bought from it, or else are in it: product, units, price and currency."""
        return self.sold or [[product_id, *line] for product_id, line in self.content.items()]

    @property
    def value(self) -> Decimal:
        """Prices times units."""
        return sum((_value(units, price) for _, units, price, _ in self.lines), Decimal(0))


def _value(units: int, price: int | None) -> Decimal:
    """Return price times units, rounded half up as `measures.amount` is."""
    return Decimal(units * (price or 0)).scaleb(-8).quantize(_CENTS, ROUND_HALF_UP)
