"""Times of a shop's clock as files and spreadsheets write them, with the year, the month or the day first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice, pairwise
from typing import NamedTuple

_TIME = re.compile(
    r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})[ T](\d{1,2}):(\d{2})(?::(\d{2}))?(?: ([AP]M))?",
    re.ASCII | re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})[ T](\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_MONTHS = 12
_TIMES_LOOKED_AT = 200_000

Span = tuple[datetime, datetime]
"""The earliest time, and the first that is too late."""


class DayOrder(NamedTuple):
    """Reading of times like 1/12/2010 8:26.

    Attributes:
        is_day_first: Whether they begin with the day.
        example: One of them, where nothing shows which; else "".
    """

    is_day_first: bool = False
    example: str = ""

    @property
    def remark(self) -> str:
        """Words for what is not sure; "" where all is."""
        if not self.example:
            return ""
        return f"times like {self.example!r} read with the month first, since nothing shows which it is"


def _anything(_: int) -> Span | None:
    return None


def day_order(
    times: Iterable[tuple[int | None, str]], span_of: Callable[[int], Span | None] = _anything
) -> DayOrder:
    """Tell whether times like 1/12/2010 8:26 begin with the day, as spreadsheets of most countries write them.

    A number above 12 is no month. Where there is none, of the two readings that one holds in which fewer times are
    outside of their spans, or fall as what they are of rises in number.

    Args:
        times: Times as they are written, and the numbers of what they are of, if these rise with time. If the first is
            in another form, all are taken to be.
        span_of: Returns the span of the times of a number, where it is known.
    """
    by_number: dict[int, str] = {}
    example = ""
    for number, text in islice(times, _TIMES_LOOKED_AT):
        given = _TIME.fullmatch(text)
        if given is None:
            if text and not example:
                return DayOrder()
            continue
        first, second = int(given[1]), int(given[3])
        if max(first, second) > _MONTHS:
            return DayOrder(first > _MONTHS)
        if not example or first != second:
            example = text
        if number is not None:
            by_number.setdefault(number, text)
    faults = [_faults(sorted(by_number.items()), is_day_first, span_of) for is_day_first in (False, True)]
    if faults[0] != faults[1]:
        return DayOrder(faults[1] < faults[0])
    is_same = not example or iso_time(example, False) == iso_time(example, True)
    return DayOrder(example="" if is_same else example)


def _faults(
    numbered: Sequence[tuple[int, str]], is_day_first: bool, span_of: Callable[[int], Span | None]
) -> int:
    moments: list[datetime] = []
    outside = 0
    for number, text in numbered:
        try:
            moment = datetime.fromisoformat(iso_time(text, is_day_first))
        except ValueError:
            continue
        moments.append(moment)
        if span := span_of(number):
            outside += not span[0] <= moment < span[1]
    return outside + sum(later < earlier for earlier, later in pairwise(moments))


def iso_time(text: str, is_day_first: bool) -> str:
    """Return a time in ISO 8601, without an offset if it has none.

    Raises:
        ValueError: it is no time, or in no form that is known.
    """
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _of_spreadsheet(text, is_day_first)
    return text.replace(" ", "T", 1)


def _of_spreadsheet(text: str, is_day_first: bool) -> str:
    if given := _TIME.fullmatch(text):
        first, _, second, year, hour, minute, seconds, half = given.groups(default="")
        month, day = (second, first) if is_day_first else (first, second)
        if half:
            hour = str(int(hour) % 12 + 12 * (half.upper() == "PM"))
        return _iso(f"20{year}" if len(year) == 2 else year, month, day, hour, minute, seconds)
    if given := _YEAR_FIRST.fullmatch(text):
        return _iso(*given.groups(default=""))
    raise ValueError("it is neither like 2010-12-01 08:26:00 nor like 12/1/2010 8:26")


def _iso(year: str, month: str, day: str, hour: str, minute: str, seconds: str) -> str:
    return datetime(int(year), int(month), int(day), int(hour), int(minute), int(seconds or 0)).isoformat()
