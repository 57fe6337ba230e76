"""The product that a visitor goes to next, from the products that they met last.

Neighbours are found by VMIS-kNN (Kersbergen, Sprangers and Schelter, "Serenade - Low-Latency Session-Based
Recommendation in e-Commerce at Scale", SIGMOD 2022, algorithm 1): of the newest sessions that share a product with the
visitor's, the most similar ones vote for their products. No kept library has it. What else speaks for a product, such
as its category, its price or that it was met already, is weighed against these votes by a conditional logit (McFadden,
"Conditional Logit Analysis of Qualitative Choice Behavior", 1973), whose weights are learnt from what visitors chose
after each event of a later time. So whether a product comes again once it was viewed, or bought, is learnt too.

Arrays alone, no DataFrames: the API ranks with it at each request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property, lru_cache
from io import BytesIO
from itertools import pairwise
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]

RECENT_PRODUCTS = 10
"""Different products of a visitor, the newest, that a list is made from: decay leaves nothing of the eleventh."""
SESSION_PRODUCTS = 50
"""Different products of a session that are kept, the first: a session with more is rare, and a robot's more often."""
_SESSIONS_PER_PRODUCT = 250
_NEIGHBOURS = 100
_VOTED = 100
_OF_CATEGORY = 300
_OF_BRAND = 100
_POPULAR = 50
# Categories, and brands, of the newest products that candidates are taken from.
_NEWEST = 3
# What each product that was met later leaves of what one before it says.
_FADING = 0.6
_MOST_PRICE_DISTANCE = 3.0
# Where a price is not known: about what two products of one category differ by.
_USUAL_PRICE_DISTANCE = 1.0
_PENALTY = 1.0
# The minimum is found where the mean choice's slope is less than this.
_SLOPE = 1e-6


class Act(IntEnum):
    """What a visitor did with a product; more is stronger."""

    VIEWED = 0
    ADDED_TO_CART = 1
    BOUGHT = 2


ACTS = {
    "view": Act.VIEWED,
    "click": Act.VIEWED,
    "add_to_cart": Act.ADDED_TO_CART,
    "purchase": Act.BOUGHT,
}
"""The event types that a list is made from."""


class Met(NamedTuple):
    """A product that a visitor met.

    Attributes:
        product_id: The product.
        act: The most that they did with it.
        times: How often they met it.
        category: Its category, as the event says; counts for a product that the model does not know.
        price: Its price, as the event says; counts like the category.
        brand: Its brand, as the event says; counts like the category.
    """

    product_id: str
    act: Act = Act.VIEWED
    times: int = 1
    category: str | None = None
    price: float | None = None
    brand: str | None = None


class Why(StrEnum):
    """What speaks most for a product."""

    MET = "met"
    SESSIONS = "sessions"
    CATEGORY = "category"
    POPULAR = "popular"


class Pick(NamedTuple):
    """A product of a list.

    Attributes:
        product_id: The product.
        score: The chance that it comes next, by the model, among all that were weighed; 0 to 1.
        why: What speaks for it.
        of: The product of the visitor's own that speaks for it; none where it is only popular.
    """

    product_id: str
    score: float
    why: Why
    of: Met | None


FEATURES = (
    *("is_newest", "recency", "in_cart", "bought", "times"),
    *("votes", "same_category", "popular_in_category", "price_distance", "popularity"),
    *("same_brand", "same_brand_and_category"),
)
"""What the logit weighs of a candidate."""
# Learnt from two hours of a large shop's visitors; a shop with few events begins with them, and leaves them as its own
# events say otherwise.
_FIRST_WEIGHTS = dict(
    zip(FEATURES, (-1.0, 4.5, 1.5, 0.5, 0.4, 0.2, 1.2, 0.5, -0.7, -0.4, 0.5, 0.5), strict=True)
)


