"""Values as an English reader is shown them, and what differs between a page and what it has to show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from clickstream_assets_tests.proofs.pages.seen import Seen, SeenChart

NOTHING = "\N{EN DASH}"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec")
_AGE = re.compile(r"(\d+) (sec|min|hr|day|wk|week|mth|month|yr)s?(?: ago)?")
_UNITS = {
    **{"sec": 1, "min": 60, "hr": 3600, "day": 86_400, "wk": 604_800, "week": 604_800},
    **{"mth": 2_629_800, "month": 2_629_800, "yr": 31_557_600},
}
# Dashes and spaces that do not break are spaces to whoever reads.
_GROUPED = r"-?\d{1,3}(?:,\d{3})*"


class Shown:
    """What is shown in some place."""

    def is_in(self, text: str) -> bool:
        """Return whether the text shows it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Words(Shown):
    """A text."""

    text: str

    def is_in(self, text: str) -> bool:
        """See the base class."""
        return text == " ".join(self.text.split())


@dataclass(frozen=True)
class Number(Shown):
    """A number, rounded to its decimals; None is a dash."""

    value: Decimal | int | float | None
    decimals: int = 0
    before: str = ""
    after: str = ""

    def is_in(self, text: str) -> bool:
        """See the base class."""
        if self.value is None:
            return text == NOTHING
        places = rf"\.\d{{{self.decimals}}}" if self.decimals else ""
        sign, bare = ("-", text[1:]) if text.startswith("-") else ("", text)
        found = re.fullmatch(f"{re.escape(self.before)}({_GROUPED}{places}){re.escape(self.after)}", bare)
        if found is None:
            return False
        shown = Decimal(sign + found[1].replace(",", ""))
        # Half a unit of the last place, and what a binary fraction is beside a decimal one.
        return abs(shown - Decimal(self.value)) <= Decimal(5).scaleb(-self.decimals - 1) + Decimal("1e-6")


def percent(value: Decimal | int | float | None, decimals: int = 2) -> Number:
    """Return a rate that is given per hundred."""
    return Number(value, decimals, after="%")


def money(value: Decimal | int | float | None, currency: str | None) -> Number:
    """Return an amount."""
    return Number(value, 2, before={"EUR": "€", None: ""}[currency])


