"""The parts that pages are made of: figures, charts with a table beside them, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["number", "ratio", "money", "percent", "duration"]
"""How values are written; a ratio is up to 1 or so, a duration is in seconds."""


@dataclass(frozen=True)
class Change:
    """What a figure is compared with.

    Attributes:
        since: What it is compared with, in words: `yesterday`.
        per_cent: How much more it is, per hundred; None where there was nothing.
        is_good: Whether that is good news; None if it is neither.
    """

    since: str
    per_cent: float | None
    is_good: bool | None


@dataclass(frozen=True)
class Figure:
    """A figure, and what it is compared with."""

    label: str
    value: float | None
    kind: Kind = "number"
    changes: tuple[Change, ...] = ()
    link: str | None = None


def compared(
    value: float | None, before: float | None, since: str, *, is_more_better: bool | None = True
) -> Change | None:
    """Compare a figure with an earlier one; None where one of them is not known."""
    if value is None or before is None:
        return None
    per_cent = 100 * (value - before) / before if before else None
    rose = (value > before) - (value < before)
    is_good = None if is_more_better is None or not rose else (rose > 0) == is_more_better
    return Change(since, per_cent, is_good)


@dataclass(frozen=True)
class Series:
    """The values of a chart by one name, one a label; None for none."""

    name: str
    values: Sequence[float | None]
    is_compared: bool = False
    """Whether it is there for comparison, and is drawn fainter."""


@dataclass(frozen=True)
class Chart:
    """A chart with a title and a unit; its table has the same values, for whoever does not see it.

    Attributes:
        id: Unique on its page, a valid HTML id.
        title: What it shows.
        unit: What its values are: `visitors`, `EUR`.
        labels: One for each point or group of bars, as they are shown.
        series: What is drawn.
        form: Lines or bars; `steps` are bars that lie, and `stacked` bars of which each is the sum of its series.
        kind: How values are written.
        label_name: What the labels are, for the table's first column.
        links: Where a label leads, by label.
    """

    id: str
    title: str
    unit: str
    labels: Sequence[str]
    series: Sequence[Series]
    form: Literal["line", "bar", "steps", "stacked"] = "line"
    kind: Kind = "number"
    label_name: str = "Day"
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to draw."""
        return not any(value is not None for series in self.series for value in series.values)

    def drawing(self, currency: str | None) -> dict[str, Any]:
        """Return what the page's script draws."""
        return {
            "form": self.form,
            "kind": self.kind,
            "currency": currency,
            "unit": self.unit,
            "labels": list(self.labels),
            "series": [
                {"name": each.name, "values": list(each.values), "compared": each.is_compared}
                for each in self.series
            ],
        }


@dataclass(frozen=True)
class Cell:
    """A value of a table, as it is written, and where it leads.

    Attributes:
        text: As it is shown.
        link: Where it leads; None for nowhere.
        is_number: Whether it stands on the right.
        warmth: 0 to 10 for a cell of a heat map; None for another.
        picture: Address of a small picture before the text; None for none.
    """

    text: str
    link: str | None = None
    is_number: bool = False
    warmth: int | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Listing:
    """A table with a title.

    Attributes:
        id: Unique on its page, a valid HTML id.
        title: What its rows are.
        columns: Headings; those of numbers stand on the right.
        rows: Cells; the first of a row names it.
        note: What is to be known of it.
        empty: What is said where it has no rows.
        csv: Where all of it is had as CSV.
        more: Where the rows after these are; None without any.
    """

    id: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    empty: str = "There is nothing here."
    csv: str | None = None
    more: str | None = None


@dataclass(frozen=True)
class Filter:
    """A parameter of a page's address, to be chosen.

    Attributes:
        name: The parameter's.
        label: What is chosen.
        value: What is chosen now.
        choices: The choices with what they are called; None for a free one.
        type: Of a free one: `date` or `text`.
    """

    name: str
    label: str
    value: Any
    choices: Mapping[str, str] | None = None
    type: Literal["date", "text"] = "date"
