"""Carts: the products that shoppers put in, across sessions, until they are bought, taken out or abandoned.

A cart opens when a product is put in while the user has none. Additions and removals change it; a removal of what
is not in it does nothing. It ends

- emptied, when nothing is left in it;
- bought, by the first order with a product that is in it. All lines of that order (the same order_id, or without
  one the same minute) of products in it are bought from it. What the order leaves behind ends with the cart, as a
  checkout does: it is neither abandoned nor carried over;
- over, after a lifetime without activity: a product that is put in later opens a new cart.

It is abandoned while there is no activity for some hours, as seen at the newest event of all: the data's own clock,
not the computer's. A purchase of a product that never was in a cart concerns none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.measures import units
from clickstream_assets.catalogue import CART_DAYS, CARTS
from clickstream_assets.catalogue.clock import UTC_CLOCK, ShopClock
from clickstream_assets.catalogue.table import DATE, TIMESTAMP
from clickstream_assets.catalogue.units import DAY, EPOCH, HOUR, MICROSECOND, MINUTE, MONEY_UNITS, SECOND
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of
from clickstream_assets.settings import Settings

ADD, REMOVE, PURCHASE = CART_EVENTS = ("add_to_cart", "remove_from_cart", "purchase")
"""The events that change carts, in the order in which those of one moment count."""

_CENTS = Decimal("0.0001")
_DATED = ("opened", "abandoned", "purchased", "ended")
STATES = pa.schema(
    [
        *CARTS.arrow,
        pa.field("ended_at", TIMESTAMP),
        *(pa.field(f"{name}_date", DATE) for name in _DATED),
        pa.field("is_last", pa.bool_()),
    ]
)
"""CARTS rows as they are in the end (`is_last`), and as they were while abandoned, until `ended_at`; with the days."""


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


def cart_states(engine: Engine, events: DataFrame, rules: CartRules) -> DataFrame:
    """Follow each user's carts.

    Args:
        engine: computes.
        events: SHOPPER_EVENTS rows of all time; only CART_EVENTS count.
        rules: say when carts are abandoned and over.

    Returns:
        STATES rows, to be released.
    """
    F, _ = functions_of(events)
    turn = F.when(F.col("event_type") == ADD, 0).when(F.col("event_type") == REMOVE, 1).otherwise(2)
    rows = events.where(F.col("event_type").isin(*CART_EVENTS)).select(
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
        ).alias("event"),
    )
    # One row per user, because an engine hands out rows in batches as it likes and a cart needs all of its user's.
    histories = rows.groupBy("user_id").agg(F.collect_list("event").alias("history"))
    return engine.map_arrow(histories, partial(follow_carts, rules=rules), STATES)


def carts(states: DataFrame) -> DataFrame:
    """Return CARTS rows of STATES rows."""
    F, _ = functions_of(states)
    return states.where(F.col("is_last")).select(*CARTS.column_names)


def abandonments(states: DataFrame) -> DataFrame:
    """Return from when (`abandoned_at`, `abandoned_date`) to when (`ended_…`, null: still) carts were abandoned.

    And their `value`.
    """
    F, _ = functions_of(states)
    return states.where(F.col("state") == "abandoned").select(
        "user_id", "abandoned_at", "abandoned_date", "ended_at", "ended_date", "value"
    )


def cart_days(states: DataFrame) -> DataFrame:
    """Count the carts opened, abandoned and purchased on each day, as of then: no event changes days before its own.

    Returns:
        CART_DAYS rows, of STATES rows.
    """
    F, _ = functions_of(states)
    is_last = F.col("is_last")
    days = {
        "opened": F.when(is_last, F.col("opened_date")),
        "abandoned": F.when(F.col("state") == "abandoned", F.col("abandoned_date")),
        "purchased": F.when(is_last, F.col("purchased_date")),
    }
    happened = [
        states.where(day.isNotNull()).select(
            day.alias("report_date"),
            *(F.lit(int(other == name)).alias(other) for other in days),
        )
        for name, day in days.items()
    ]
    by_day = as_view(happened[0].unionByName(happened[1]).unionByName(happened[2])).groupBy("report_date")
    return by_day.agg(*(F.sum(name).cast("long").alias(name) for name in days)).select(
        *CART_DAYS.column_names
    )


def follow_carts(batches: Iterator[pa.RecordBatch], rules: CartRules) -> Iterator[pa.RecordBatch]:
    """Turn users' histories (`user_id`, `history`: their events, in any order) into STATES rows."""
    for batch in batches:
        histories = batch.column("history")
        events = zip(*(field.to_pylist() for field in histories.flatten().flatten()), strict=True)
        rows: list[tuple[Any, ...]] = []
        lengths = pc.list_value_length(histories).to_pylist()
        for user_id, length in zip(batch.column("user_id").to_pylist(), lengths, strict=True):
            rows.extend(_follow(user_id, sorted(islice(events, length)), rules))
        if rows:
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(values, field.type)
                    for values, field in zip(zip(*rows, strict=True), STATES, strict=True)
                ],
                schema=STATES,
            )


