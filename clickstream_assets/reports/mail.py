"""Composes the report as a mail: text and HTML in one, a mail to each recipient."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from uuid import uuid4

from clickstream_assets.reports.document import Report
from clickstream_assets.reports.page import render_html
from clickstream_assets.reports.text import render_text, title
from clickstream_assets.settings import Settings, SettingsError, mail_addresses


def recipients(settings: Settings) -> list[str]:
    """Return the addresses that the report goes to, each once.

    Raises:
        SettingsError: mail is configured, but there is nobody to send to or from.
    """
    try:
        addresses = mail_addresses("REPORT_TO", settings.report_to)
        if not addresses:
            raise SettingsError(
                "SMTP_HOST is set and REPORT_TO is empty; set it to the recipients' addresses"
            )
        if not settings.report_from:
            raise SettingsError("SMTP_HOST is set and REPORT_FROM is not; set it to the sender's address")
        mail_addresses("REPORT_FROM", settings.report_from)
    except ValueError as error:
        raise SettingsError(error) from None
    return addresses


def compose(report: Report, sender: str, recipient: str) -> EmailMessage:
    """Make the mail of a report."""
    message = headed(title(report), sender, recipient, f"{report['date']}.{uuid4().hex[:16]}")
    message.set_content(render_text(report))
    message.add_alternative(render_html(report), subtype="html")
    return message


def headed(subject: str, sender: str, recipient: str, name: str) -> EmailMessage:
    """Make a mail without content; its name, as short as can be, is the first part of its Message-ID."""
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = sender
    message["To"] = recipient
    message["Date"] = format_datetime(datetime.now(UTC))
    # Short, unlike those of the email package: a longer header would be folded.
    message["Message-ID"] = f"<{name}@{sender.rpartition('@')[2]}>"
    # Lets mail programs hold their holiday replies.
    message["Auto-Submitted"] = "auto-generated"
    return message
