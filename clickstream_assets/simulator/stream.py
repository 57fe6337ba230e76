"""Records as a sender on a bad day sends them: late, doubled, contradicted, broken; and what was made.

Every record of a user, or of a visitor without a name, has that id for its key, and what repeats or contradicts an
event comes after it. So the counts here are what a pipeline must find, however Kafka's partitions are interleaved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgspec

from clickstream_assets.catalogue.units import DAY, EPOCH, SECOND
from clickstream_assets.errors import InputError
from clickstream_assets.simulator.habits import Habits
from clickstream_assets.simulator.made import Made, Tally
from clickstream_assets.simulator.malformed import KINDS
from clickstream_assets.simulator.plain import plain_events
from clickstream_assets.simulator.shoppers import Item, ShopEvent, shop_events
from clickstream_assets.simulator.traffic import Clock, Event, Occurrence, Traffic

_LONGEST_RESEND_SECONDS = 600
_RELOADED_ORDERS = 0.5


@dataclass(frozen=True)
class Faults:
    """Shares of the events, each from 0 to 1 and together at most 1.

    Attributes:
        late: Are sent after events that happened later.
        late_by_minutes: The most that a late event is held back, in stream time; the least is a minute.
        duplicate: Are sent again: the same record, or the same order line under another event id.
        conflicting: Are followed by another event with the same id.
        malformed: Are followed by a record that is no event.
    """

    late: float = 0.0
    late_by_minutes: float = 90.0
    duplicate: float = 0.0
    conflicting: float = 0.0
    malformed: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that cannot be."""
        shares = {name: getattr(self, name) for name in ("late", "duplicate", "conflicting", "malformed")}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share}: a share must be between 0 and 1")
        if sum(shares.values()) > 1 + 1e-9:
            raise InputError(
                f"The shares {', '.join(f'{name}={share}' for name, share in shares.items())} add up to more "
                "than 1; one event has one fault at most, so lower some"
            )
        if not self.late_by_minutes >= 1:
            raise InputError(f"late_by_minutes={self.late_by_minutes}: must be at least 1")


class Record(NamedTuple):
    """A Kafka record, and the UTC date of the daily file that it belongs to."""

    key: bytes
    value: bytes
    day: date


class _Held(NamedTuple):
    """A record to be sent later; `occurrence` is that of a new event, and None of one that is none."""

    due: int
    order: int
    record: Record
    count_as: str
    events: int
    occurrence: Occurrence | None = None


