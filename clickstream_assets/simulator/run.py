"""Runs a simulation into Kafka and the daily files, as `clickstream simulate` does, for callers in Python."""

import math
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.replay import Progress, Stop, require_positive, send_records
from clickstream_assets.settings import EventDialect, Settings
from clickstream_assets.simulator.feed import write_feed
from clickstream_assets.simulator.habits import Habits
from clickstream_assets.simulator.made import Made
from clickstream_assets.simulator.shoppers import PERSON_SECONDS_PER_EVENT
from clickstream_assets.simulator.stream import Faults, RecordStream
from clickstream_assets.simulator.traffic import Clock, Traffic
from clickstream_assets.stores.start_date import require_not_before_start

# A visit that is open at the end of the traffic runs on, so traffic that ends now would end in the future.
_OPEN_VISITS = timedelta(hours=1)
_LEAST_DEFAULT_DAYS = 7.0
SEEDED_START = datetime(2026, 1, 1, tzinfo=UTC)
"""When a span begins that has a seed and no start: with the time of the run, no seed would give the same bytes."""
# With SIMULATOR_INTERVAL=0 nothing paces live events; their stream time still needs a rate.
_UNPACED_RATE = 1_000.0


@dataclass(frozen=True)
class SimulationOptions:
    """Options of a simulation. What is None comes from the settings, or is said below.

    The events are live, stamped with the current time and paced, unless `events` is given without `rate`,
    or `start` or `days` is given: then they fill a span of the past, as fast as they can be sent.

    Attributes:
        events: How many; None goes on until it is stopped, which only live events do.
        rate: Records per second; None is the pace of `simulator_interval` for live events, else no limit.
        seed: Of every random choice; None draws one. The same options with the same seed give the same bytes,
            but for live events, which carry the time that they are made at.
        start: When the events begin; without an offset it is UTC. None is `SEEDED_START` where a seed is given;
            else it lets the span end an hour ago.
        days: Length of the span; None is a week, or longer where the users need longer for the events.
        users: Number of shoppers.
        products: Number of products.
        bots: Share of the visits that are a robot's.
        flash_sale_hours: Hours from one flash sale to the next, the first after half of them: for minutes many look
            at one product, of which there are few. None makes none.
        habits: What the shop's people do besides, and how the shop writes it; its own clock is that of
            `shop_time_zone`. Without any, all events have a user id.
        plain: Flat events of independent users, without sessions and ids; they have no habits.
        faults: Shares of late, repeated, contradicting and broken records.
        feed: File to write the shop's feed of products into; None writes none.
        site: Address of the shop's own pages, for the feed's pictures and links.
        kafka: Whether to send to the topic.
        files: Whether to append to the daily files.
    """

    events: int | None = None
    rate: float | None = None
    seed: int | None = None
    start: datetime | None = None
    days: float | None = None
    users: int | None = None
    products: int | None = None
    bots: float = 0.01
    flash_sale_hours: float | None = None
    habits: Habits = field(default_factory=Habits)
    plain: bool = False
    faults: Faults = field(default_factory=Faults)
    feed: Path | None = None
    site: str | None = None
    kafka: bool = True
    files: bool = True

    @property
    def is_live(self) -> bool:
        """True if events carry the current time."""
        return self.start is None and self.days is None and (self.events is None or self.rate is not None)


