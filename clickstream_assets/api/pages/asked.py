"""What the address of a page asks for: a day, a range of days, a choice."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from typing import NamedTuple

from flask import request


class Range(NamedTuple):
    """Days from a first to a last one, both included."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        """All of them, in order."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    @property
    def before(self) -> Range:
        """The range as long that ends the day before."""
        days = (self.last - self.first).days + 1
        return Range(self.first - timedelta(days=days), self.first - timedelta(days=1))


def day_asked(name: str) -> date | None:
    """Return a day of the address; None if there is none, or what is there is no day."""
    try:
        return date.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None


def range_asked(last_day: date, days: int, most: int = 400) -> Range:
    """Return the range of the address; by default so many days up to the last one, and `most` days at most."""
    last = day_asked("until") or last_day
    first = day_asked("since") or last - timedelta(days=days - 1)
    first, last = min(first, last), max(first, last)
    return Range(max(first, last - timedelta(days=most - 1)), last)


def choice_asked(name: str, choices: Collection[str], usual: str) -> str:
    """Return a choice of the address, or else the usual one."""
    asked = request.args.get(name, usual)
    return asked if asked in choices else usual
