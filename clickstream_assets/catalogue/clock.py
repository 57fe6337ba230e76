"""The shop's clock: the day that a moment belongs to, and the moment at which a day begins.

A day begins at its midnight by the clocks of SHOP_TIME_ZONE and lasts until the next one begins: 23 or 25 hours where
these are put forward or back. A midnight that they pass over is the moment at which they are put forward; of one that
they show twice it is the first. So days follow each other, also where clocks are put back over midnight.

Python's `zoneinfo` alone says when clocks change, for both engines: DuckDB and Java have time zones of their own, which
are older or newer than Python's.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property, lru_cache
from itertools import groupby
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

from clickstream_assets.catalogue.units import DAY, EPOCH, MICROSECOND

_FIRST = EPOCH.toordinal()


@lru_cache(maxsize=65_536)
def _span(zone: str, number: int) -> tuple[int, int]:
    """Return when a day begins and ends, in microseconds since 1970; `number` counts days since then."""
    first = date.fromordinal(_FIRST + number)
    begin, end = (
        # Of a time that clocks show twice this is the first; of one that they pass over, as if they had not yet.
        (datetime.combine(day, time.min, ZoneInfo(zone)) - EPOCH) // MICROSECOND
        for day in (first, first + timedelta(days=1))
    )
    return begin, end


# No other numbers: those of 8 digits are seconds of August 1970, those of 12 milliseconds of 1976, and those of 14 are
# after the year 2600.
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_YEARS = range(1990, 2100)


def in_digits(number: int) -> datetime | None:
    """Return the time without a zone whose digits a number has, of 1990 to 2099; None if it is a count since 1970.

    Its digits are those of a day (20210131, which is its midnight here), of a minute (202101311234) or of a second.
    """
    text = str(number)
    if len(text) not in _DIGITS or int(text[:4]) not in _YEARS:
        return None
    try:
        return datetime.strptime(text, _DIGITS[len(text)])
    except ValueError:
        return None


@dataclass(frozen=True)
class ShopClock:
    """Days of a time zone, by its IANA name."""

    zone: str = "UTC"

    @cached_property
    def tzinfo(self) -> tzinfo:
        """The zone of times that are written without one."""
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    def day_number(self, moment: int) -> int:
        """Return the day of a moment, in days since 1970; the moment is in microseconds since then, in UTC."""
        number = moment // DAY
        if self.zone == "UTC":
            return number
        # The day in UTC, or one of those beside it.
        begin, end = _span(self.zone, number)
        return number - 1 if moment < begin else number + (moment >= end)

    def day_of(self, moment: datetime) -> date:
        """Return the day of a moment, which has a zone."""
        return date.fromordinal(_FIRST + self.day_number((moment - EPOCH) // MICROSECOND))

    def today(self) -> date:
        """Return the day that it is now."""
        return self.day_of(datetime.now(UTC))

    def begin_us(self, day: date) -> int:
        """Return when a day begins, in microseconds since 1970."""
        number = day.toordinal() - _FIRST
        return number * DAY if self.zone == "UTC" else _span(self.zone, number)[0]

    def begin(self, day: date) -> datetime:
        """Return when a day begins, in UTC."""
        return EPOCH + self.begin_us(day) * MICROSECOND

    def begin_column(self, F: ModuleType, day: Any, first: date, last: date) -> Any:
        """Column: when the day in the column `day` begins, in microseconds since 1970.

        Args:
            F: functions of the engine.
            day: a column of dates.
            first: the first day that has to be right; what is said of days before is not.
            last: the last one.
        """
        midnight = F.datediff(day, F.lit(EPOCH.date())).cast("long") * F.lit(DAY)
        if self.zone == "UTC":
            return midnight
        days = (first + timedelta(days=number) for number in range((last - first).days + 1))
        # Clocks change twice a year, so there are few ranges of days.
        (earliest, _), *later = [(offset, next(its)) for offset, its in groupby(days, self._ahead)]
        shift = F.lit(earliest)
        for offset, since in later:
            shift = F.when(day >= F.lit(since), F.lit(offset)).otherwise(shift)
        return midnight - shift

    def _ahead(self, day: date) -> int:
        """Return how much earlier a day begins than in UTC, in microseconds."""
        return (day.toordinal() - _FIRST) * DAY - self.begin_us(day)


UTC_CLOCK = ShopClock()
