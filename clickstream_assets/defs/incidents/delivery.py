"""Delivery of messages about incidents: by mail and to webhooks, each again and again until it is taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from typing import TypeAlias
from urllib.parse import urlsplit

from clickstream_assets.defs.incidents import messages
from clickstream_assets.defs.incidents.record import Message, Record
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.mail import Mailer, MailError, mailer
from clickstream_assets.stores.webhook import poster
from clickstream_assets.streaming import waits

SENDING_SECONDS = 20.0
"""After so long nothing more is begun: an evaluation of a sensor may take 60 s."""
MAIL_SECONDS = 10.0
"""Seconds that the mail server may take for each answer."""

Send: TypeAlias = Callable[[Message], None]
"""Sends a message to an address; raises a ClickstreamError if it is not taken."""

_log = logging.getLogger(__name__)


def addresses(settings: Settings) -> list[str]:
    """Return the names of all that are notified, as people may read them: without the secret in a webhook's address."""
    return [*map(_webhook_name, settings.incident_webhooks), *map(_mail_name, settings.incident_recipients)]


@contextmanager
def senders(settings: Settings) -> Iterator[dict[str, Send]]:
    """Yield what sends to each address, by its name; the mail server is asked when the first mail is sent."""
    with ExitStack() as stack:
        webhook = stack.enter_context(poster(settings.alert_webhook_timeout_seconds))
        mail = _Mail(settings, stack)

        def post(url: str, message: Message) -> None:
            content = messages.payload(message, settings)
            webhook.post(url, message.id, content, settings.incident_webhook_secret, "INCIDENT_WEBHOOK_URLS")

        yield {
            **{_webhook_name(url): partial(post, url) for url in settings.incident_webhooks},
            **{_mail_name(to): partial(mail.send, to) for to in settings.incident_recipients},
        }


def deliver(settings: Settings, record: Record, save: Callable[[], None]) -> None:
    """Send each address its message, if it is due.

    Whatever goes wrong, the message stays and is sent again under the same id, after a wait that grows to 15 minutes.

    Args:
        settings: the addresses.
        record: has the messages; is changed.
        save: keeps the record; called after each attempt.
    """
    deadline = time.monotonic() + SENDING_SECONDS
    with senders(settings) as opened:
        for name, send in opened.items():
            route = record.routes[name]
            if not route.pending or time.time() < route.next_attempt or time.monotonic() > deadline:
                continue
            try:
                send(route.pending)
            except Exception as error:
                route.attempts += 1
                wait = waits.wait_after(route.attempts, waits.DELIVERY)
                route.next_attempt = time.time() + wait
                route.last_error = str(error)
                failed = "no notification of incidents to %s (attempt %d): %s; next attempt in %.0f s"
                is_ours = not isinstance(error, ClickstreamError)
                _log.warning(failed, name, route.attempts, error, wait, exc_info=is_ours)
            else:
                record.note_taken(name, time.time())
            save()


class _Mail:
    """The mail server, connected to once; where it is away, it is away for all recipients of this time."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._server: Mailer | None = None
        self._away: MailError | None = None

    def send(self, recipient: str, message: Message) -> None:
        if self._away:
            raise self._away
        if self._server is None:
            try:
                self._server = self._stack.enter_context(mailer(self._settings, "INCIDENT", MAIL_SECONDS))
            except MailError as error:
                self._away = error
                raise
        self._server.send(messages.mail(message, recipient, self._settings))


def _webhook_name(url: str) -> str:
    return f"webhook at {urlsplit(url).hostname} ({sha256(url.encode()).hexdigest()[:6]})"


def _mail_name(recipient: str) -> str:
    return f"mail to {recipient}"
