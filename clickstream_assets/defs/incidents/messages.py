"""Messages about incidents: as a mail, and as JSON with a `text` for chats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from clickstream_assets.defs.incidents.record import Incident, Message
from clickstream_assets.reports.mail import headed
from clickstream_assets.settings import Settings

SHOWN = 20
"""Incidents that a text has in full."""
_SUBJECT_LENGTH = 150
TEST = "A test message: here you are told what is wrong with the pipeline"


def subject(message: Message) -> str:
    """Return a line that says what happened."""
    opened, resolved = ("; ".join(_summaries(part)) for part in (message.opened, message.resolved))
    news = "; ".join(filter(None, [opened, resolved and f"resolved: {resolved}"]))
    number = len(message.opened) + len(message.resolved)
    if number > 1:
        news = f"{number} incidents{':' if opened else ''} {news}"
    return f"[clickstream] {_short(news or TEST, _SUBJECT_LENGTH)}"


def _summaries(incidents: Iterable[Incident]) -> list[str]:
    return [incident.problem.summary for incident in incidents]


def mail(message: Message, recipient: str, settings: Settings) -> EmailMessage:
    """Make the mail to a recipient; sent again, it has the same Message-ID."""
    composed = headed(subject(message), str(settings.incident_sender), recipient, message.id)
    composed.set_content(text(message, settings) + "\n")
    return composed


def payload(message: Message, settings: Settings) -> dict[str, Any]:
    """Make the JSON for a webhook.

    `text` is written for the incoming webhooks of Slack and those that read the same: &, < and > are escaped, so that
    no id from outside can call everybody in a channel.
    """
    return {
        "type": "incidents" if message.opened or message.resolved else "test",
        "id": message.id,
        "created_at": _iso(message.created),
        "text": _escaped(text(message, settings)),
        "opened": [_entry(incident, settings) for incident in message.opened],
        "resolved": [_entry(incident, settings) for incident in message.resolved],
    }


def text(message: Message, settings: Settings) -> str:
    """Return the message in words: what is wrong, why, what to do, and where to look."""
    parts = _listed(message.opened, lambda incident: _opened(incident, settings))
    parts += _listed(message.resolved, lambda incident: _resolved(incident, settings))
    if not parts:
        return f"{TEST}.\n{settings.dagster_url or 'DAGSTER_URL is not set, so messages have no links'}"
    if message.opened:
        name = message.opened[0].problem.name
        parts.append(f"To be told of one no more, add its name to INCIDENT_SILENCES, such as {name}")
    return "\n\n".join(parts)


def clock(seconds: float, settings: Settings) -> str:
    """Return a time as people read it, in INCIDENT_TIME_ZONE."""
    return f"{datetime.fromtimestamp(seconds, settings.incident_zone):%Y-%m-%d %H:%M:%S %Z}"


def _listed(incidents: list[Incident], describe: Callable[[Incident], str]) -> list[str]:
    described = [describe(incident) for incident in incidents[:SHOWN]]
    rest = incidents[SHOWN:]
    if rest:
        described.append(f"And {len(rest)} more: {', '.join(_names(rest))}")
    return described


def _names(incidents: Iterable[Incident]) -> list[str]:
    return [incident.problem.name for incident in incidents]


def _opened(incident: Incident, settings: Settings) -> str:
    problem = incident.problem
    lines = [
        f"{problem.severity.upper()}: {problem.summary}, since {clock(incident.since, settings)}",
        problem.reason,
        problem.advice,
        _url(problem.path, settings),
        f"Name: {problem.name}",
    ]
    return "\n".join(filter(None, lines))


def _resolved(incident: Incident, settings: Settings) -> str:
    since, ended = clock(incident.since, settings), clock(incident.ended or 0, settings)
    return f"RESOLVED: {incident.problem.summary}, from {since} to {ended}\n{_url(incident.problem.path, settings)}"


def _entry(incident: Incident, settings: Settings) -> dict[str, Any]:
    problem = incident.problem
    return {
        "id": incident.id,
        "kind": problem.kind,
        "subject": problem.subject,
        "severity": problem.severity,
        "summary": problem.summary,
        "reason": problem.reason,
        "advice": problem.advice,
        "url": _url(problem.path, settings),
        "since": _iso(incident.since),
        "resolved_at": _iso(incident.ended) if incident.ended else None,
    }


def _url(path: str, settings: Settings) -> str:
    return (settings.dagster_url or "").rstrip("/") + path


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _short(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
