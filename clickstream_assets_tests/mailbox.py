"""A real SMTP server that keeps what it is sent, with or without a login."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from clickstream_assets_tests.databases import free_port


@dataclass
class Mailbox:
    """The server's address, and what it got: sender, recipient and message of each mail."""

    host: str
    refused: tuple[str, ...] = ()
    """Recipients that are refused: with 550, or with 451 where the address begins with busy; with 421, and the
    connection closed, where it begins with full."""
    port: int = 0
    mails: list[tuple[str, str, EmailMessage]] = field(default_factory=list)

    def text(self, number: int) -> str:
        """The plain text of a mail."""
        return self.part(number, "plain")

    def part(self, number: int, kind: str) -> str:
        """The text of a mail's part, `plain` or `html`."""
        body = self.mails[number][2].get_body((kind,))
        assert body
        return str(body.get_content()).replace("\r\n", "\n")

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        if address in self.refused:
            if address.startswith("full"):
                return "421 Too many mails"
            return "451 Try again later" if address.startswith("busy") else "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Keep a mail."""
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        for recipient in envelope.rcpt_tos:
            self.mails.append((str(envelope.mail_from), recipient, message))
        return "250 OK"


@contextmanager
def mailbox(login: tuple[str, str] | None = None, refused: tuple[str, ...] = ()) -> Iterator[Mailbox]:
    """Run the server on a free port of the loopback interface; `login` is the user and password it asks for."""

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login.decode(), data.password.decode()) == login, handled=False)

    received = Mailbox("127.0.0.1", refused)
    options: dict[str, Any] = (
        {"auth_required": True, "auth_require_tls": False, "authenticator": authenticate} if login else {}
    )

    received.port = free_port()
    controller = Controller(received, hostname=received.host, port=received.port, **options)
    controller.start()
    try:
        yield received
    finally:
        controller.stop()
