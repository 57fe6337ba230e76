"""Sends records to Kafka and the daily files, at a pace: those of a file, as `clickstream replay` does, or any."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.files import EventFile, KeyedValue
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.settings import Settings
from clickstream_assets.stores.daily_files import DailyFiles, event_day
from clickstream_assets.stores.kafka.producer import KafkaSink
from clickstream_assets.stores.start_date import require_not_before_start

FIRST_EVENTS = 1000
"""Events of a file that are looked at before it is sent."""
_STRAY = timedelta(days=365)
_LONGEST_NAP_SECONDS = 0.1
_SECONDS_BETWEEN_FLUSHES = 1.0

Stop = Callable[[], bool]
"""Returns whether to end the run; called before each record."""

Progress = Callable[[int], None]
"""Called with the number of records sent so far, after each."""


@dataclass(frozen=True)
class Replayed:
    """Counts of a replay: records sent, and lines or rows left out by reason.

    `examples` are the first malformed rows, with their line numbers.
    """

    sent: int
    skipped: dict[str, int]
    format: str
    examples: tuple[str, ...] = ()


def run_replay(
    settings: Settings,
    path: str | Path,
    *,
    rate: float | None = None,
    limit: int | None = None,
    kafka: bool = True,
    files: bool = True,
    stop: Stop = lambda: False,
    progress: Progress = lambda _: None,
) -> Replayed:
    """Send the events of a file, in its order.

    Args:
        settings: Name the topic and the folder of the daily files.
        path: JSON lines, or a REES46 or UCI Online Retail CSV; also gzipped.
        rate: Records per second; None is as fast as possible.
        limit: The most records to send; None is all.
        kafka: Whether to send to the topic.
        files: Whether to append to the daily files.
        stop: Ends the run early; everything read until then is delivered.
        progress: Learns how far the run is.

    Raises:
        InputError: the file cannot be used, its first events are before EVENTS_START_DATE, or a record could not be
            delivered or written. What was read before the last of these errors has been delivered.
    """
    require_positive(rate=rate, limit=limit)
    events = EventFile(path)
    if files and events.path.resolve().parent == settings.raw_logs.resolve():
        raise InputError(
            f"{path} is one of the daily files in RAW_LOGS_PATH={settings.raw_logs}, to which a replay "
            "would append; leave the files out (--no-files)"
        )
    if kafka and (day := first_day(settings, islice(events, FIRST_EVENTS))):
        require_not_before_start(settings, day, str(path))
    records = ((key, value, event_day(value) if files else None) for key, value in islice(events, limit))
    sent = send_records(settings, records, rate=rate, kafka=kafka, files=files, stop=stop, progress=progress)
    return Replayed(sent, dict(events.skipped), events.format, tuple(events.examples))


def first_day(settings: Settings, events: Iterable[KeyedValue]) -> date | None:
    """Return the earliest day of what is a valid event, were no event too early; None where nothing is.

    Up to one event in a hundred that lies more than a year before all others is of a wrong clock, and does not count.
    Nor does what comes after a fault of the file, which whoever sends the events meets.
    """
    rules = ValidationRules.of(
        settings.model_copy(update={"events_start_date": None, "max_event_age_days": None})
    )
    now = (datetime.now(UTC) - EPOCH) // MICROSECOND
    days: list[date] = []
    with suppress(InputError):
        for _, value in events:
            found: Any = parse_record(value, now, rules)
            days.extend(
                rules.clock.day_of(EPOCH + event.event_time * MICROSECOND)
                for event in found
                if not isinstance(event, Rejection)
            )
    days.sort()
    after_gaps = [later for day, later in pairwise(days[: len(days) // 100 + 1]) if later - day > _STRAY]
    return max([*days[:1], *after_gaps], default=None)


def send_records(
    settings: Settings,
    records: Iterable[tuple[bytes | None, bytes, date | None]],
    *,
    rate: float | None,
    kafka: bool,
    files: bool,
    stop: Stop,
    progress: Progress,
) -> int:
    """Send records, each made only when it is due; when this returns, all are delivered and written.

    Args:
        settings: Name the topic and the folder of the daily files.
        records: Key, value and UTC day of each.
        rate, kafka, files, stop, progress: As for `run_replay`.

    Returns:
        How many records were sent.

    Raises:
        InputError: a record could not be delivered or written, or neither was asked for.
    """
    if not kafka and not files:
        raise InputError("Neither Kafka nor files: leave out --no-kafka or --no-files")
    sent = 0
    with ExitStack() as sinks:
        topic = sinks.enter_context(KafkaSink(settings)) if kafka else None
        daily = sinks.enter_context(DailyFiles(settings.raw_logs)) if files else None
        flush_at = monotonic() + _SECONDS_BETWEEN_FLUSHES
        # In this order, so that the pace is kept before a record is made: live events carry the time of that moment.
        for _, (key, value, day) in zip(_paced(rate, stop), records, strict=False):
            if daily:
                daily.write(value, day)
                if monotonic() >= flush_at:
                    daily.flush()
                    flush_at = monotonic() + _SECONDS_BETWEEN_FLUSHES
            if topic:
                topic.send(key, value)
            sent += 1
            progress(sent)
    return sent


def require_positive(**values: float | None) -> None:
    """Check that each option is more than 0, where it is given.

    Raises:
        InputError: one is not.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise InputError(f"{name}={value}: must be more than 0")


def _paced(rate: float | None, stop: Stop) -> Iterator[None]:
    """Yield `rate` times a second, until `stop`."""
    started = monotonic()
    number = 0
    while not stop():
        if rate is not None:
            due = started + number / rate
            while (left := due - monotonic()) > 0 and not stop():
                sleep(min(left, _LONGEST_NAP_SECONDS))
            if stop():
                return
        number += 1
        yield