@dataclass(frozen=True)
class Assortment:
    """Products and what is known of them, those met in the most sessions first; a product's place is its number.

    Attributes:
        ids: Their ids.
        categories: Names of categories.
        category: Of each product, the number of its category; -1 for none.
        price: Of each product, its latest price; NaN for none.
        brands: Names of brands.
        brand: Of each product, the number of its brand; -1 for none.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    category: IntArray
    price: FloatArray
    brands: tuple[str, ...]
    brand: IntArray

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each product id."""
        return {product_id: number for number, product_id in enumerate(self.ids)}

    @cached_property
    def category_numbers(self) -> dict[str, int]:
        """Number of each category."""
        return {name: number for number, name in enumerate(self.categories)}

    @cached_property
    def brand_numbers(self) -> dict[str, int]:
        """Number of each brand."""
        return {name: number for number, name in enumerate(self.brands)}

    @cached_property
    def log_price(self) -> FloatArray:
        """ln(price) of each product; NaN for none."""
        return _log_price(self.price)

    @cached_property
    def first_of_category(self) -> list[IntArray]:
        """First products of each category."""
        return _first_of(self.category, len(self.categories), _OF_CATEGORY)

    @cached_property
    def first_of_brand(self) -> list[IntArray]:
        """First products of each brand."""
        return _first_of(self.brand, len(self.brands), _OF_BRAND)


@dataclass(frozen=True)
class Sessions:
    """Sessions by the time of their last event, and the different products of each, in the order they were met.

    Attributes:
        products: Numbers of products, session by session.
        starts: Where each session begins in `products`, and where the last one ends.
    """

    products: IntArray
    starts: IntArray

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.starts) - 1


