"""Rows that are no events: why, how many, and the first of them."""

from collections import Counter

BLANK_LINE = "blank_line"
MALFORMED_ROW = "malformed_row"
NO_CUSTOMER = "no_customer"
NO_EVENTS = "no_events"
NO_ORDER = "no_order"
NO_PRICE = "no_price"
NO_QUANTITY = "no_quantity"

_EXAMPLES = 5


class SkippedRow(Exception):
    """Raised for a row that is no event; the first argument is the reason, the second says more."""


class Skipped:
    """Rows and lines that one reading of a file left out.

    Attributes:
        counts: Numbers of rows, by reason.
        examples: The first malformed ones, with their places.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []

    def note(self, place: str, reason: str, detail: str = "") -> None:
        """Count a row, and keep it as an example where it is malformed."""
        self.counts[reason] += 1
        if reason == MALFORMED_ROW and len(self.examples) < _EXAMPLES:
            self.examples.append(f"{place}: {detail}")
