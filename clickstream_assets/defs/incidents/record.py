"""The record of incidents: which are open, and what each address was notified of.

Pure state. The sensor `incidents` changes it, and keeps it in Dagster's storage: that is there whenever a sensor runs,
also while the served tables' database is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias
from uuid import uuid4

from pydantic import AfterValidator, BaseModel

from clickstream_assets.settings import Settings
from clickstream_assets.silences import Kind

MOST_KEPT = 1000
"""Incidents that are kept at most; of those that are over, the oldest go first."""


LONGEST_REASON = 1000
"""Characters. The page has what is longer, as a stack is."""
Notified: TypeAlias = Literal["opened", "resolved"]


class Severity(StrEnum):
    """Severity of an incident, as Dagster's of a check."""

    ERROR = "error"
    WARNING = "warning"


class Problem(BaseModel, frozen=True):
    """A thing that is wrong now."""

    kind: Kind
    subject: str
    summary: str
    """A short sentence: what is wrong with what."""
    reason: Annotated[str, AfterValidator(lambda text: text[:LONGEST_REASON])]
    """The error's own sentence, with what mends it."""
    advice: str = ""
    """A sentence on what follows from it, or where to look."""
    path: str
    """Its page in Dagster."""
    severity: Severity = Severity.ERROR
    since: float | None = None
    """Seconds since 1970; None: since it was found."""
    is_settled: bool = True
    """False while it is tried again: it opens no incident, and ends none."""
    has_end: bool = True
    """False where nobody can know when it is over: people are notified of it, and not of its end."""

    @property
    def name(self) -> str:
        """Name that stays the same as long as it lasts, and that silences match."""
        return f"{self.kind}:{self.subject}"


class Incident(BaseModel):
    """A problem from when it was found until it is over and everybody knows."""

    id: str
    problem: Problem
    since: float
    gone_since: float | None = None
    """The problem was not there at the last look, and not since then."""
    is_announced: bool = False
    """It has lasted long enough, without a silence, for people to be notified."""
    ended: float | None = None
    notified: dict[str, Notified] = {}
    """The last notification of it that each address has taken."""

    def announce(self, now: float, settings: Settings) -> None:
        """Have people notified, if it has lasted long enough and is not silenced."""
        if now - self.since >= settings.incident_after_seconds:
            self.is_announced |= not is_silenced(self.problem, now, settings)

    def unnotified(self, name: str) -> Notified | None:
        """Return what an address is still to be notified of."""
        if not self.is_announced:
            return None
        if self.ended is None or not self.problem.has_end:
            return None if name in self.notified else "opened"
        return None if self.notified.get(name) == "resolved" else "resolved"


class Message(BaseModel):
    """A message to one address, kept until it is taken."""

    id: str
    created: float
    opened: list[Incident] = []
    resolved: list[Incident] = []


class Route(BaseModel):
    """An address that is notified, and how that goes."""

    pending: Message | None = None
    attempts: int = 0
    next_attempt: float = 0
    last_error: str | None = None
    last_taken: float = 0


class Record(BaseModel):
    """All incidents that are not settled with everybody, and all addresses."""

    incidents: list[Incident] = []
    routes: dict[str, Route] = {}

    def open(self) -> list[Incident]:
        """Return the incidents that are not over, oldest first."""
        return sorted((i for i in self.incidents if i.ended is None), key=lambda i: i.since)

    def take_in(
        self, problems: Iterable[Problem], unknown: Collection[Kind], now: float, settings: Settings
    ) -> None:
        """Open an incident for each new problem; end those whose problem has been gone for long enough.

        Args:
            problems: all that there are now.
            unknown: kinds that could not be looked for: theirs stay as they are.
            now: seconds since 1970.
            settings: how long something has to be wrong, or right again, and what is silenced.
        """
        there = {problem.name: problem for problem in problems}
        patience = settings.incident_after_seconds
        for incident in self.open():
            problem = there.pop(incident.problem.name, None)
            if problem and problem.is_settled:
                incident.problem = problem
                incident.gone_since = None
                incident.announce(now, settings)
            elif not problem and incident.problem.kind not in unknown:
                incident.gone_since = incident.gone_since or now
                if not incident.is_announced or now - incident.gone_since >= patience:
                    incident.ended = incident.gone_since
        for problem in there.values():
            if problem.is_settled:
                found = Incident(id=uuid4().hex[:12], problem=problem, since=problem.since or now)
                found.announce(now, settings)
                self.incidents.append(found)

    def use_routes(self, names: Collection[str]) -> None:
        """Notify these addresses and no others."""
        self.routes = {name: self.routes.get(name, Route()) for name in names}

    def compose(self, now: float, settings: Settings) -> bool:
        """Make a message for each address that is to be notified of something and has taken the last one.

        Returns:
            Whether there is a new message.
        """
        is_new = False
        for name, route in self.routes.items():
            if route.pending or now - route.last_taken < settings.incident_pause_seconds:
                continue
            news = [i for i in self.incidents if not is_silenced(i.problem, now, settings)]
            opened = [i for i in news if i.unnotified(name) == "opened"]
            resolved = [i for i in news if i.unnotified(name) == "resolved"]
            if opened or resolved:
                route.pending = Message(id=uuid4().hex, created=now, opened=opened, resolved=resolved)
                is_new = True
        return is_new

    def note_taken(self, name: str, now: float) -> None:
        """Note that an address has taken its message."""
        message = self.routes[name].pending
        assert message
        self.routes[name] = Route(last_taken=now)
        by_id = {incident.id: incident for incident in self.incidents}
        said: dict[Notified, list[Incident]] = {"opened": message.opened, "resolved": message.resolved}
        for what, incidents in said.items():
            for incident in incidents:
                if incident.id in by_id:
                    by_id[incident.id].notified[name] = what

    def forget_settled(self) -> None:
        """Forget what is over and everybody was notified of, or nobody is to be notified of."""
        kept = [i for i in self.incidents if i.ended is None or any(map(i.unnotified, self.routes))]
        over = sorted((i for i in kept if i.ended is not None), key=lambda i: i.ended or 0)
        too_many = {i.id for i in over[: max(0, len(kept) - MOST_KEPT)]}
        self.incidents = [i for i in kept if i.id not in too_many]


def is_silenced(problem: Problem, now: float, settings: Settings) -> bool:
    """Return whether nobody is to be notified of a problem now."""
    moment = datetime.fromtimestamp(now, settings.incident_zone)
    return any(s.covers(problem.kind, problem.subject) and s.is_active(moment) for s in settings.silences)
