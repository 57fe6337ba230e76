"""Metadata that a person reads: small bar charts and tables."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import dagster as dg

_BAR_WIDTH = 320
_ROW_HEIGHT = 22
_LABEL_WIDTH = 160
_VALUE_WIDTH = 120


def bar_plot(title: str, values: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Draw one bar per name, in the order given, as a picture that the UI shows without fetching anything."""
    greatest = max([*values.values(), 0]) or 1
    rows = []
    for number, (name, value) in enumerate(values.items()):
        top = number * _ROW_HEIGHT
        width = max(0.0, value / greatest * _BAR_WIDTH)
        rows.append(
            f'<text x="{_LABEL_WIDTH - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LABEL_WIDTH}" y="{top + 3}" width="{width:.1f}" height="{_ROW_HEIGHT - 6}" fill="#4f43dd"/>'
            f'<text x="{_LABEL_WIDTH + width + 6:.1f}" y="{top + 15}">{value:,.10g}</text>'
        )
    width, height = _LABEL_WIDTH + _BAR_WIDTH + _VALUE_WIDTH, max(1, len(values)) * _ROW_HEIGHT
    # On white, for the text's sake in the dark theme.
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>'
    )
    encoded = b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")


def text_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """Lay rows out as a table; whole numbers get separators of thousands."""
    lines = [titles, ["---"] * len(titles), *rows]
    cells = ([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines)
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in cells))
