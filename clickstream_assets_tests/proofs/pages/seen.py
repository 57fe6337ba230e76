"""All that a page shows in a browser: its figures, charts and tables, and whatever else has a number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from playwright.sync_api import Page

_READ = r"""
() => {
  const text = (node) => node.textContent.replace(/\s+/g, " ").trim();
  const apart = ".figures, table, canvas, script, style, select, footer ul, .facts";
  const drawn = (figure) => {
    const canvas = figure.querySelector("canvas");
    const chart = canvas && Chart.getChart(canvas);
    return chart && {
      labels: chart.data.labels,
      series: chart.data.datasets.map((set) => [set.label, set.data]),
      size: [chart.width, chart.height],
    };
  };
  const rows = (table) => [...table.querySelectorAll("tbody tr")].map((row) => [...row.cells].map(text));
  const tableName = (table) => [
    text(table.closest("section").querySelector("h2")),
    table.caption ? text(table.caption) : text(table.querySelector("thead th")),
  ].join(": ");
  const rest = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (/\d/.test(walker.currentNode.data) && !parent.closest(apart)) {
      rest.add(parent.closest("h1, h2, p, li, dt, dd, summary, label, div, section"));
    }
  }
  return {
    figures: [...document.querySelectorAll(".figure")]
      .map((figure) => [...figure.querySelectorAll("dt, dd")].map(text)),
    facts: [...document.querySelectorAll(".facts > div")].map((fact) => [...fact.children].map(text)),
    charts: [...document.querySelectorAll("figure.chart")].map((figure) => ({
      title: text(figure.querySelector("h2")), unit: text(figure.querySelector(".unit")), drawn: drawn(figure),
      data: figure.querySelector("script")?.textContent ?? null,
      columns: [...figure.querySelectorAll("thead th")].map(text), rows: rows(figure),
    })),
    tables: [...document.querySelectorAll("table")].filter((table) => !table.closest("figure"))
      .map((table) => [tableName(table), rows(table)]),
    texts: [...rest].map(text),
    chosen: Object.fromEntries([...document.querySelectorAll("form.filters [name]")]
      .map((field) => [field.name, field.type === "checkbox" ? String(field.checked) : field.value])),
    addresses: [...document.querySelectorAll("footer ul a")].map((link) => link.getAttribute("href")),
    times: [...document.querySelectorAll("time")].map((time) => [time.dateTime, time.title, text(time)]),
  };
}
"""


@dataclass(frozen=True)
class SeenChart:
    """A chart: its title and unit, the JSON that is drawn, what the library drew, and the table beside it."""

    title: str
    unit: str
    data: dict[str, Any] | None
    drawn: dict[str, Any] | None
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Seen:
    """A page.

    Attributes:
        figures: Value and changes of each, by its label.
        facts: What is known of the page's subject.
        charts: By their titles.
        tables: Rows of cells, by the heading of the section and the caption, or else the first column.
        texts: All other texts that have a digit.
        chosen: What the filters have, by name.
        addresses: Where the page says that it is from.
        times: Of each time that is shown as an age: the time, in words, and the age.
    """

    figures: dict[str, list[str]]
    facts: dict[str, str]
    charts: dict[str, SeenChart]
    tables: dict[str, list[list[str]]]
    texts: list[str]
    chosen: dict[str, str]
    addresses: list[str]
    times: list[tuple[str, str, str]]


def read(page: Page) -> Seen:
    """Read a page."""
    found = page.evaluate(_READ)
    charts = [
        SeenChart(
            title=each["title"],
            unit=each["unit"],
            data=json.loads(each["data"], parse_float=Decimal) if each["data"] else None,
            drawn=each["drawn"],
            columns=each["columns"],
            rows=each["rows"],
        )
        for each in found["charts"]
    ]
    names = [name for name, _ in found["tables"]]
    assert len(names) == len(set(names)), names
    return Seen(
        figures={label: shown for label, *shown in found["figures"]},
        facts=dict(found["facts"]),
        charts={chart.title: chart for chart in charts},
        tables=dict(found["tables"]),
        texts=found["texts"],
        chosen=found["chosen"],
        addresses=found["addresses"],
        times=[(at, words, age) for at, words, age in found["times"]],
    )
