"""Records as a sender on a bad day sends them: late, doubled, contradicted, broken; and what was made.

Every record of a user has the user's id for its key, and what repeats or contradicts an event comes after
it. So the counts here are what a pipeline must find, however Kafka's partitions are interleaved.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

import msgspec

from clickstream_assets.catalogue.units import DAY, EPOCH, SECOND
from clickstream_assets.errors import InputError
from clickstream_assets.simulator.malformed import KINDS
from clickstream_assets.simulator.plain import plain_events
from clickstream_assets.simulator.shoppers import ShopEvent, shop_events
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


@dataclass
class Made:
    """Counts of the records made so far; `sent` = `events` + `duplicates` + `conflicts` + `rejected`.

    `late`, `by_type`, `users` and `buyers` (users who purchased) are of the events alone. With `seed` and
    `start` and the same options the same is made again.
    """

    seed: int
    start: datetime
    sent: int = 0
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    late: int = 0
    users: int = 0
    buyers: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    rejected_by_kind: dict[str, int] = field(default_factory=dict)


class _Held(NamedTuple):
    """A record to be sent later; `event` is None for one that is no new event."""

    due: int
    order: int
    record: Record
    count_as: str
    event: Event | None = None
    stamp: int = 0


class RecordStream:
    """Iterates once over the records of some traffic; `made` says at any time what was handed out.

    The same traffic and faults make the same bytes, unless a clock stamps them. Without faults the events
    are the same as with them.

    Args:
        traffic: Which events.
        faults: What goes wrong with them.
        plain: Flat events of independent users instead of the shop's.
        clock: Stamps events with the current time instead of stream time; it must never go back.

    Raises:
        InputError: `conflicting` is asked of plain events, which have no event id.
    """

    def __init__(
        self,
        traffic: Traffic,
        faults: Faults | None = None,
        *,
        plain: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._faults = faults or Faults()
        if plain and self._faults.conflicting:
            raise InputError(
                f"conflicting={self._faults.conflicting}: plain events have no event id to conflict over; "
                "leave one of the two out"
            )
        self._traffic = traffic
        self._occurrences = (plain_events if plain else shop_events)(traffic, clock)
        self._random = Random(f"{traffic.seed}:faults")
        self._encode = msgspec.json.Encoder().encode
        self._held: list[_Held] = []
        self._held_so_far = 0
        self._counts: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._users: set[str] = set()
        self._buyers: set[str] = set()
        self._latest_stamp = -(2**63)

    @property
    def made(self) -> Made:
        """The counts of what was handed out so far."""
        return Made(
            seed=self._traffic.seed,
            start=self._traffic.start,
            sent=self._counts.total() - self._counts["late"],
            **self._counts,
            users=len(self._users),
            buyers=len(self._buyers),
            by_type=dict(sorted(self._types.items())),
            rejected_by_kind=dict(sorted(self._kinds.items())),
        )

    def __iter__(self) -> Iterator[Record]:
        """The records in the order in which they are to be sent."""
        for number, occurrence in enumerate(self._occurrences, start=1):
            event = occurrence.event
            record = Record(event.user_id.encode(), self._encode(event), _date(occurrence.stamp // DAY))
            if not self._go_wrong(occurrence, record, is_last=number == self._traffic.events):
                self._count_event(event, occurrence.stamp)
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
            value = KINDS[kind](msgspec.json.decode(record.value))
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
        if event.event_type == "search":
            other = msgspec.structs.replace(event, query=f"{event.query} sale")
        else:
            other = msgspec.structs.replace(event, quantity=(event.quantity or 1) + 1)
        return record._replace(value=self._encode(other))

    def _hold(self, occurrence: Occurrence, seconds: float, record: Record, count_as: str) -> None:
        self._held_so_far += 1
        event = occurrence.event if count_as == "late" else None
        due = occurrence.at + int(seconds * SECOND)
        heappush(self._held, _Held(due, self._held_so_far, record, count_as, event, occurrence.stamp))

    def _release(self, until: int | None) -> Iterator[Record]:
        while self._held and (until is None or self._held[0].due <= until):
            held = heappop(self._held)
            if held.event is not None:
                self._count_event(held.event, held.stamp)
                yield held.record
            elif held.count_as in KINDS:
                self._counts["rejected"] += 1
                self._kinds[held.count_as] += 1
                yield held.record._replace(day=_date(self._latest_stamp // DAY))
            else:
                self._counts[held.count_as] += 1
                yield held.record

    def _count_event(self, event: Event, stamp: int) -> None:
        self._counts["events"] += 1
        self._types[event.event_type] += 1
        self._users.add(event.user_id)
        if event.event_type == "purchase":
            self._buyers.add(event.user_id)
        if stamp < self._latest_stamp:
            self._counts["late"] += 1
        else:
            self._latest_stamp = stamp


@cache
def _date(days: int) -> date:
    """Return the date so many days after 1 January 1970."""
    return (EPOCH + timedelta(days=days)).date()