def _follow(user_id: str, events: Iterable[tuple[Any, ...]], rules: CartRules) -> Iterator[tuple[Any, ...]]:
    """Yield the STATES rows of one user, whose events come in order."""
    cart: _Cart | None = None
    bought: _Cart | None = None
    ended: list[_Cart] = []
    for at, turn, _, product_id, quantity, price, currency, order_id in events:
        line = _Line(quantity, price, currency)
        if cart and at - cart.last_at > rules.lifetime:
            ended.append(cart)
            cart = None
        if turn == 0:
            cart = cart or _Cart(user_id, at, rules)
            cart.add(at, product_id, line)
        elif turn == 1 and cart and product_id in cart.content:
            cart.remove(at, product_id, quantity)
            if not cart.content:
                ended.append(cart)
                cart = None
        elif turn == 2:
            order = order_id or at // MINUTE
            if cart and product_id in cart.content:
                cart.buy(at, product_id, line, order)
                ended.append(cart)
                bought, cart = cart, None
            elif bought and order == bought.order and product_id in bought.content:
                bought.buy(at, product_id, line, order)
    for one in [*ended, cart] if cart else ended:
        yield from one.rows()


@dataclass
class _Line:
    """Units of one product, in ten-thousandths, at a price in MONEY_UNITS, if one is known."""

    quantity: int
    price: int | None
    currency: str | None


def _value(line: _Line) -> Decimal:
    """Return price times quantity, rounded half up as `measures.amount` is."""
    return Decimal(line.quantity * (line.price or 0)).scaleb(-8).quantize(_CENTS, ROUND_HALF_UP)


class _Cart:
    """One cart, as far as its user's events have been followed."""

    def __init__(self, user_id: str, at: int, rules: CartRules) -> None:
        self.content: dict[str, _Line] = {}
        self.last_at = at
        self.order: str | int | None = None
        self._user_id = user_id
        self._rules = rules
        self._opened_at = at
        self._purchased_at: int | None = None
        self._abandoned_at: int | None = None
        self._bought: list[tuple[str, _Line]] = []
        self._abandoned: list[tuple[Any, ...]] = []

    def add(self, at: int, product_id: str, line: _Line) -> None:
        self._note_activity(at)
        there = self.content.setdefault(product_id, _Line(0, None, None))
        there.quantity += line.quantity
        if line.price is not None:
            there.price = line.price
        there.currency = line.currency or there.currency

    def remove(self, at: int, product_id: str, quantity: int) -> None:
        self._note_activity(at)
        self.content[product_id].quantity -= quantity
        if self.content[product_id].quantity <= 0:
            del self.content[product_id]

    def buy(self, at: int, product_id: str, line: _Line, order: str | int) -> None:
        self._note_activity(at)
        if self._purchased_at is None:
            self._purchased_at, self.order = at, order
        there = self.content[product_id]
        price = there.price if line.price is None else line.price
        self._bought.append((product_id, _Line(line.quantity, price, line.currency or there.currency)))

    def _note_activity(self, at: int) -> None:
        abandoned_at = self.last_at + self._rules.abandoned_after
        # A bought cart is not abandoned again, however late a further line of the order comes.
        if at >= abandoned_at and self._purchased_at is None:
            self._abandoned_at = abandoned_at
            self._abandoned.append(self._row("abandoned", ended_at=at, is_last=False))
        self.last_at = at

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield its rows, once no event of it is left."""
        yield from self._abandoned
        if self._purchased_at is not None:
            state = "converted" if self._abandoned_at is None else "recovered"
        elif not self.content:
            state = "emptied"
        elif self._rules.as_of - self.last_at >= self._rules.abandoned_after:
            state = "abandoned"
            self._abandoned_at = self.last_at + self._rules.abandoned_after
        else:
            state = "open"
        yield self._row(state, ended_at=None, is_last=True)

    def _row(self, state: str, ended_at: int | None, is_last: bool) -> tuple[Any, ...]:
        lines = self._bought or list(self.content.items())
        products = sorted({product_id for product_id, _ in lines})
        currencies = {line.currency for _, line in lines}
        to_purchase = None if self._purchased_at is None else self._purchased_at - self._opened_at
        row: dict[str, Any] = {
            "cart_id": sha256(f"{self._user_id}|{self._opened_at}".encode()).hexdigest()[:32],
            "user_id": self._user_id,
            "state": state,
            "opened_at": self._opened_at,
            "last_activity_at": self.last_at,
            "items": len(products),
            "quantity": Decimal(sum(line.quantity for _, line in lines)).scaleb(-4),
            "value": sum((_value(line) for _, line in lines), Decimal(0)),
            "currency": currencies.pop() if len(currencies) == 1 else None,
            "product_ids": products,
            "abandoned_at": self._abandoned_at,
            "purchased_at": self._purchased_at,
            "seconds_to_purchase": None if to_purchase is None else to_purchase // SECOND,
            "order_id": self.order if isinstance(self.order, str) else None,
            "ended_at": ended_at,
            "is_last": is_last,
        }
        for name in _DATED:
            moment = row[f"{name}_at"]
            row[f"{name}_date"] = None if moment is None else self._rules.clock.day_number(moment)
        return tuple(row[name] for name in STATES.names)
