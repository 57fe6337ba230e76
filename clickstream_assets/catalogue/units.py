"""Units of the tables' numbers: times and durations in microseconds, money in ten-thousandths, rates in per cent."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Times are counted from here."""
MICROSECOND = timedelta(microseconds=1)
"""A duration divided by it, with `//`, is its number of microseconds."""
SECOND = 1_000_000
"""Microseconds in a second."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MONEY_UNITS = 10_000
"""Units in 1.00 of a currency: money has four decimals."""


def percent(part: int | Decimal, whole: int | Decimal) -> Decimal:
    """Return `part` per hundred of `whole`, two decimals, halves to even; 0 where `whole` is 0.

    The columns of type PERCENT are rounded so too, by `percent` in `analytics/measures.py`.
    """
    return round(Decimal(100 * part) / whole, 2) if whole else Decimal(0)