def day_words(day: date) -> str:
    """Write a day."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def weekday(day: date) -> str:
    """Write a weekday, day and month."""
    return f"{day:%a} {day.day} {_MONTHS[day.month - 1]}"


def full_day(day: date) -> str:
    """Write a day in full."""
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def moment(at: datetime | str | None) -> Words:
    """Return a moment, by clocks in UTC."""
    if at is None:
        return Words(NOTHING)
    at = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    return Words(f"{day_words(at.date())}, {at:%H:%M:%S}")


@dataclass(frozen=True)
class Age(Shown):
    """How long ago something was when the page was made; None for never."""

    at: datetime | str | None
    after: str = " ago"
    never: str = "never"

    def is_in(self, text: str) -> bool:
        """See the base class."""
        if self.at is None:
            return text == self.never
        at = datetime.fromisoformat(self.at) if isinstance(self.at, str) else self.at
        found = _AGE.fullmatch(text)
        if not found or not text.endswith(self.after):
            return False
        unit = _UNITS[found[2]]
        seconds = (datetime.now(UTC) - at).total_seconds()
        # The page was made some seconds before, and a unit is rounded.
        return abs(int(found[1]) * unit - seconds) <= unit + 60


@dataclass(frozen=True)
class Either(Shown):
    """Any of some things."""

    of: tuple[Shown, ...]

    def is_in(self, text: str) -> bool:
        """See the base class."""
        return any(one.is_in(text) for one in self.of)


@dataclass(frozen=True)
class Change(Shown):
    """How a figure compares with an earlier one."""

    value: Decimal | int
    before: Decimal | int
    since: str

    def is_in(self, text: str) -> bool:
        """See the base class."""
        if not self.before:
            return text == f"none {self.since}"
        per_cent = 100 * (Decimal(self.value) - Decimal(self.before)) / Decimal(self.before)
        sign = "▲" if per_cent > 0 else "▼" if per_cent < 0 else "="
        shown = text.removeprefix(f"{sign} ").removesuffix(f" {self.since}")
        return text == f"{sign} {shown} {self.since}" and percent(abs(per_cent), 1).is_in(shown)


class Sentence(Shown):
    """Words with values between them."""

    def __init__(self, *parts: str | Shown) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"Sentence{self.parts}"

    def is_in(self, text: str) -> bool:
        """See the base class."""
        pattern = "".join("(.*?)" if isinstance(part, Shown) else re.escape(part) for part in self.parts)
        found = re.fullmatch(pattern, text)
        values = [part for part in self.parts if isinstance(part, Shown)]
        return bool(found) and all(
            value.is_in(shown) for value, shown in zip(values, found.groups() if found else (), strict=True)
        )


@dataclass(frozen=True)
class Chart:
    """A chart: labels, and values of each series by its name; `value` says how its table writes them."""

    labels: Sequence[str]
    series: Mapping[str, Sequence[Decimal | int | None]]
    unit: str
    value: Any = Number

    def differences(self, seen: SeenChart) -> Iterator[str]:
        """Yield what a page has otherwise: in the data, in what is drawn, and in the table."""
        if all(value is None for values in self.series.values() for value in values):
            if seen.data is not None or seen.rows:
                yield "is drawn, of nothing"
            return
        if seen.data is None or seen.drawn is None:
            yield "is not drawn"
            return
        if min(seen.drawn["size"]) < 100:
            yield f"is drawn in {seen.drawn['size']} pixels"
        if seen.unit != self.unit or seen.data["unit"] != self.unit:
            yield f"unit {seen.unit!r} instead of {self.unit!r}"
        for what, labels, series in (
            ("data", seen.data["labels"], [(each["name"], each["values"]) for each in seen.data["series"]]),
            ("drawn", seen.drawn["labels"], [tuple(each) for each in seen.drawn["series"]]),
        ):
            if labels != list(self.labels):
                yield f"{what}: labels {labels} instead of {list(self.labels)}"
            if [name for name, _ in series] != list(self.series):
                yield f"{what}: series {[name for name, _ in series]} instead of {list(self.series)}"
                continue
            for name, values in series:
                if not _are_equal(values, self.series[name]):
                    yield f"{what}: {name} is {values} instead of {list(self.series[name])}"
        expected = [
            [Words(label), *(self.value(values[place]) for values in self.series.values())]
            for place, label in enumerate(self.labels)
        ]
        if seen.columns[1:] != list(self.series):
            yield f"columns {seen.columns}"
        yield from rows_differ(seen.rows, expected)


def _are_equal(values: Sequence[Any], expected: Sequence[Decimal | int | None]) -> bool:
    return len(values) == len(expected) and all(
        value is wanted is None
        or (
            value is not None
            and wanted is not None
            and abs(Decimal(value) - Decimal(wanted))
            <= Decimal("1e-6") * max(Decimal(1), abs(Decimal(wanted)))
        )
        for value, wanted in zip(values, expected, strict=True)
    )


def rows_differ(seen: Sequence[Sequence[str]], expected: Sequence[Sequence[Shown]]) -> Iterator[str]:
    """Yield what differs between the rows of a table and what they have to be."""
    if len(seen) != len(expected):
        yield f"{len(seen)} rows instead of {len(expected)}"
    for number, (row, wanted) in enumerate(zip(seen, expected, strict=False), start=1):
        if len(row) != len(wanted):
            yield f"row {number} has {len(row)} cells instead of {len(wanted)}: {row}"
            continue
        for text, shown in zip(row, wanted, strict=True):
            if not shown.is_in(text):
                yield f"row {number}, {row[0]}: {text!r} instead of {shown}"


@dataclass
class Contents:
    """What a page has to show, as `Seen` has it."""

    figures: dict[str, list[Shown]] = field(default_factory=dict)
    facts: dict[str, Shown] = field(default_factory=dict)
    charts: dict[str, Chart] = field(default_factory=dict)
    tables: dict[str, Sequence[Sequence[Shown]]] = field(default_factory=dict)
    texts: list[Shown] = field(default_factory=list)

    def differences(self, seen: Seen) -> list[str]:
        """Return all that a page shows otherwise, and each number that nobody expects."""
        found: list[str] = []

        def note(where: str, differences: Iterator[str]) -> None:
            found.extend(f"{where}: {difference}" for difference in differences)

        for what, there, wanted in (
            ("figures", seen.figures, self.figures),
            ("facts", seen.facts, self.facts),
            ("charts", seen.charts, self.charts),
            # What is empty has no table.
            ("tables", seen.tables, {name: rows for name, rows in self.tables.items() if rows}),
        ):
            if list(there) != list(wanted):
                found.append(f"{what} {list(there)} instead of {list(wanted)}")
        for label, shown in self.figures.items():
            note(label, rows_differ([seen.figures.get(label, [])], [shown]))
        for name, fact in self.facts.items():
            note(name, rows_differ([[seen.facts.get(name, "")]], [[fact]]))
        for title, chart in self.charts.items():
            if title in seen.charts:
                note(title, chart.differences(seen.charts[title]))
        for name, rows in self.tables.items():
            note(name, rows_differ(seen.tables.get(name, []), rows))
        unknown = [text for text in seen.texts if not any(shown.is_in(text) for shown in self.texts)]
        missing = [shown for shown in self.texts if not any(shown.is_in(text) for text in seen.texts)]
        found += [f"a number that nobody expects: {text!r}" for text in unknown]
        found += [f"is not shown: {shown}" for shown in missing]
        return found
