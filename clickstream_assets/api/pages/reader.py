"""Numbers, amounts and times as the reader of a page writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time, format_timedelta
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent
from werkzeug.datastructures import LanguageAccept

from clickstream_assets.api.pages.parts import Kind

_USUAL = "en"
NOTHING = "\N{EN DASH}"
"""What is shown where there is no value."""


@dataclass(frozen=True)
class Reader:
    """The reader of a page.

    Attributes:
        locale: How they write numbers and times; pages are in English.
        zone: The shop's time zone.
        currency: ISO 4217 code of the shop's currency; None if no amount names one.
    """

    locale: Locale
    zone: ZoneInfo
    currency: str | None

    @classmethod
    def of(cls, languages: LanguageAccept, zone: str, currency: str | None) -> Self:
        """Take the first of the languages that a request prefers which is known."""
        for tag in languages.values():
            try:
                return cls(Locale.parse(tag, sep="-"), ZoneInfo(zone), currency)
            except (UnknownLocaleError, ValueError):
                continue
        return cls(Locale.parse(_USUAL), ZoneInfo(zone), currency)

    @property
    def tag(self) -> str:
        """The locale as browsers name it (BCP 47)."""
        return str(self.locale).replace("_", "-")

    def unit(self, kind: Kind, of_number: str = "number") -> str:
        """Return what values of a kind are; of numbers, what is given."""
        return {"money": self.currency or "amount", "percent": "per cent"}.get(kind, of_number)

    def number(self, value: float | None, decimals: int = 0) -> str:
        """Write a number."""
        if value is None:
            return NOTHING
        whole = self.locale.decimal_formats[None].pattern.partition(".")[0]
        return format_decimal(value, format=_with_decimals(whole, decimals), locale=self.locale)

    def compact(self, value: float | None) -> str:
        """Write a number with three digits or so: 12K."""
        return (
            NOTHING if value is None else format_compact_decimal(value, locale=self.locale, fraction_digits=1)
        )

    def money(self, value: float | None) -> str:
        """Write an amount in the shop's currency."""
        if value is None:
            return NOTHING
        if self.currency is None:
            return self.number(value, 2)
        return format_currency(value, self.currency, locale=self.locale)

    def percent(self, value: float | None, decimals: int = 2) -> str:
        """Write a rate that is given per hundred: with the two decimals that the API's rates have, unless given.

        Rounded again, 4.348 would be 4.35 and then 4.4.
        """
        if value is None:
            return NOTHING
        pattern = _with_decimals(self.locale.percent_formats[None].pattern, decimals)
        return format_percent(value / 100, format=pattern, locale=self.locale)

    def day(self, day: date | None, form: str = "medium") -> str:
        """Write a day."""
        return NOTHING if day is None else format_date(day, form, locale=self.locale)

    def weekday(self, day: date) -> str:
        """Write the weekday, and the day and month."""
        return format_date(day, "EEE d MMM", locale=self.locale)

    def clock(self, moment: datetime) -> str:
        """Write the time of day by the shop's clocks."""
        return format_time(moment, "short", tzinfo=self.zone, locale=self.locale)

    def moment(self, moment: datetime | None) -> str:
        """Write a moment by the shop's clocks."""
        if moment is None:
            return NOTHING
        return format_datetime(moment, "medium", tzinfo=self.zone, locale=self.locale)

    def moment_of(self, text: str | None) -> str:
        """Write a moment that an answer has as text."""
        return self.moment(datetime.fromisoformat(text) if text else None)

    def duration(self, seconds: float | None) -> str:
        """Write how long something takes, in its largest unit: 3 min."""
        if seconds is None:
            return NOTHING
        return format_timedelta(timedelta(seconds=max(0, seconds)), format="short", locale=self.locale)


def _with_decimals(pattern: str, decimals: int) -> str:
    """Return a locale's pattern of whole numbers (Unicode TR 35) for numbers with so many decimals."""
    return pattern.replace("##0", f"##0.{'0' * decimals}") if decimals else pattern