class RecordStream:
    """Iterates once over the records of some traffic; `made` says at any time what was handed out.

    The same traffic and faults make the same bytes, unless a clock stamps them. Without faults the events
    are the same as with them.

    Args:
        traffic: Which events.
        faults: What goes wrong with them.
        plain: Flat events of independent users instead of the shop's.
        clock: Stamps events with the current time instead of stream time; it must never go back.
        lookback: Time before its first login that a visitor is counted as the user.
        max_users: The most users that an anonymous id can have and be counted as theirs.

    Raises:
        InputError: `conflicting` is asked of plain events, which have no event id, or habits of their users.
    """

    def __init__(
        self,
        traffic: Traffic,
        faults: Faults | None = None,
        *,
        plain: bool = False,
        clock: Clock | None = None,
        lookback: timedelta = timedelta(days=30),
        max_users: int = 10,
    ) -> None:
        self._faults = faults or Faults()
        if plain and self._faults.conflicting:
            raise InputError(
                f"conflicting={self._faults.conflicting}: plain events have no event id to conflict over; "
                "leave one of the two out"
            )
        if plain and traffic.habits != Habits():
            raise InputError(
                "plain events are of nobody in particular, who has no habits; leave one of the two out"
            )
        self._traffic = traffic
        self._occurrences = (plain_events if plain else shop_events)(traffic, clock)
        self._random = Random(f"{traffic.seed}:faults")
        self._encode = msgspec.json.Encoder().encode
        self._held: list[_Held] = []
        self._held_so_far = 0
        self._tally = Tally(traffic, lookback, max_users)
        self._latest_stamp = -(2**63)

    @property
    def made(self) -> Made:
        """The counts of what was handed out so far."""
        return self._tally.made()

    @property
    def items(self) -> int:
        """Number of events, repeated, contradicting and broken ones too, that were handed out so far."""
        return self._tally.items

    def __iter__(self) -> Iterator[Record]:
        """The records in the order in which they are to be sent."""
        events = 0
        for occurrence in self._occurrences:
            event = occurrence.event
            events += _events_in(event)
            key = event.user_id or event.anonymous_id  # type: ignore[attr-defined]
            record = Record(key.encode(), self._encode(event), _date(occurrence.stamp // DAY))
            if not self._go_wrong(occurrence, record, is_last=events == self._traffic.events):
                self._count_event(occurrence)
                yield record
            # After the event of this moment: what was held back is then late for sure.
            yield from self._release(occurrence.at)
        yield from self._release(None)

    def _go_wrong(self, occurrence: Occurrence, record: Record, *, is_last: bool) -> bool:
        """Choose the event's fault and hold back what comes of it; whether that is the event itself."""
        faults, draw = self._faults, self._random.random()
        # The last event of all has nothing to be later than.
        if draw < faults.late:
            if not is_last:
                self._hold(occurrence, self._random.uniform(60, faults.late_by_minutes * 60), record, "late")
            return not is_last
        draw -= faults.late
        resend_after = self._random.random() ** 3 * _LONGEST_RESEND_SECONDS
        if draw < faults.duplicate:
            self._hold(occurrence, resend_after, self._duplicate(occurrence, record), "duplicates")
        elif draw - faults.duplicate < faults.conflicting:
            self._hold(occurrence, resend_after, self._conflict(occurrence, record), "conflicts")
        elif draw - faults.duplicate - faults.conflicting < faults.malformed:
            kind = self._random.choice(tuple(KINDS))
            value = KINDS[kind](_first_event(msgspec.json.decode(record.value)))
            self._hold(occurrence, resend_after, record._replace(value=value), kind)
        return False

    def _duplicate(self, occurrence: Occurrence, record: Record) -> Record:
        event = occurrence.event
        if (
            not isinstance(event, ShopEvent)
            or not event.order_id
            or self._random.random() >= _RELOADED_ORDERS
        ):
            return record
        # The thank-you page was loaded again: a new event of the same order line.
        reloaded = msgspec.structs.replace(
            event, event_id=f"{event.event_id}-reload", timestamp=event.timestamp + timedelta(seconds=20)
        )
        return record._replace(value=self._encode(reloaded))

    def _conflict(self, occurrence: Occurrence, record: Record) -> Record:
        event = occurrence.event
        assert isinstance(event, ShopEvent)
        other = msgspec.structs.replace(
            event, items=[_contradicted(item) for item in event.items or ()] or None
        )
        if event.event_type == "search":
            other.query = f"{event.query} sale"
        elif not event.items:
            other = _contradicted(event)
        return record._replace(value=self._encode(other))

    def _hold(self, occurrence: Occurrence, seconds: float, record: Record, count_as: str) -> None:
        self._held_so_far += 1
        due = occurrence.at + int(seconds * SECOND)
        events = 1 if count_as in KINDS else _events_in(occurrence.event)
        of = occurrence if count_as == "late" else None
        heappush(self._held, _Held(due, self._held_so_far, record, count_as, events, of))

    def _release(self, until: int | None) -> Iterator[Record]:
        while self._held and (until is None or self._held[0].due <= until):
            held = heappop(self._held)
            if held.occurrence is not None:
                self._count_event(held.occurrence)
                yield held.record
            elif held.count_as in KINDS:
                self._tally.count_rejected(held.count_as)
                yield held.record._replace(day=_date(self._latest_stamp // DAY))
            else:
                self._tally.count_again(held.count_as, held.events)
                yield held.record

    def _count_event(self, occurrence: Occurrence) -> None:
        is_late = occurrence.stamp < self._latest_stamp
        if not is_late:
            self._latest_stamp = occurrence.stamp
        self._tally.count(occurrence, is_late=is_late)


def _events_in(event: Event) -> int:
    return event.events if isinstance(event, ShopEvent) else 1


_Counted = TypeVar("_Counted", ShopEvent, Item)


def _contradicted(event: _Counted) -> _Counted:
    """Return the event with a unit more, or a unit more that goes back."""
    quantity = 1 if event.quantity is None else event.quantity
    return msgspec.structs.replace(event, quantity=quantity + (1 if quantity > 0 else -1))


def _first_event(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record's first event as a record of its own, of which one can be broken and no other."""
    return {name: fields[name] for name in fields if name != "items"} | (fields.get("items") or [{}])[0]


@cache
def _date(days: int) -> date:
    """Return the date so many days after 1 January 1970."""
    return (EPOCH + timedelta(days=days)).date()
