"""Metadata that a person reads: small bar charts and tables."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import dagster as dg

# Markdown, and addresses, of which the UI makes links even where their characters are escaped.
_MARKUP = re.compile(r"[\\`*\[\]<>|~@]|://|www\.", re.IGNORECASE)
_BAR_WIDTH = 320
_ROW_HEIGHT = 22
_HEAD_HEIGHT = 44
_CHARACTER_WIDTH = 6.6
"""Width of the text at its size, about."""
_LONGEST_NAME = 40
_VALUE_WIDTH = 100


def bar_plot(title: str, unit: str, values: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Draw one bar per name, in the order given, as a picture that the UI shows without fetching anything.

    Args:
        title: what is shown, and of when.
        unit: what the values count, or are measured in.
        values: a value per name; a fraction is shown with two decimals.
    """
    greatest = max([*values.values(), 0]) or 1
    names = [shortened(name, _LONGEST_NAME) for name in values]
    label_width = 16 + _CHARACTER_WIDTH * max(map(len, names), default=0)
    rows = [
        f'<text x="8" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="8" y="35" fill="#616e7c">{escape(unit if values else "nothing to show")}</text>',
    ]
    for number, (name, value) in enumerate(zip(names, values.values(), strict=True)):
        top = _HEAD_HEIGHT + number * _ROW_HEIGHT
        width = max(0.0, value / greatest * _BAR_WIDTH)
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        rows.append(
            f'<text x="{label_width - 8:.1f}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{label_width:.1f}" y="{top + 3}" width="{width:.1f}" height="{_ROW_HEIGHT - 6}" fill="#4f43dd"/>'
            f'<text x="{label_width + width + 6:.1f}" y="{top + 15}">{shown}</text>'
        )
    width = max(label_width + _BAR_WIDTH + _VALUE_WIDTH, 16 + 1.3 * _CHARACTER_WIDTH * len(title))
    height = _HEAD_HEIGHT + len(values) * _ROW_HEIGHT + 6
    # On white, for the text's sake in the dark theme.
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>'
    )
    encoded = b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")


def shortened(text: str, most: int) -> str:
    """Return a text with at most so many characters, the last of which says that more were cut off."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def text_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """Lay rows out as a table; whole numbers get separators of thousands, and a text is shown as it is."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else _as_it_is(str(cell)) for cell in row] for row in rows]
    # In a table a bar ends a cell in code too.
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in cells)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def text_list(items: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Lay texts out as a list, each shown as it is: of a wide table the UI cuts off what is right."""
    return dg.MetadataValue.md("\n".join(f"- {_as_it_is(item)}" for item in items) or "none")


def _as_it_is(text: str) -> str:
    # Ids and values are what senders make them: as code, no link, no picture and no HTML comes of one.
    line = " ".join(text.split())
    if not _MARKUP.search(line):
        return line
    return "`" + line.replace("`", "'") + "`"
