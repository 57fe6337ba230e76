"""Lists that are not all of a kind: relevance weighed against likeness to what is listed already.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries",
SIGIR 1998. How alike two products are is what they share of the path of their categories, twice its depth over the sum
of both paths' depths (Wu and Palmer, "Verb Semantics and Lexical Selection", ACL 1994).

Arrays alone, no DataFrames: the API ranks with it at each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating]


def category_likeness(categories: Sequence[str | None]) -> FloatArray:
    """Return how alike products are by their categories.

    Args:
        categories: of each product its category, or the path to it with dots between; None where none is known.

    Returns:
        [products, products], 0 to 1; a product of which no category is known is like none but itself.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(filter(None, categories)))}
    paths = [name.split(".") for name in names]
    alike = np.zeros((len(paths) + 1, len(paths) + 1))
    for one, path in enumerate(paths):
        for other in range(one, len(paths)):
            alike[one, other] = alike[other, one] = _shared(path, paths[other])
    numbers = np.array([names.get(name or "", len(paths)) for name in categories], dtype=int)
    found = alike[np.ix_(numbers, numbers)]
    np.fill_diagonal(found, 1)
    return found


def _shared(path: Sequence[str], other: Sequence[str]) -> float:
    depth = 0
    for ours, theirs in zip(path, other, strict=False):
        if ours != theirs:
            break
        depth += 1
    return 2 * depth / (len(path) + len(other))


def diversified(likeness: FloatArray, n: int, diversity: float) -> list[int]:
    """Pick n of some ranked products, each the best of what is left by maximal marginal relevance.

    That is (1 - diversity) times its relevance less diversity times how alike it is to the most alike that was picked
    before. Relevance falls evenly from 1 for the first to 0 after the last: scores of several sources do not compare.

    Args:
        likeness: [products, products], 0 to 1; the products in their order, best first.
        n: how many.
        diversity: 0 keeps the order; 1 looks at likeness alone, after the first.

    Returns:
        Indices of the picked products; of equals the one that was ranked first.
    """
    size = len(likeness)
    relevance = 1 - np.arange(size) / max(size, 1)
    most_alike = np.zeros(size)
    left = np.ones(size, bool)
    picked: list[int] = []
    while len(picked) < min(n, size):
        value = (1 - diversity) * relevance - diversity * most_alike
        # At diversity 1 nothing is like anything before the first pick, which is the first of the list.
        best = int(np.argmax(np.where(left, value, -np.inf)))
        picked.append(best)
        left[best] = False
        most_alike = np.maximum(most_alike, likeness[best])
    return picked
