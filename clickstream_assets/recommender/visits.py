"""Product events of visitors in order, what is learnt from them of the next product, and how well it foretells that.

Everything is cut at moments: a model knows what happened before one, and is judged, event by event, on what came after.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.recommender.next_product import (
    ACTS,
    RECENT_PRODUCTS,
    SESSION_PRODUCTS,
    Act,
    Assortment,
    IntArray,
    Met,
    NextProduct,
    Sessions,
    recent_products,
)

JUDGED_LIST = 20
"""Length of the lists that are judged."""
_LEARNT_CHOICES = 2_000
"""Choices that weights are learnt from: ten weights need no more, and each takes about 25 kB."""
_JUDGED_CHOICES = 2_000
"""Choices that a model is judged on: a share of .4 is then known to within .02."""
# Share of the training part, the latest, that the weights are learnt from, on sessions of what came before.
_LEARNT_FRACTION = 0.25
# Events of a visitor that are looked at: those of RECENT_PRODUCTS, unless the visitor goes around in circles.
_EVENTS_LOOKED_AT = 50


@dataclass(frozen=True)
class Memory:
    """Times that say what belongs together, in microseconds.

    Attributes:
        session_gap: Inactivity that ends a session.
        recent: How long what a visitor did counts as recent.
    """

    session_gap: int = 30 * MINUTE
    recent: int = 1440 * MINUTE


@dataclass(frozen=True)
class Visits:
    """Product events in order of time; all arrays have one value an event.

    Attributes:
        time: Microseconds since 1970.
        user: Numbers of persons.
        product: Numbers of `product_ids`.
        act: Values of `Act`.
        category: Numbers of `categories`; -1 for none.
        price: NaN for none.
        brand: Numbers of `brands`; -1 for none.
        product_ids: The products.
        categories: Names of categories.
        brands: Names of brands.
    """

    time: IntArray
    user: IntArray
    product: IntArray
    act: IntArray
    category: IntArray
    price: np.ndarray
    brand: IntArray
    product_ids: list[str]
    categories: list[str]
    brands: list[str]

    @classmethod
    def of(cls, events: pa.Table, products: pa.Table) -> Self:
        """Take SHOPPER_EVENTS rows, in any order; those of other types than `ACTS`, or without a product, are left out.

        Args:
            events: the columns `event_time`, `event_id`, `user_id`, `event_type`, `product_id`, `product_category` and
                `price` are read.
            products: product_id, category and brand of what the shop sells. It says nothing of what visitors did, so it
                may be of a later time than what is judged; the category of one that is not there is the event's.
        """
        is_of_product = pc.and_(
            pc.is_in(events["event_type"], pa.array(list(ACTS))), pc.is_valid(events["product_id"])
        )
        events = events.filter(is_of_product).sort_by(
            [("event_time", "ascending"), ("event_id", "ascending")]
        )
        user, _ = _numbered(events["user_id"])
        product, product_ids = _numbered(events["product_id"])
        category, categories = _details(
            products, "category", product_ids, product, events["product_category"]
        )
        unsaid = pa.chunked_array([pa.nulls(len(events), pa.string())])
        brand, brands = _details(products, "brand", product_ids, product, unsaid)
        kind, kinds = _numbered(events["event_type"])
        acts = np.array([ACTS[name] for name in kinds], dtype=np.int64)
        return cls(
            time=events["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(),
            user=user,
            product=product,
            act=acts[kind] if len(acts) else kind,
            category=category,
            price=pc.fill_null(events["price"].cast(pa.float64()), float("nan")).to_numpy(),
            brand=brand,
            product_ids=product_ids,
            categories=categories,
            brands=brands,
        )

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.time)

    def cut(self, fraction: float, end: int | None = None) -> int:
        """Return the first event of the moment after which a share of the events before `end` are."""
        end = len(self) if end is None else end
        if not end:
            return 0
        moment = self.time[min(int(end * (1 - fraction)), end - 1)]
        return int(np.searchsorted(self.time, moment))

    def model(self, end: int, most_sessions: int, memory: Memory) -> NextProduct:
        """Make a model of the newest sessions of the events before `end`, with weights not yet learnt.

        Args:
            end: number of the event before which the model is made.
            most_sessions: sessions that it holds at most; memory and time grow with them.
            memory: says what is a session.
        """
        order = np.lexsort((np.arange(end), self.user[:end]))
        user, time = self.user[order], self.time[order]
        begins = np.ones(end, bool)
        begins[1:] = (user[1:] != user[:-1]) | (np.diff(time) > memory.session_gap)
        session = np.cumsum(begins) - 1
        # The product's first time in its session.
        pairs = session * max(1, len(self.product_ids)) + self.product[order]
        _, first = np.unique(pairs, return_index=True)
        first = np.sort(first)
        session, product = session[first], self.product[order][first]
        place = np.arange(len(session)) - np.searchsorted(session, session)
        few = place < SESSION_PRODUCTS
        session, product = session[few], product[few]
        last_time = np.zeros(int(session[-1]) + 1 if len(session) else 0, np.int64)
        np.maximum.at(last_time, np.cumsum(begins) - 1, time)
        by_time = np.argsort(last_time, kind="stable")[-most_sessions:]
        rank = np.full(len(last_time), -1)
        rank[by_time] = np.arange(len(by_time))
        kept = rank[session] >= 0
        session, product = rank[session[kept]], product[kept]
        in_order = np.argsort(session, kind="stable")
        session, product = session[in_order], product[in_order]
        starts = np.searchsorted(session, np.arange(len(by_time) + 1))
        counts = np.bincount(product, minlength=len(self.product_ids))
        # Most popular first; of equals the id decides, so that the same events make the same model.
        ids = np.array(self.product_ids, dtype=object)
        there = sorted(np.flatnonzero(counts).tolist(), key=lambda number: (-counts[number], ids[number]))
        number = np.full(len(self.product_ids), -1)
        number[there] = np.arange(len(there))
        category, brand, price = self._latest(end)
        return NextProduct(
            Assortment(
                ids=tuple(ids[there]),
                categories=tuple(self.categories),
                category=category[there],
                price=price[there],
                brands=tuple(self.brands),
                brand=brand[there],
            ),
            Sessions(number[product], starts),
        )

    def _latest(self, end: int) -> tuple[IntArray, IntArray, np.ndarray]:
        """Return the latest category, brand and price of each product before an event."""
        category, brand = (np.full(len(self.product_ids), -1) for _ in range(2))
        price = np.full(len(self.product_ids), np.nan)
        # Of several values for one product numpy keeps the last.
        for latest, values in ((category, self.category), (brand, self.brand)):
            has = np.flatnonzero(values[:end] >= 0)
            latest[self.product[has]] = values[has]
        has = np.flatnonzero(~np.isnan(self.price[:end]))
        price[self.product[has]] = self.price[has]
        return category, brand, price

    def choices(self, begin: int, end: int, memory: Memory, most: int) -> Iterator[Choice]:
        """Yield what visitors chose at the events from `begin` to `end` who had met something recently.

        Args:
            begin: the first event.
            end: the one after the last.
            memory: says what is recent.
            most: choices at most, evenly spread.
        """
        before: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=_EVENTS_LOOKED_AT))
        known = set(self.user[:begin].tolist())
        first = int(np.searchsorted(self.time, self.time[begin] - memory.recent)) if begin < end else begin
        step = max(1.0, (end - begin) / most)
        due = float(begin)
        for event in range(first, end):
            user = int(self.user[event])
            own = before[user]
            if event >= due:
                recent = self._recent(own, int(self.time[event]) - memory.recent)
                if recent:
                    yield Choice(recent, self.product_ids[self.product[event]], user in known, user)
                due += step
            own.append(event)

    def _recent(self, own: deque[int], since: int) -> list[Met]:
        return recent_products(
            Met(
                self.product_ids[self.product[event]],
                Act(int(self.act[event])),
                category=self.categories[self.category[event]] if self.category[event] >= 0 else None,
                price=None if np.isnan(self.price[event]) else float(self.price[event]),
                brand=self.brands[self.brand[event]] if self.brand[event] >= 0 else None,
            )
            for event in reversed(own)
            if self.time[event] >= since
        )[:RECENT_PRODUCTS]

    def trained(self, end: int, most_sessions: int, memory: Memory) -> NextProduct | None:
        """Train on the events before `end`: the weights on the latest of them, by sessions before those.

        Returns:
            None if there is no event.
        """
        if not end:
            return None
        begin = self.cut(_LEARNT_FRACTION, end)
        model = self.model(end, most_sessions, memory)
        if not begin:
            return model
        choices = self.choices(begin, end, memory, _LEARNT_CHOICES)
        learnt = self.model(begin, most_sessions, memory).fitted(
            (choice.recent, choice.chosen) for choice in choices
        )
        return NextProduct(model.assortment, model.sessions, learnt.weights)

    def judged(self, test_fraction: float, most_sessions: int, memory: Memory) -> list[Judgement]:
        """Train on the events before a moment, and judge event by event on those after.

        Args:
            test_fraction: share of the events, the latest, that are foretold.
            most_sessions: see `model`.
            memory: see `choices`.

        Returns:
            The figures of each kind of target in `TARGETS`; none without events before and after.
        """
        begin = self.cut(test_fraction)
        model = self.trained(begin, most_sessions, memory)
        if model is None:
            return []
        popular = model.assortment.ids[:JUDGED_LIST]
        found = []
        for choice in self.choices(begin, len(self), memory, _JUDGED_CHOICES):
            listed = [pick.product_id for pick in model.rank(choice.recent, JUDGED_LIST)]
            place = listed.index(choice.chosen) + 1 if choice.chosen in listed else 0
            met = {each.product_id for each in choice.recent}
            found.append(
                (
                    place,
                    choice.chosen in popular,
                    choice.chosen != choice.recent[0].product_id,
                    choice.chosen not in met,
                    choice.is_known,
                )
            )
        if not found:
            return []
        place, is_popular, is_other, is_new, is_known = np.array(found).T
        kinds = {
            "next": is_other >= 0,
            "next_of_new_visitors": is_known == 0,
            "next_other": is_other > 0,
            "next_other_of_new_visitors": (is_other > 0) & (is_known == 0),
            "next_not_met": is_new > 0,
        }
        return [
            Judgement(
                target=target,
                targets=int(among.sum()),
                hit_rate=float(np.mean(place[among] > 0)) if among.any() else 0.0,
                reciprocal_rank=float(
                    np.mean(1 / place[among & (place > 0)].clip(1)) * np.mean(place[among] > 0)
                )
                if (among & (place > 0)).any()
                else 0.0,
                popular_hit_rate=float(np.mean(is_popular[among])) if among.any() else 0.0,
            )
            for target, among in kinds.items()
        ]


class Choice(NamedTuple):
    """What a visitor chose.

    Attributes:
        recent: The products that they had met, the newest first.
        chosen: The product that came next.
        is_known: Whether they had been there before all that is judged.
        user: Their number.
    """

    recent: list[Met]
    chosen: str
    is_known: bool
    user: int


class Judgement(NamedTuple):
    """How well a list of JUDGED_LIST products foretells what comes next.

    Attributes:
        target: next (the product of the next event), next_other (if it is another than the newest), next_not_met (if it
            is none of the recent ones); the first two of new visitors also.
        targets: How many were judged.
        hit_rate: Share of them that were in the list.
        reciprocal_rank: Mean of 1 / place in the list, 0 where it is not in it.
        popular_hit_rate: Share of them that are among the JUDGED_LIST most popular products.
    """

    target: str
    targets: int
    hit_rate: float
    reciprocal_rank: float
    popular_hit_rate: float


def _details(
    products: pa.Table, name: str, product_ids: list[str], product: IntArray, said: pa.ChunkedArray
) -> tuple[IntArray, list[str]]:
    """Return of each event the number of its product's detail, or else of the event's own; and what has the numbers."""
    own, names = _numbered(said)
    numbers = {each: number for number, each in enumerate(names)}
    known = dict(zip(products["product_id"].to_pylist(), products[name].to_pylist(), strict=True))
    of_product = np.full(len(product_ids), -1)
    for place, product_id in enumerate(product_ids):
        detail = known.get(product_id)
        if detail is not None:
            of_product[place] = numbers.setdefault(detail, len(numbers))
    of_event = of_product[product]
    return np.where(of_event >= 0, of_event, own), list(numbers)


def _numbered(column: pa.ChunkedArray) -> tuple[IntArray, list[str]]:
    """Return the number of each value, -1 for null, and the values in order of their first row."""
    encoded = column.combine_chunks().dictionary_encode()
    return (
        pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64),
        encoded.dictionary.to_pylist(),
    )
