"""A look at a file's first records before any of them is sent: what it is taken for, and what becomes of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import NO_TIME_OF_DAY, Rejection, ValidationRules, in_bounds
from clickstream_assets.ingest.files import EventFile, KeyedValue
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.settings import Settings

FIRST_RECORDS = 1000
"""Records of a file that are looked at before it is sent."""
_NEARLY_ALL = 0.95
_SELDOM = 0.1
_STRAY = timedelta(days=365)
_RULES_SHOWN = 5
_VALUES_SHOWN = 3
_LONGEST_VALUE_SHOWN = 60


@dataclass
class FirstLook:
    """What becomes of the first records of a file.

    Attributes:
        records: How many were looked at.
        events: How many events they have.
        rejected: How many of their items will be rejected, by field and rule.
        examples: Up to three different values of each of these, where there are some.
        first_day: The earliest day of the events, were none too early; None where there is none.
    """

    records: int = 0
    events: int = 0
    rejected: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    examples: defaultdict[tuple[str | None, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    first_day: date | None = None

    @property
    def is_nearly_all_rejected(self) -> bool:
        """Whether of twenty items more than nineteen will be rejected."""
        rejected = self.rejected.total()
        return rejected > _NEARLY_ALL * (self.events + rejected)

    @property
    def reasons(self) -> str:
        """The fields and rules that are broken, the most frequent first."""
        shown = [
            f"{count:,} {where or 'record'} {rule}{self._example((where, rule))}"
            for (where, rule), count in self.rejected.most_common(_RULES_SHOWN)
        ]
        more = len(self.rejected) - len(shown)
        return "; ".join(shown) + (f"; and by {more} rules more" if more else "")

    def _example(self, of: tuple[str | None, str]) -> str:
        values = ", ".join(repr(value) for value in self.examples.get(of, ()))
        return f" (such as {values})" if values else ""

    def reject(self, rejection: Rejection) -> None:
        """Count an item that will be rejected."""
        broken = (rejection.field, rejection.rule)
        self.rejected[broken] += 1
        shown = (rejection.shown or "")[:_LONGEST_VALUE_SHOWN]
        if shown and shown not in self.examples[broken] and len(self.examples[broken]) < _VALUES_SHOWN:
            self.examples[broken].append(shown)


def look_at(settings: Settings, records: Iterable[KeyedValue]) -> FirstLook:
    """Judge records by the rules of the pipeline; whether they are too early is left to whoever sends them.

    A fault of the file ends it: whoever reads it on meets that.
    """
    look = FirstLook()
    strict = ValidationRules.of(settings.model_copy(update={"events_start_date": None}))
    # An event that is too old has a day too.
    rules = ValidationRules.of(
        settings.model_copy(update={"events_start_date": None, "max_event_age_days": None})
    ).of_topic(settings.first_topic)
    now = (datetime.now(UTC) - EPOCH) // MICROSECOND
    days: list[date] = []

    def judge(found: Any) -> None:
        try:
            if isinstance(found, Rejection):
                raise found
            days.append(rules.clock.day_of(EPOCH + found.event_time * MICROSECOND))
            in_bounds("timestamp", None, found.event_time, now, strict)
            look.events += 1
        except Rejection as rejection:
            look.reject(rejection)

    try:
        for _, value in records:
            look.records += 1
            for found in parse_record(value, now, rules):
                judge(found)
    except InputError:
        if not look.records:
            raise
    look.first_day = _first_of(days)
    return look


def _first_of(days: list[date]) -> date | None:
    """Return the earliest day.

    Up to one event in a hundred that lies more than a year before all others is of a wrong clock, and does not count.
    """
    days.sort()
    after_gaps = [later for day, later in pairwise(days[: len(days) // 100 + 1]) if later - day > _STRAY]
    return max([*days[:1], *after_gaps], default=None)


def look_at_file(settings: Settings, file: EventFile, limit: int | None = None) -> FirstLook:
    """Judge the first records of a file, at most as many as will be sent."""
    return look_at(settings, islice(file, min(FIRST_RECORDS, limit or FIRST_RECORDS)))


def in_words(file: EventFile, look: FirstLook) -> str:
    """Say what a file is taken for, and what becomes of its first records."""
    records = f"first {look.records:,} records" if look.records > 1 else "first record"
    first = f"{file.path.name} is taken for {file.format}: of its {records} "
    rows = _left_out(file, "; rows left out among them: ")
    if not look.rejected:
        return f"{first}no event will be rejected{rows}"
    return f"{first}{look.rejected.total():,} will be rejected: {look.reasons}{rows}"


_ADVICE = (
    ". Say which of its columns are which fields (--map timestamp=when), give all of its events a value that it lacks "
    "(--set event_type=view), or mend the file"
)
_ADVICE_FOR = {
    NO_TIME_OF_DAY: ". A day alone is no time, and none is made up: give all such days a time if that is "
    "what you want (--time-of-day 12:00), or write it in the file",
    "not_json": ". Each line of the file has to be a whole JSON object, or all of the file an array of them",
}


def _advice(look: FirstLook) -> str:
    """Say how to mend what most items are rejected for."""
    frequent = [
        rule for (_, rule), count in look.rejected.most_common() if count > _SELDOM * look.rejected.total()
    ]
    advice = (_ADVICE_FOR.get(rule, _ADVICE) for rule in frequent)
    return "".join(dict.fromkeys(advice)) or _ADVICE


def require_events(file: EventFile, look: FirstLook, *, anyway: bool = False) -> None:
    """Stop before a file is sent of whose first records none, or nearly none, is a valid event.

    Args:
        file: The file.
        look: What its first records were found to be.
        anyway: Whether rejected ones are to be sent too, as long as there are some.

    Raises:
        InputError: the message says what it is taken for, and why that is no event.
    """
    taken_for = f"{file.path} is taken for {file.format}"
    if not look.records:
        raise InputError(
            f"{taken_for}, and has no event{_left_out(file, ': all of its rows are left out, ')}"
        )
    if anyway or not look.is_nearly_all_rejected:
        return
    of = f"all of its first {look.rejected.total():,} events"
    if look.events:
        of = f"{look.rejected.total():,} of its first {look.events + look.rejected.total():,} events"
    raise InputError(
        f"{taken_for}, and nothing is sent, since {of} would be rejected: {look.reasons}"
        f"{_left_out(file, '; rows left out besides: ')}{_advice(look)}; or send it with --anyway"
    )


def _left_out(file: EventFile, words: str) -> str:
    if not file.skipped:
        return ""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in file.skipped.items())
    return f"{words}{counts}{f' (such as {file.examples[0]})' if file.examples else ''}"
