"""Traffic to make, and the form in which its makers hand events over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from clickstream_assets.catalogue.units import EPOCH, MICROSECOND, SECOND
from clickstream_assets.errors import InputError
from clickstream_assets.simulator.habits import Habits

Clock = Callable[[], int]
"""The current time in microseconds since 1970 UTC."""


class Event(Protocol):
    """The fields that every made event has."""

    event_type: str
    user_id: Any


class Occurrence(NamedTuple):
    """A record of one event or of several, its moment in stream time, and its timestamp, both in microseconds.

    They are the same unless events are stamped by a clock. `person` is the number of the shopper who did it, whatever
    ids the record has, None of a robot; `shares_device` if somebody else uses the device as well.
    """

    at: int
    stamp: int
    event: Event
    person: int | None
    shares_device: bool = False


@dataclass(frozen=True)
class Traffic:
    """A number of events, their users, and their time.

    Attributes:
        users: The shop's users are `user_1` to `user_N`.
        products: Its products are `product_1` to `product_N`.
        seed: Of every random choice.
        start: Stream time of the beginning; without an offset it is UTC.
        events: How many; None makes events without end, at `rate`.
        seconds: Stream time that the events are spread over, where `events` is given.
        rate: Events per second of stream time, where `events` is None.
        bots: Share of the visits that are a robot's.
        flash_sale_hours: Hours of stream time from one flash sale to the next, the first after half of them; None
            makes none.
    """

    users: int
    products: int
    seed: int
    start: datetime
    events: int | None = None
    seconds: float = 86_400.0
    rate: float = 10.0
    bots: float = 0.01
    flash_sale_hours: float | None = None
    habits: Habits = field(default_factory=Habits)
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        for name, least in (("users", 1), ("products", 1), ("events", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}={value}: must be at least {least}")
        for name in ("seconds", "rate", "flash_sale_hours"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}={value}: must be more than 0")
        if not 0 <= self.bots <= 1:
            raise InputError(f"bots={self.bots}: a share must be between 0 and 1")

    @property
    def start_microseconds(self) -> int:
        """`start` as microseconds since 1970 UTC."""
        start = self.start if self.start.tzinfo else self.start.replace(tzinfo=UTC)
        return (start - EPOCH) // MICROSECOND

    @property
    def end_microseconds(self) -> int | None:
        """End of the time that the events are spread over, as microseconds since 1970 UTC; None without end."""
        return None if self.events is None else self.start_microseconds + int(self.seconds * SECOND)

    @property
    def zone(self) -> ZoneInfo:
        """`time_zone`, to convert times to."""
        return ZoneInfo(self.time_zone)

    @property
    def run_id(self) -> str:
        """Begins the ids of this traffic's events: other traffic has others, the same traffic the same."""
        return blake2b(repr(self).encode(), digest_size=6).hexdigest()


def to_datetime(microseconds: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return EPOCH + microseconds * MICROSECOND
