"""The chance of a false alarm, shared out over looks at the same question.

Whether a personal algorithm is better than what is served is asked at every training. Each time at 5 %, one that is no
better would sooner or later pass. So a look is allowed a part of the 5 % alone, the less the more looks came before it
("alpha spending": Lan and DeMets, "Discrete Sequential Boundaries for Clinical Trials", Biometrika 70(3), 1983), and
the parts of all looks that there will ever be come to 3 %. Nothing is assumed of how looks depend on each other: the
chance that any of them raises a false alarm is at most the sum of their chances, though most of what one is judged by
is what the one before it was judged by. What is left of the 5 % is for the test, which is exact only for many users.
The first look is allowed 1.8 %, so that what is much better is published at once.
"""

from datetime import datetime
from math import pi, sqrt
from statistics import NormalDist
from typing import NamedTuple, Self

from clickstream_assets.engine import DataFrame, Engine, functions_of

SIGNIFICANCE = 0.03
"""The chance that an algorithm that is no better is ever published."""
LEAST_NEW_SHARE = 0.1
"""Less than this of new interactions to judge by is no look: it would be paid for, and say nothing."""


def significance(look: int) -> float:
    """Return the chance of a false alarm that a look is allowed; over all looks they come to `SIGNIFICANCE`.

    Args:
        look: its number, from 1.
    """
    return SIGNIFICANCE * 6 / (pi * look) ** 2


def next_look(last: int, new_share: float) -> int | None:
    """Return the number of the look that is due; None while too little is new.

    The same data as last time are the same look: its answer is the same.

    Args:
        last: number of the last look; 0 before the first.
        new_share: share of what is judged by that came after the last look.
    """
    if not last or new_share >= LEAST_NEW_SHARE:
        return last + 1
    return None if new_share else last


def is_surely_higher(share: float, count: int, other: float, other_count: int) -> bool:
    """Return whether a share is higher than another, that of other trials, by more than chance.

    The z-test of two proportions, pooled and one-sided, at `SIGNIFICANCE` (Fleiss, Levin and Paik, "Statistical Methods
    for Rates and Proportions", 3rd edition, 2003, section 3.1).

    Args:
        share, count: the share, 0 to 1, and of how many trials; one at least.
        other, other_count: what it is compared with.
    """
    pooled = (share * count + other * other_count) / (count + other_count)
    error = sqrt(pooled * (1 - pooled) * (1 / count + 1 / other_count))
    return error > 0 and (share - other) / error > NormalDist().inv_cdf(1 - SIGNIFICANCE)


class News(NamedTuple):
    """What came since the last look."""

    until: datetime
    """The newest interaction that is judged by."""
    share: float
    """Share of the interactions that are judged by and came after the last look; 1 before the first."""

    @classmethod
    def since(cls, engine: Engine, future: DataFrame, last: datetime | None) -> Self:
        """Count them among INTERACTION_DAYS rows.

        Where all are older than the last look, as in a lake that was put back to an earlier time, all are new.
        """
        functions, _ = functions_of(future)
        time = functions.col("last_time")
        is_new = functions.lit(True) if last is None else time > functions.lit(last)
        [row] = engine.to_arrow(
            future.agg(
                functions.max(time).alias("until"),
                functions.avg(functions.when(is_new, 1.0).otherwise(0.0)).alias("share"),
            )
        ).to_pylist()
        is_other_time = last is not None and row["until"] < last
        return cls(row["until"], 1.0 if is_other_time else float(row["share"]))
