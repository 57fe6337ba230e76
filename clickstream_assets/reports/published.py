"""The published reports in PostgreSQL, and the record of which was mailed to whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from clickstream_assets.postgres.connection import connect, explained
from clickstream_assets.reports.document import Report
from clickstream_assets.reports.mail import MailError
from clickstream_assets.settings import Settings


class NoReportError(LookupError):
    """There is no published report of a day; the message says which days have one."""


@dataclass(frozen=True)
class Mailed:
    """To whom a report was sent now, and to whom it had been sent before and when."""

    now: list[str]
    before: dict[str, datetime]


def published_report(settings: Settings, day: date) -> Report:
    """Read a day's published report.

    Raises:
        NoReportError: the day has none.
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        row = connection.execute("SELECT report FROM daily_report WHERE report_date = %s", [day]).fetchone()
        if row:
            return json.loads(row[0])
        days = connection.execute(
            "SELECT min(report_date), max(report_date), count(*) FROM daily_report"
        ).fetchone()
    first, last, count = days or (None, None, 0)
    which = f"there are {count:,}, from {first} to {last}" if count else "there is none of any day yet"
    raise NoReportError(
        f"No report of {day} has been published: {which}. Materialize the day's daily_report and published_days"
    )


def mail_once(settings: Settings, day: date, recipients: Iterable[str], send: Callable[[str], str]) -> Mailed:
    """Send a day's report to those recipients who have not had it.

    A recipient is recorded in a transaction that is open while the mail is handed over: a second run waits for it,
    and a mail that was refused leaves no record.

    Args:
        settings: the database.
        day: whose report.
        recipients: mail addresses.
        send: sends to one recipient and returns the mail's id.

    Raises:
        PostgresError: the database cannot be reached.
        MailError: of some recipients the mail is refused; the others have it.
    """
    mailed = Mailed([], {})
    refusals = []
    with explained(settings), connect(settings, autocommit=True) as connection:
        for recipient in recipients:
            try:
                with connection.transaction():
                    sent_at = _claim(connection, day, recipient)
                    if sent_at:
                        mailed.before[recipient] = sent_at
                        continue
                    message_id = send(recipient)
                    connection.execute(
                        "UPDATE report_mails SET message_id = %s WHERE report_date = %s AND recipient = %s",
                        [message_id, day, recipient],
                    )
            except MailError as error:
                refusals.append(str(error))
            else:
                mailed.now.append(recipient)
    if refusals:
        raise MailError("; ".join(refusals))
    return mailed


def _claim(connection: psycopg.Connection, day: date, recipient: str) -> datetime | None:
    """Record that the report goes to the recipient now; if it has gone before, return when."""
    claimed = connection.execute(
        "INSERT INTO report_mails (report_date, recipient, message_id) VALUES (%s, %s, '') "
        "ON CONFLICT DO NOTHING RETURNING true",
        [day, recipient],
    ).fetchone()
    if claimed:
        return None
    (sent_at,) = connection.execute(
        "SELECT sent_at FROM report_mails WHERE report_date = %s AND recipient = %s", [day, recipient]
    ).fetchone() or (None,)
    return sent_at
