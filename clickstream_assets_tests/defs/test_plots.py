"""Pictures and tables in metadata."""

from __future__ import annotations

import re
from base64 import b64decode
from xml.etree import ElementTree

import pytest

from clickstream_assets.defs.plots import bar_plot, text_list, text_table

SVG = "{http://www.w3.org/2000/svg}"


def picture_of(markdown: str) -> ElementTree.Element:
    encoded = re.fullmatch(r"!\[.*\]\(data:image/svg\+xml;base64,(.+)\)", markdown)
    assert encoded
    return ElementTree.fromstring(b64decode(encoded[1]))


def test_a_plot_has_a_title_a_unit_and_a_bar_per_name_within_its_picture():
    values = {"p<1>": 1200, "shoes & more": 600, "x" * 60: 0}
    picture = picture_of(str(bar_plot("Most viewed products, 2024-05-01", "views", values).value))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert texts == [
        *("Most viewed products, 2024-05-01", "views"),
        *("p<1>", "1,200", "shoes & more", "600", "x" * 39 + "…", "0"),
    ]
    widths = [
        float(bar.get("width", "")) for bar in picture.iter(f"{SVG}rect") if bar.get("height") != "100%"
    ]
    assert widths == [320, 160, 0]
    width, height = (float(picture.get(name, "")) for name in ("width", "height"))
    for part in picture.iter():
        assert float(part.get("x", "0")) <= width
        assert float(part.get("y", "0")) <= height


def test_a_plot_of_fractions_shows_two_decimals_and_one_of_nothing_says_so():
    picture = picture_of(str(bar_plot("Revenue by campaign", "revenue", {"spring": 1234.5}).value))
    assert "1,234.50" in [text.text for text in picture.iter(f"{SVG}text")]
    empty = picture_of(str(bar_plot("Revenue by campaign", "revenue", {}).value))
    assert [text.text for text in empty.iter(f"{SVG}text")] == ["Revenue by campaign", "nothing to show"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        ("out_of_range", "out_of_range"),
        ("a|b", "`a|b`"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("![x](http://example.org/x.png)", "`![x](http://example.org/x.png)`"),
        ("see WWW.example.org", "`see WWW.example.org`"),
        ("ann@example.org", "`ann@example.org`"),
        ("10:30", "10:30"),
        ("<img src=x>", "`<img src=x>`"),
        ("`*\\", r"`'*\`"),
    ],
)
def test_a_cell_shows_a_value_as_it_is_whoever_made_it(value: object, shown: str):
    assert (
        text_table(["value"], [(value,)]).value
        == f"| value |\n| --- |\n| {shown.replace('|', chr(92) + '|')} |"
    )
    if isinstance(value, str):
        assert text_list([value, "other"]).value == f"- {shown}\n- other"
