"""Kinds of incidents, and silences: which incidents nobody is told of, and when, as INCIDENT_SILENCES writes it."""

from __future__ import annotations

import re
from datetime import datetime, time, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple


class Kind(StrEnum):
    """A kind of incident, by what is wrong."""

    RUN_FAILED = "run_failed"
    """A job's last run failed. Its subject is the job; for a run that a person started, its assets."""
    CHECK_FAILED = "check_failed"
    """A check does not pass. Its subject is asset/check."""
    SENSOR_FAILED = "sensor_failed"
    """The last evaluation of a sensor or schedule failed. Its subject is the sensor's name."""
    ASSET_OVERDUE = "asset_overdue"
    """An asset was not brought up to date for longer than its freshness policy allows. Its subject is the asset."""
    STREAM_DOWN = "stream_down"
    """A streaming query stands still. Its subject is the query."""


class Silence(NamedTuple):
    """Incidents that nobody is told of: always, every day between two times, or once between two moments."""

    text: str
    """As the setting has it."""
    kind: str
    """A kind, or * for all."""
    subject: str
    """A pattern with * and ?; it is that of the incident's subject or, of a check, that of its asset."""
    daily: tuple[time, time] | None
    """Local times; the second is earlier where the silence goes on over midnight."""
    once: tuple[datetime, datetime] | None

    def covers(self, kind: str, subject: str) -> bool:
        """Return whether it is about incidents of this kind and subject."""
        return self.kind in ("*", kind) and any(
            fnmatchcase(name, self.subject) for name in (subject, subject.partition("/")[0])
        )

    def is_active(self, now: datetime) -> bool:
        """Return whether it holds at a moment, in the time zone that its times are in."""
        if self.once:
            return self.once[0] <= now < self.once[1]
        if self.daily is None:
            return True
        start, end = self.daily
        at = now.time()
        return start <= at < end if start < end else at >= start or at < end


_ENTRY = re.compile(r"(?P<kind>[^:@\s]+)(?::(?P<subject>[^@]+?))?(?:@(?P<when>.+))?")
_FORM = "write KIND, KIND:SUBJECT or either with @WHEN"
_WHEN = "write 22:00-07:00 for every day, or 2026-12-24T18:00/2026-12-27T08:00 for once"


def parse_silences(text: str, zone: tzinfo) -> tuple[Silence, ...]:
    """Read silences, comma separated.

    Args:
        text: such as `asset_overdue, check_failed:daily_summary, *@22:00-07:00`.
        zone: of times without an offset.

    Raises:
        ValueError: naming the entry that cannot be read, and what was expected.
    """
    return tuple(_silence(entry.strip(), zone) for entry in text.split(",") if entry.strip())


def _silence(text: str, zone: tzinfo) -> Silence:
    found = _ENTRY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no silence; {_FORM}")
    kind, subject, when = found["kind"], found["subject"] or "*", found["when"]
    if kind != "*" and kind not in list(Kind):
        raise ValueError(
            f"{kind!r}, in {text!r}, is no kind of incident; {_FORM}, KIND being {_kinds()} or *"
        )
    daily = once = None
    if when:
        start, separator, end = when.strip().partition("/")
        try:
            if separator:
                once = _moment(start, zone), _moment(end, zone)
            else:
                daily = _times(when.strip())
        except ValueError:
            raise ValueError(f"{when!r}, in {text!r}, is no time; {_WHEN}") from None
        first, last = once or daily or (0, 1)
        if first == last or (once and once[0] > once[1]):
            raise ValueError(f"{when!r}, in {text!r}, ends when or before it begins; {_WHEN}")
    return Silence(text, kind, subject.strip(), daily, once)


def _kinds() -> str:
    return ", ".join(Kind)


def _moment(text: str, zone: tzinfo) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _times(text: str) -> tuple[time, time]:
    start, separator, end = text.partition("-")
    if not separator:
        raise ValueError(text)
    times = time.fromisoformat(start.strip()), time.fromisoformat(end.strip())
    if any(at.tzinfo for at in times):
        raise ValueError(text)
    return times
