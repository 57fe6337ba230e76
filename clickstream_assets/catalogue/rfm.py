"""The named segments of customers: which scores for recency, frequency and monetary value make which.

A score is `1 + floor(5 * (rank - 1/2) / n)` among the day's n buyers, ranked from the worst, where equals share the
mean of their ranks: 1 is the worst fifth, 5 the best. Equal behaviour gets an equal score, so the fifths need not be of
the same size, and where all are equal all are in the middle one. `(rank - 1/2) / n` with mean ranks is the percentile
rank of statistics (Hazen's plotting position).
"""

from __future__ import annotations

from dataclasses import dataclass

SCORES = 5


@dataclass(frozen=True)
class RfmSegment:
    """A named part of the scores: from which to which recency score, and which value score.

    The value score is the mean of the frequency and the monetary score, halves rounded up.

    Attributes:
        name: The segment.
        recency: First and last recency score.
        value: First and last value score.
        meaning: What its customers have in common, in words.
        most_orders: Customers with more orders than that are not in it.
    """

    name: str
    recency: tuple[int, int]
    value: tuple[int, int]
    meaning: str
    most_orders: int | None = None

    @property
    def definition(self) -> str:
        """Scores and meaning as a person reads them."""
        recency, value = (
            str(first) if first == last else f"{first} to {last}"
            for first, last in (self.recency, self.value)
        )
        return f"{self.name} (recency {recency}, value {value}): {self.meaning}"


RFM_SEGMENTS = (
    RfmSegment("champions", (5, 5), (4, 5), "bought lately, often and for much"),
    RfmSegment("loyal", (3, 4), (4, 5), "buy often and for much, and not long ago"),
    RfmSegment(
        "potential_loyalist", (4, 5), (2, 3), "bought lately, and more than once or for more than little"
    ),
    RfmSegment("new_customer", (5, 5), (1, 1), "bought lately for the first time in RFM_DAYS", most_orders=1),
    RfmSegment("promising", (4, 5), (1, 1), "bought not long ago, and little so far"),
    RfmSegment("need_attention", (3, 3), (3, 3), "middling in everything"),
    RfmSegment("about_to_sleep", (3, 3), (1, 2), "bought little, and some time ago"),
    RfmSegment("at_risk", (1, 2), (3, 4), "bought often, and have not for long"),
    RfmSegment("cannot_lose", (1, 2), (5, 5), "were among the best, and have not bought for long"),
    RfmSegment("hibernating", (2, 2), (1, 2), "bought little, and long ago"),
    RfmSegment("lost", (1, 1), (1, 2), "bought little, and longest ago"),
)
"""The eleven segments of Putler's "RFM Analysis for Successful Customer Segmentation" (putler.com/rfm-analysis),
whose plane of recency and value is cut here so that each customer is in one: the first of these that fits."""

RFM_SEGMENT_NAMES = tuple(segment.name for segment in RFM_SEGMENTS)
DEFINITIONS = "; ".join(segment.definition for segment in RFM_SEGMENTS)
"""All segments in one text. Value is the mean of the frequency and the monetary score, halves up."""