def run_simulation(
    settings: Settings,
    options: SimulationOptions,
    *,
    stop: Stop = lambda: False,
    progress: Progress = lambda _: None,
) -> Made:
    """Make events and send them.

    Args:
        settings: Where to, and the shop's default size.
        options: What to make.
        stop: Ends the run early; everything made until then is delivered.
        progress: Learns how many events, repeated and broken ones too, there are so far.

    Raises:
        InputError: an option cannot be used, or a record or the feed could not be delivered or written.
    """
    traffic = plan_traffic(settings, options)
    if options.kafka:
        _require_own_dialect(settings)
    if options.kafka and not options.is_live:
        require_not_before_start(settings, traffic.start.date(), "the simulated span")
    if options.feed:
        write_feed(options.feed, traffic.products, options.site)
    clock = _increasing_clock() if options.is_live else None
    stream = RecordStream(
        traffic,
        options.faults,
        plain=options.plain,
        clock=clock,
        lookback=timedelta(days=settings.identity_lookback_days),
        max_users=settings.identity_max_users,
    )
    rate = options.rate
    if rate is None and options.is_live and settings.simulator_interval:
        rate = 1 / settings.simulator_interval
    send_records(
        settings,
        stream,
        rate=rate,
        kafka=options.kafka,
        files=options.files,
        stop=stop,
        progress=lambda _: progress(stream.items),
    )
    return stream.made


def _require_own_dialect(settings: Settings) -> None:
    topic = settings.first_topic
    dialect = settings.topics[topic] or settings.event_dialect
    if dialect not in (EventDialect.AUTO, EventDialect.OWN):
        name = "KAFKA_TOPIC" if settings.topics[topic] else "EVENT_DIALECT"
        raise InputError(
            f"{name}: records of {topic}, which is sent to, are in the dialect {dialect}, and simulated events are own "
            "ones: all would be rejected. Name a topic without a dialect first in KAFKA_TOPIC"
        )


def plan_traffic(settings: Settings, options: SimulationOptions) -> Traffic:
    """Fill in what the options leave open.

    Raises:
        InputError: the options contradict each other, or ask more of the users than people do.
    """
    require_positive(rate=options.rate, days=options.days, users=options.users)
    rate = options.rate or (1 / settings.simulator_interval if settings.simulator_interval else _UNPACED_RATE)
    if options.is_live:
        start, seconds = datetime.now(UTC), (options.events or 1) / rate
    else:
        seconds = _span_in_days(settings, options) * 86_400
        start = options.start or (latest_start(settings, options) if options.seed is None else SEEDED_START)
    return Traffic(
        users=_users(settings, options),
        products=settings.num_products if options.products is None else options.products,
        seed=secrets.randbits(32) if options.seed is None else options.seed,
        start=start,
        events=options.events,
        seconds=seconds,
        rate=rate,
        bots=options.bots,
        flash_sale_hours=options.flash_sale_hours,
        habits=options.habits,
        time_zone=settings.shop_time_zone,
    )


def latest_start(settings: Settings, options: SimulationOptions) -> datetime:
    """When a span has to begin to end an hour ago: what comes after it is of visits that are still open then.

    Raises:
        InputError: the options name no number of events, or ask more of the users than people do.
    """
    return datetime.now(UTC) - timedelta(days=_span_in_days(settings, options)) - _OPEN_VISITS


def _users(settings: Settings, options: SimulationOptions) -> int:
    return settings.num_users if options.users is None else options.users


def _span_in_days(settings: Settings, options: SimulationOptions) -> float:
    events, users = options.events, _users(settings, options)
    if events is None:
        raise InputError("start and days are for a number of events; give one (--events)")
    # Plain events are of nobody in particular, so nobody need have the time for them.
    needed = 0.0 if options.plain else events * PERSON_SECONDS_PER_EVENT / users / 86_400
    days = options.days or max(_LEAST_DEFAULT_DAYS, 2 * needed)
    if days < needed:
        raise InputError(
            f"{events} events of {users} users in {days:g} days are more than people make, who take "
            f"{PERSON_SECONDS_PER_EVENT:g} s for one; raise the users (--users) to "
            f"{math.ceil(users * needed / days)} or the days (--days) to {needed:.3g}"
        )
    return days


def _increasing_clock() -> Clock:
    """The wall clock, made to advance with every reading: equal events of one moment stay two events."""
    latest = 0

    def now() -> int:
        nonlocal latest
        latest = max(latest + 1, time_ns() // 1_000)
        return latest

    return now
