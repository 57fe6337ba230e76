"""Units of the tables' whole numbers: times and durations in microseconds, money in ten-thousandths."""

from datetime import UTC, datetime, timedelta

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
