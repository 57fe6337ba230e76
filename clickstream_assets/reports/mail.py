"""Composes the report as a mail: text and HTML in one, a mail to each recipient."""

from __future__ import annotations

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from uuid import uuid4

from clickstream_assets.reports.document import Report
from clickstream_assets.reports.page import render_html
from clickstream_assets.reports.text import render_text, title
from clickstream_assets.settings import Settings, SettingsError


def recipients(settings: Settings) -> list[str]:
    """Return the addresses that the report goes to, each once.

    Raises:
        SettingsError: mail is configured, but there is nobody to send to or from.
    """
    addresses = list(dict.fromkeys(part.strip() for part in settings.report_to.split(",") if part.strip()))
    if not addresses:
        raise SettingsError("SMTP_HOST is set and REPORT_TO is empty; set it to the recipients' addresses")
    if not settings.report_from:
        raise SettingsError("SMTP_HOST is set and REPORT_FROM is not; set it to the sender's address")
    for name, values in (("REPORT_TO", addresses), ("REPORT_FROM", [settings.report_from])):
        for value in values:
            _check_address(name, value)
    return addresses


def _check_address(name: str, value: str) -> None:
    try:
        address = Address(addr_spec=value)
    except (ValueError, IndexError) as error:
        raise SettingsError(f"{name}: {value!r} is no mail address ({error}); write name@host") from None
    if not address.domain or address.addr_spec != value or not value.isascii():
        raise SettingsError(f"{name}: {value!r} is no mail address; write name@host")


def compose(report: Report, sender: str, recipient: str) -> EmailMessage:
    """Make the mail of a report."""
    message = EmailMessage()
    message["Subject"] = title(report)
    message["From"] = sender
    message["To"] = recipient
    message["Date"] = format_datetime(datetime.now(UTC))
    # Short, unlike those of the email package: a longer header would be folded.
    message["Message-ID"] = f"<{report['date']}.{uuid4().hex[:16]}@{sender.rpartition('@')[2]}>"
    # Lets mail programs hold their holiday replies.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(render_text(report))
    message.add_alternative(render_html(report), subtype="html")
    return message
