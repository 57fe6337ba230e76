"""Flat events of independent users: no sessions, no ids, three event types."""

from collections.abc import Iterator
from random import Random

import msgspec

from clickstream_assets.catalogue.units import SECOND
from clickstream_assets.errors import InputError
from clickstream_assets.simulator.catalogue import plain_product
from clickstream_assets.simulator.traffic import Clock, Occurrence, Traffic, to_datetime

EVENT_TYPES = ("view", "add_to_cart", "purchase")
EVENT_TYPE_WEIGHTS = (70, 20, 10)


class PlainEvent(msgspec.Struct):
    """A flat event; `timestamp` is ISO 8601 with microseconds and `+00:00`."""

    user_id: str
    product_id: str
    product_category: str
    event_type: str
    timestamp: str


def plain_events(traffic: Traffic, clock: Clock | None = None) -> Iterator[Occurrence]:
    """Make events at an even pace, each of any user and any product, stamped as `shop_events` are."""
    if traffic.flash_sale_hours:
        raise InputError(
            f"flash_sale_hours={traffic.flash_sale_hours}: plain events are of no visits, so nobody comes for a sale; "
            "leave one of the two out"
        )
    random = Random(f"{traffic.seed}:plain")
    products = [plain_product(number) for number in range(1, traffic.products + 1)]
    step = _microseconds_between(traffic)
    # The seed also shifts the events in time, so that those of two runs with one start are not the same.
    at = traffic.start_microseconds + int(random.random() * step)
    made = 0
    while traffic.events is None or made < traffic.events:
        product_id, category = products[int(random.random() * traffic.products)]
        stamp = clock() if clock else at
        number = 1 + int(random.random() * traffic.users)
        event = PlainEvent(
            user_id=f"user_{number}",
            product_id=product_id,
            product_category=category,
            event_type=random.choices(EVENT_TYPES, EVENT_TYPE_WEIGHTS)[0],
            timestamp=to_datetime(stamp).isoformat(timespec="microseconds"),
        )
        yield Occurrence(at, stamp, event, number)
        made += 1
        at += step


def _microseconds_between(traffic: Traffic) -> int:
    # At least one: events without an id must differ in their time, or they would be taken for duplicates.
    seconds = 1 / traffic.rate if traffic.events is None else traffic.seconds / max(traffic.events, 1)
    return max(1, int(seconds * SECOND))