@dataclass(frozen=True)
class NextProduct:
    """The trained model."""

    assortment: Assortment
    sessions: Sessions
    weights: FloatArray = field(default_factory=lambda: np.array(list(_FIRST_WEIGHTS.values())))

    @cached_property
    def _sessions_of(self) -> list[IntArray]:
        """Of each product, the numbers of the newest sessions with it, the newest last."""
        of_entry = np.repeat(np.arange(len(self.sessions)), np.diff(self.sessions.starts))
        order = np.argsort(self.sessions.products, kind="stable")
        ends = np.cumsum(self._session_counts)
        of_entry = of_entry[order]
        return [
            of_entry[max(end - count, end - _SESSIONS_PER_PRODUCT) : end]
            for end, count in zip(ends, self._session_counts, strict=True)
        ]

    @cached_property
    def _session_counts(self) -> IntArray:
        return np.bincount(self.sessions.products, minlength=len(self.assortment.ids))

    @cached_property
    def _rarity(self) -> FloatArray:
        """Of each product, 1 + ln(sessions / sessions with it): idf, as Serenade has it."""
        return 1 + np.log(max(1, len(self.sessions)) / np.maximum(1, self._session_counts))

    @cached_property
    def _popularity(self) -> FloatArray:
        return np.log1p(self._session_counts)

    def prepared(self) -> Self:
        """Compute what `rank` looks up, so that no request waits for it."""
        _ = (self._sessions_of, self._rarity, self._popularity)
        _ = (self.assortment.numbers, self.assortment.category_numbers, self.assortment.first_of_category)
        _ = (self.assortment.brand_numbers, self.assortment.first_of_brand, self.assortment.log_price)
        return self

    def votes(self, numbers: Sequence[int]) -> tuple[IntArray, FloatArray, IntArray]:
        """Let the sessions that are most like a visitor's vote for their products.

        A session's similarity is the sum over shared products of (L - place) / L, where the visitor's newest of L
        products has place 0. Of sessions as similar the newest count. Each votes for its products with its similarity,
        times 1 - place / 10 of the newest product that it shares, times the product's rarity.

        Args:
            numbers: the visitor's different products, the newest first; -1 for one that the model does not know.

        Returns:
            The products, all that got a vote; their votes; and for each the place of the visitor's product that the
            most similar session which voted for it shares.
        """
        nothing = np.empty(0, np.int64)
        found = [self._sessions_of[number] if number >= 0 else nothing for number in numbers]
        lengths = [len(sessions) for sessions in found]
        if not sum(lengths):
            return nothing, np.empty(0), nothing
        places = np.repeat(np.arange(len(numbers)), lengths)
        shared, first, entry = np.unique(np.concatenate(found), return_index=True, return_inverse=True)
        similarity = np.bincount(entry, (len(numbers) - places) / len(numbers))
        nearest = np.lexsort((-shared, -similarity))[:_NEIGHBOURS]
        place = places[first[nearest]]
        weight = similarity[nearest] * (1 - place / RECENT_PRODUCTS)
        begins = self.sessions.starts[shared[nearest]]
        sizes = self.sessions.starts[shared[nearest] + 1] - begins
        # Where each entry of each of these sessions is, one after the other.
        at = np.arange(sizes.sum()) + np.repeat(begins - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes)
        products, first, entry = np.unique(self.sessions.products[at], return_index=True, return_inverse=True)
        votes = np.bincount(entry, np.repeat(weight, sizes)) * self._rarity[products]
        return products, votes, np.repeat(place, sizes)[first]

    def rank(
        self, recent: Sequence[Met], n: int, left_out: Collection[str] = (), without_met: bool = False
    ) -> list[Pick]:
        """Rank what a visitor may go to next.

        Args:
            recent: the products that they met last, the newest first; those after RECENT_PRODUCTS do not count.
            n: how many.
            left_out: products not to give.
            without_met: give none of `recent`.

        Returns:
            Up to n products, the likeliest first; none if nothing is recent.
        """
        recent = recent[:RECENT_PRODUCTS]
        if not recent:
            return []
        candidates = self._candidates(recent)
        chances = _chances(candidates.features @ self.weights)
        ids = self.assortment.ids
        picks: list[Pick] = []
        for at in np.argsort(-chances, kind="stable").tolist():
            place = at if at < len(recent) else -1
            product_id = recent[at].product_id if place >= 0 else ids[candidates.numbers[at]]
            if product_id in left_out or (without_met and place >= 0):
                continue
            why = Why(_WHYS[candidates.whys[at]])
            own = recent[candidates.places[at]] if why is not Why.POPULAR else None
            picks.append(Pick(product_id, float(chances[at]), why, own))
            if len(picks) == n:
                break
        return picks

    def _candidates(self, recent: Sequence[Met]) -> _Candidates:
        """Gather candidates, first the recent products themselves, and what is to be weighed of each."""
        assortment = self.assortment
        own = np.array([assortment.numbers.get(met.product_id, -1) for met in recent])
        voted, votes, voted_places = self.votes(own.tolist())
        if len(voted) > _VOTED + len(recent):
            most = np.argpartition(-votes, _VOTED + len(recent))[: _VOTED + len(recent)]
            voted, votes, voted_places = voted[most], votes[most], voted_places[most]
        own_categories, own_brands, own_prices = self._known(recent, own)
        newest_categories, newest_brands = _newest(own_categories), _newest(own_brands)
        is_candidate = np.zeros(len(assortment.ids), bool)
        is_candidate[:_POPULAR] = True
        is_candidate[voted] = True
        for category in newest_categories:
            is_candidate[assortment.first_of_category[category]] = True
        for brand in newest_brands:
            is_candidate[assortment.first_of_brand[brand]] = True
        is_candidate[own[own >= 0]] = False
        others = np.flatnonzero(is_candidate)
        numbers = np.concatenate([own, others])
        size, mine = len(numbers), len(own)
        features = np.zeros((size, len(FEATURES)))
        features[0, _AT["is_newest"]] = 1
        features[:mine, _AT["recency"]] = 1 / (1 + np.arange(mine))
        for place, met in enumerate(recent):
            features[place, _AT["in_cart"]] = met.act is Act.ADDED_TO_CART
            features[place, _AT["bought"]] = met.act is Act.BOUGHT
            features[place, _AT["times"]] = np.log(met.times)
        categories = np.concatenate([own_categories, assortment.category[others]])
        brands = np.concatenate([own_brands, assortment.brand[others]])
        log_price = np.concatenate([_log_price(own_prices), assortment.log_price[others]])
        whys = np.full(size, _WHYS.index(Why.POPULAR))
        places = np.zeros(size, int)
        popularity = np.where(numbers >= 0, self._popularity[numbers], 0)
        for brand, place in newest_brands.items():
            features[brands == brand, _AT["same_brand"]] = _FADING**place
        for category, place in newest_categories.items():
            same = np.flatnonzero(categories == category)
            features[same, _AT["same_category"]] = _FADING**place
            features[same[brands[same] == own_brands[place]], _AT["same_brand_and_category"]] = _FADING**place
            features[same, _AT["popular_in_category"]] = popularity[same]
            features[same, _AT["price_distance"]] = _price_distance(log_price[same], log_price[place])
            whys[same], places[same] = _WHYS.index(Why.CATEGORY), place
        features[:, _AT["popularity"]] = popularity
        # Where each that got a vote is among the candidates: all of them are.
        at = mine + np.searchsorted(others, voted)
        entry, of_own = np.nonzero(voted[:, None] == own)
        at[entry] = of_own
        features[at, _AT["votes"]] = np.log1p(votes)
        whys[at], places[at] = _WHYS.index(Why.SESSIONS), voted_places
        whys[:mine], places[:mine] = _WHYS.index(Why.MET), np.arange(mine)
        return _Candidates(numbers, features, whys, places)

    def _known(self, recent: Sequence[Met], own: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Return categories, brands and prices of recent products: the model's, or of one it lacks the event's."""
        categories, brands, prices = [], [], []
        for met, number in zip(recent, own.tolist(), strict=True):
            if number >= 0:
                categories.append(int(self.assortment.category[number]))
                brands.append(int(self.assortment.brand[number]))
                prices.append(float(self.assortment.price[number]))
            else:
                categories.append(self.assortment.category_numbers.get(met.category or "", -1))
                brands.append(self.assortment.brand_numbers.get(met.brand or "", -1))
                prices.append(float("nan") if met.price is None else met.price)
        return np.array(categories), np.array(brands), np.array(prices)

    def fitted(self, choices: Iterable[tuple[Sequence[Met], str]]) -> Self:
        """Return the model with weights learnt from what visitors chose.

        The weights are those of the greatest likelihood, less a penalty on their distance from the first ones, so that
        few choices change them little.

        Args:
            choices: the products that a visitor had met, as for `rank`, and the one that came next. They are to be of
                a later time than the model's sessions, which would else know the answer.
        """
        # The API's processes never learn, and start in half the time without it.
        from scipy.optimize import minimize

        weighed: list[tuple[FloatArray, int]] = []
        for recent, chosen in choices:
            recent = recent[:RECENT_PRODUCTS]
            candidates = self._candidates(recent)
            place = next((at for at, met in enumerate(recent) if met.product_id == chosen), None)
            if place is None:
                number = self.assortment.numbers.get(chosen, -2)
                found = np.flatnonzero(candidates.numbers == number)
                if not len(found):
                    continue
                place = int(found[0])
            weighed.append((candidates.features, place))
        if not weighed:
            return self
        first = np.array(list(_FIRST_WEIGHTS.values()))
        features = np.concatenate([each for each, _ in weighed])
        sizes = np.array([len(each) for each, _ in weighed])
        begins = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        chosen = begins + np.array([place for _, place in weighed])
        chosen_sum = features[chosen].sum(axis=0)

        # The loss and its curvature are asked for at the same weights.
        @lru_cache(maxsize=1)
        def chances(weights: bytes) -> tuple[FloatArray, float]:
            """Return the chance of each candidate among those of its choice, and the choices' log-likelihood."""
            values = features @ np.frombuffer(weights)
            values -= np.repeat(np.maximum.reduceat(values, begins), sizes)
            chosen_values = values[chosen].sum()
            powers = np.exp(values)
            sums = np.add.reduceat(powers, begins)
            return powers / np.repeat(sums, sizes), float(chosen_values - np.log(sums).sum())

        def loss(weights: FloatArray) -> tuple[float, FloatArray]:
            chance, likelihood = chances(weights.tobytes())
            from_first = weights - first
            return (
                _PENALTY * float(from_first @ from_first) / 2 - likelihood,
                chance @ features - chosen_sum + _PENALTY * from_first,
            )

        def curvature(weights: FloatArray) -> FloatArray:
            weighted = chances(weights.tobytes())[0][:, None] * features
            means = np.add.reduceat(weighted, begins)
            return weighted.T @ features - means.T @ means + _PENALTY * np.eye(len(first))

        # Newton's steps: a handful find the minimum, where L-BFGS looks at all candidates half a hundred times.
        found = minimize(
            loss, first, jac=True, hess=curvature, method="trust-exact", options={"gtol": _SLOPE * len(sizes)}
        )
        return type(self)(self.assortment, self.sessions, found.x)

    def to_bytes(self) -> bytes:
        """Write the model down; `from_bytes` reads it."""
        arrays: dict[str, Any] = {
            "ids": _texts(self.assortment.ids),
            "categories": _texts(self.assortment.categories),
            "category": self.assortment.category.astype(np.int32),
            "price": self.assortment.price.astype(np.float32),
            "brands": _texts(self.assortment.brands),
            "brand": self.assortment.brand.astype(np.int32),
            "products": self.sessions.products.astype(np.int32),
            "starts": self.sessions.starts.astype(np.int64),
            "weights": self.weights.astype(np.float64),
            "features": _texts(FEATURES),
        }
        written = BytesIO()
        np.savez_compressed(written, **arrays)
        return written.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a model.

        Raises:
            ValueError: it is of another version of this program, or damaged.
        """
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            if _from_texts(arrays["features"]) != FEATURES:
                raise ValueError("the model weighs other features than this version does")
            return cls(
                Assortment(
                    _from_texts(arrays["ids"]),
                    _from_texts(arrays["categories"]),
                    arrays["category"].astype(np.int64),
                    arrays["price"].astype(np.float64),
                    _from_texts(arrays["brands"]),
                    arrays["brand"].astype(np.int64),
                ),
                Sessions(arrays["products"].astype(np.int64), arrays["starts"]),
                arrays["weights"],
            )


@dataclass(frozen=True)
class _Candidates:
    """Products to be weighed, the visitor's recent ones first: numbers, features, and what speaks for each."""

    numbers: IntArray
    features: FloatArray
    whys: IntArray
    places: IntArray


_AT = {name: place for place, name in enumerate(FEATURES)}
_WHYS = list(Why)


def _newest(of_recent: IntArray) -> dict[int, int]:
    """Return the first few different numbers of recent products, and the place of the newest product that has each."""
    newest: dict[int, int] = {}
    for place, number in enumerate(of_recent.tolist()):
        if number >= 0 and len(newest) < _NEWEST:
            newest.setdefault(number, place)
    return newest


def _first_of(of: IntArray, count: int, most: int) -> list[IntArray]:
    """Return of each of so many numbers the first places that have it."""
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(count + 1))
    return [order[start : min(end, start + most)] for start, end in pairwise(bounds.tolist())]


def _chances(values: FloatArray) -> FloatArray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def _log_price(prices: FloatArray) -> FloatArray:
    """Return ln(price) of each, NaN where it is not known; of free ones too it is a number."""
    return np.log(prices + 0.01)


def _price_distance(log_prices: FloatArray, own: float) -> FloatArray:
    """Return |ln(price / own price)| of each, at most 3."""
    distances = np.abs(log_prices - own)
    return np.where(np.isnan(distances), _USUAL_PRICE_DISTANCE, np.minimum(distances, _MOST_PRICE_DISTANCE))


def _texts(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Write texts as bytes, NUL between them: no id has one."""
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def _from_texts(written: NDArray[np.uint8]) -> tuple[str, ...]:
    text = written.tobytes().decode()
    return tuple(text.split("\0")) if text else ()


def recent_products(events: Iterable[Met]) -> list[Met]:
    """Return the different products of a visitor's events, those met last first.

    Args:
        events: what was met, once in each event, the newest first.
    """
    found: dict[str, Met] = {}
    for met in events:
        before = found.get(met.product_id)
        found[met.product_id] = (
            met
            if before is None
            else before._replace(act=max(before.act, met.act), times=before.times + met.times)
        )
    return list(found.values())
