"""The probability that a session buys, judged at each of its events by what it has done up to then.

Plain Python on few numbers, since the API answers with it: it imports neither an engine nor NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, log1p
from typing import NamedTuple, Self

from clickstream_assets.predictions.additive import AdditiveModel

FEATURES = ("cart", "category", "price", "categories", "repeats")
"""What a session is judged by: `features_of` says how each is measured. Seconds and the number of events and products
were tried too: on the validation folds of REES46 they made the probabilities worse.
"""
RULE = ("cart",)
"""The features of the simple rule that a model has to beat: whether anything is in the cart."""
REASONS = 3
"""Reasons that are given for a probability, at most."""
_LEAST_PART = 0.05
_UNKNOWN = ""
_WORDS = {
    "cart": ("has put something in the cart", "has put nothing in the cart yet"),
    "category": ("looks at categories that sell well", "looks at categories that sell seldom"),
    "price": ("looks at a price at which visitors buy more", "looks at a price at which visitors buy less"),
    "categories": ("stays within few categories", "looks around in several categories"),
    "repeats": ("came back to the same product", "sees this product for the first time"),
}
"""In words, why a feature speaks for a purchase, and why against."""


class SessionEvent(NamedTuple):
    """The fields of an event that a session is judged by, as SHOPPER_EVENTS has them."""

    event_type: str
    product_id: str | None = None
    product_category: str | None = None
    price: float | None = None


class Prediction(NamedTuple):
    """A probability, and its main reasons in words, those that weigh most first."""

    probability: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class SessionModel:
    """All that a session is judged by.

    Attributes:
        model: Of FEATURES.
        rates: Of each category, by its path with dots between, the logarithm of how much more, or less, its sessions
            buy than all do; the empty path is that of products without a category.
    """

    model: AdditiveModel
    rates: Mapping[str, float]

    def to_json(self) -> str:
        """Return the model as JSON text."""
        return json.dumps({"model": json.loads(self.model.to_json()), "rates": dict(self.rates)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make a model of what `to_json` returned."""
        read = json.loads(text)
        return cls(AdditiveModel.from_json(json.dumps(read["model"])), read["rates"])


def session_probability(model: SessionModel, events: Sequence[SessionEvent]) -> Prediction:
    """Return the probability that a session buys, or buys again, and why.

    Args:
        model: the model.
        events: the session's events so far, in order; at least one. A purchase begins the judgement anew.
    """
    bought = max(
        (place for place, event in enumerate(events, 1) if event.event_type == "purchase"), default=0
    )
    features = features_of(events[bought:] or events[-1:], model.rates)[-1]
    return Prediction(model.model.probability(features), reasons_of(model.model, features, _WORDS))


def reasons_of(
    model: AdditiveModel, features: Sequence[float], words: Mapping[str, tuple[str, str]]
) -> tuple[str, ...]:
    """Return the reasons for a probability in words: the features whose part differs most from the average.

    Args:
        model: the model.
        features: one row.
        words: for each feature, why it speaks for, and why against.
    """
    parts = sorted(zip(model.parts(features), model.features, strict=True), key=lambda its: -abs(its[0]))
    main = [(part, name) for part, name in parts if abs(part) >= _LEAST_PART][:REASONS]
    return tuple(words[name][0 if part > 0 else 1] for part, name in main)


def features_of(events: Iterable[SessionEvent], rates: Mapping[str, float]) -> list[list[float]]:
    """Return FEATURES of a session after each of its events, by that event and those before it alone.

    `cart`: 1 once something was put in the cart, else 0. `category`: the mean of the rates of the categories of the
    products met. `price`: log(1 + price) of the last product with one; 0 before. `categories`: how many different ones,
    3 for more. `repeats`: the logarithm of how often the last product has been met.

    Args:
        events: the session's events, in order.
        rates: as in `SessionModel`.
    """
    rows = []
    carts, price, repeats = 0.0, 0.0, 0.0
    met: dict[str, int] = {}
    categories: set[str] = set()
    seen, total = 0, 0.0
    for event in events:
        if event.event_type == "add_to_cart":
            carts = 1.0
        if event.product_id is not None:
            met[event.product_id] = met.get(event.product_id, 0) + 1
            repeats = log(met[event.product_id])
            category = event.product_category or _UNKNOWN
            categories.add(category)
            seen += 1
            total += rate_of(category, rates)
        if event.price is not None:
            price = log1p(max(float(event.price), 0.0))
        rows.append([carts, round(total / max(seen, 1), 6), price, float(min(len(categories), 3)), repeats])
    return rows


def rate_of(category: str, rates: Mapping[str, float]) -> float:
    """Return the rate of a category, or of the nearest wider one that has any; 0 where none has."""
    for path in reversed(paths_of(category)):
        if path in rates:
            return rates[path]
    return 0.0


def paths_of(category: str) -> list[str]:
    """Return the paths of a category and of those that hold it, the widest first."""
    steps = category.split(".")
    return [".".join(steps[:length]) for length in range(1, len(steps) + 1)]


class Counted(NamedTuple):
    """How many sessions met something, and how many of them bought."""

    sessions: int
    buyers: int


def rates_of(
    counts: Mapping[str, Counted], everything: Counted, most: int, smoothing: float
) -> dict[str, float]:
    """Make the rates of categories from counts of sessions.

    A category's rate is drawn to that of the next wider one as if `smoothing` more sessions had that (empirical Bayes,
    as in Micci-Barreca, "A Preprocessing Scheme for High-Cardinality Categorical Attributes", SIGKDD Explorations
    2001), and the widest to that of all sessions.

    Args:
        counts: of each category and those that hold it.
        everything: of all sessions.
        most: categories that are kept, those with the most sessions.
        smoothing: see above.
    """
    base = (everything.buyers + 1) / (everything.sessions + 2)
    kept = set(sorted(counts, key=lambda path: (-counts[path].sessions, path))[:most])
    shares: dict[str, float] = {}
    for path in sorted(kept, key=lambda path: path.count(".")):
        wider = shares.get(path.rpartition(".")[0], base) if "." in path else base
        its = counts[path]
        shares[path] = (its.buyers + smoothing * wider) / (its.sessions + smoothing)
    return {path: log(share / base) for path, share in shares.items()}
