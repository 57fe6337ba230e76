"""What is said of a page that shows other than it has to."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from clickstream_assets_tests.proofs.pages.seen import Seen, SeenChart
from clickstream_assets_tests.proofs.pages.shown import (
    NOTHING,
    Change,
    Chart,
    Contents,
    Number,
    Shown,
    Words,
    money,
    percent,
)

SEEN = Seen(
    figures={"Orders": ["1,234", "▲ 2.8% against yesterday"]},
    facts={},
    charts={
        "Visits": SeenChart(
            title="Visits",
            unit="visits",
            data={
                "unit": "visits",
                "labels": ["a", "b"],
                "series": [{"name": "Visits", "values": [1, None]}],
            },
            drawn={"labels": ["a", "b"], "series": [["Visits", [1, None]]], "size": [300, 200]},
            columns=["Day", "Visits"],
            rows=[["a", "1"], ["b", NOTHING]],
        )
    },
    tables={"Products: Product": [["p1", "€9.99"]]},
    texts=["1 Oct 2019"],
    chosen={},
    addresses=[],
    times=[],
)
CONTENTS = Contents(
    figures={"Orders": [Number(1234), Change(1234, 1200, "against yesterday")]},
    charts={"Visits": Chart(["a", "b"], {"Visits": [1, None]}, "visits")},
    tables={"Products: Product": [[Words("p1"), money(Decimal("9.99"), "EUR")]], "Alerts: Product": []},
    texts=[Words("1 Oct 2019")],
)
CHART = SEEN.charts["Visits"]
DRAWN = CHART.drawn or {}


def test_a_page_that_shows_what_it_has_to_differs_in_nothing():
    assert CONTENTS.differences(SEEN) == []


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, figures={"Orders": ["1,235", "▲ 2.8% against yesterday"]}),
        replace(SEEN, figures={"Orders": ["1,234", "▼ 2.8% against yesterday"]}),
        replace(SEEN, figures={"Orders": ["1,234"]}),
        replace(SEEN, figures={**SEEN.figures, "Visits": ["1"]}),
        replace(SEEN, facts={"Price": "1"}),
        replace(SEEN, tables={"Products: Product": [["p1", "€9.98"]]}),
        replace(SEEN, tables={"Products: Product": [["p1", "€9.99"], ["p2", "€1.00"]]}),
        replace(SEEN, tables={**SEEN.tables, "More: Product": [["p1", "1"]]}),
        replace(SEEN, texts=["1 Oct 2019", "All 3 of them"]),
        replace(SEEN, texts=[]),
        replace(SEEN, charts={"Visits": replace(CHART, unit="orders")}),
        replace(SEEN, charts={"Visits": replace(CHART, drawn=None)}),
        replace(SEEN, charts={"Visits": replace(CHART, drawn={**DRAWN, "size": [300, 0]})}),
        replace(SEEN, charts={"Visits": replace(CHART, drawn={**DRAWN, "series": [["Visits", [1, 0]]]})}),
        replace(SEEN, charts={"Visits": replace(CHART, rows=[["a", "1"], ["b", "0"]])}),
        replace(SEEN, charts={}),
    ],
)
def test_whatever_differs_is_said(seen: Seen):
    assert len(CONTENTS.differences(seen)) >= 1


@pytest.mark.parametrize(
    ("shown", "text", "is_in"),
    [
        (Number(Decimal("1234.5")), "1,234", True),
        (Number(Decimal("1234.5")), "1,235", True),
        (Number(Decimal("1234.6")), "1,234", False),
        (Number(1234), "1234", False),
        (Number(None), "0", False),
        (money(Decimal("-9.999"), "EUR"), "-€10.00", True),
        (money(Decimal("9.99"), None), "€9.99", False),
        # 4.348 is not 4.4, as it would be if it were rounded twice.
        (percent(Decimal("4.348"), 1), "4.4%", False),
        (percent(Decimal("4.348"), 1), "4.3%", True),
        (percent(Decimal("4.348")), "4.3%", False),
        (Change(0, 0, "against yesterday"), "none against yesterday", True),
        (Change(5, 5, "against yesterday"), "= 0.0% against yesterday", True),
    ],
)
def test_numbers_are_what_is_written_to_the_last_place(shown: Shown, text: str, is_in: bool):
    assert shown.is_in(text) is is_in
