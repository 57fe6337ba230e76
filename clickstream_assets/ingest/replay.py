"""Sends records to Kafka and the daily files, at a pace: those of a file, as `clickstream replay` does, or any."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.ingest.first_look import in_words, look_at_file, require_events
from clickstream_assets.settings import Settings
from clickstream_assets.stores.daily_files import DailyFiles, event_day
from clickstream_assets.stores.kafka.producer import KafkaSink
from clickstream_assets.stores.start_date import require_not_before_start

_LONGEST_NAP_SECONDS = 0.1
_SECONDS_BETWEEN_FLUSHES = 1.0

Stop = Callable[[], bool]
"""Returns whether to end the run; called before each record."""

Progress = Callable[[int], None]
"""Called with the number of records sent so far, after each."""

Notice = Callable[[str], None]
"""Called with a line for people."""


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
    file: EventFile | str | Path,
    *,
    rate: float | None = None,
    limit: int | None = None,
    kafka: bool = True,
    files: bool = True,
    anyway: bool = False,
    stop: Stop = lambda: False,
    progress: Progress = lambda _: None,
    notice: Notice = lambda _: None,
) -> Replayed:
    """Send the events of a file, in its order, after a look at the first of them.

    Args:
        settings: Name the topic and the folder of the daily files.
        file: The file, or its path.
        rate: Records per second; None is as fast as possible.
        limit: The most records to send; None is all.
        kafka: Whether to send to the topic.
        files: Whether to append to the daily files.
        anyway: Whether to send a file of whose first events nearly all will be rejected.
        stop: Ends the run early; everything read until then is delivered.
        progress: Learns how far the run is.
        notice: Is told what the file is taken for, and what becomes of its first records, before any is sent.

    Raises:
        InputError: the file cannot be used, its first events are before EVENTS_START_DATE, or nearly none of them is
            valid; or a record could not be delivered or written. What was read before the last of these errors has
            been delivered.
    """
    require_positive(rate=rate, limit=limit)
    events = file if isinstance(file, EventFile) else EventFile(file)
    if files and events.path.resolve().parent == settings.raw_logs.resolve():
        raise InputError(
            f"{events.path} is one of the daily files in RAW_LOGS_PATH={settings.raw_logs}, to which a replay "
            "would append; leave the files out (--no-files)"
        )
    look = look_at_file(settings, events, limit)
    require_events(events, look, anyway=anyway)
    if kafka and look.first_day:
        require_not_before_start(settings, look.first_day, str(events.path))
    notice(in_words(events, look))
    records = ((key, value, event_day(value) if files else None) for key, value in islice(events, limit))
    sent = send_records(settings, records, rate=rate, kafka=kafka, files=files, stop=stop, progress=progress)
    return Replayed(sent, dict(events.skipped), events.format, tuple(events.examples))


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
