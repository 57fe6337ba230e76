"""A shopper's purchases, ranked by what they may buy again: the model of `repurchases`, at a request.

No DataFrames: the API ranks with it, and counts purchases of a second ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from clickstream_assets.catalogue.units import DAY

OFTEN = 0.5
"""Least share of a product's buyers who come back for it, where one who just bought it is given it again."""


class Bought(NamedTuple):
    """A product that a shopper has bought.

    Attributes:
        product_id: The product.
        days: Days on which they bought it.
        last: When they did last, in microseconds since 1970.
    """

    product_id: str
    days: int
    last: int


class Again(NamedTuple):
    """A product that a shopper may buy again, and how much speaks for it; scores of one shopper compare."""

    bought: Bought
    score: float


def with_purchases(
    before: Iterable[Bought], purchases: Iterable[tuple[str, int]], day_of: Callable[[int], Any]
) -> list[Bought]:
    """Return what a shopper has bought, with purchases that may be later than what is known, or part of it.

    Args:
        before: what is known.
        purchases: product and time, in microseconds since 1970, of each, in any order.
        day_of: returns the shop's day of such a time.
    """
    found = {each.product_id: each for each in before}
    for product_id, time in sorted(purchases, key=lambda purchase: purchase[1]):
        known = found.get(product_id)
        if known is None:
            found[product_id] = Bought(product_id, 1, time)
        elif time > known.last:
            is_other_day = day_of(time) != day_of(known.last)
            found[product_id] = Bought(product_id, known.days + is_other_day, time)
    return list(found.values())


def rank_again(
    bought: Sequence[Bought], rates: Mapping[str, float], usual_rate: float, half_life_days: float
) -> list[Again]:
    """Rank what a shopper may buy again, best first; of equals what was bought last, then by product id.

    A score is the days of purchase, halved with each half-life since, times the share of the product's buyers who came
    back for it. Ages are counted from the shopper's own last purchase: that changes all scores of theirs alike.

    Args:
        bought: what they have bought.
        rates: of each product that is known, that share.
        usual_rate: that of others.
        half_life_days: 0 for purchases that always say as much.
    """
    newest = max((each.last for each in bought), default=0)

    def score(each: Bought) -> float:
        left = 0.5 ** ((newest - each.last) / DAY / half_life_days) if half_life_days else 1.0
        return each.days * left * rates.get(each.product_id, usual_rate)

    ranked = [Again(each, score(each)) for each in bought]
    return sorted(ranked, key=lambda again: (-again.score, -again.bought.last, again.bought.product_id))
