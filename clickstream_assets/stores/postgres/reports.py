"""The published reports in PostgreSQL, and the record of the mails that were sent of them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.mail import MailError
from clickstream_assets.stores.postgres.connection import connect, explained


class NoReportError(ClickstreamError):
    """There is no published report of a day; the message says which days have one."""


Mail: TypeAlias = tuple[date, str]
"""A report by mail: its day and its recipient."""


@dataclass(frozen=True)
class Mailed:
    """The mails that were sent now, and those that had been sent before, with the time."""

    now: list[Mail]
    before: dict[Mail, datetime]


def published_report(settings: Settings, day: date) -> dict[str, Any]:
    """Read a day's published report.

    Raises:
        NoReportError: the day has none.
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        row = connection.execute("SELECT report FROM daily_report WHERE report_date = %s", [day]).fetchone()
        if row:
            return with_names(connection, json.loads(row[0]))
        days = connection.execute(
            "SELECT min(report_date), max(report_date), count(*) FROM daily_report"
        ).fetchone()
    first, last, count = days or (None, None, 0)
    which = f"there are {count:,}, from {first} to {last}" if count else "there is none of any day yet"
    raise NoReportError(
        f"No report of {day} has been published: {which}. Materialize the day's daily_report and published_days"
    )


def with_names(connection: psycopg.Connection[Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return a report whose products have their names, where these are known, as they are now.

    They are no part of what is kept of a report, which would be another whenever a name changes.
    """
    products = report["top_5_viewed_products"]
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            "SELECT product_id, name FROM products WHERE product_id = ANY(%s) AND name IS NOT NULL",
            [[product["product_id"] for product in products]],
        ).fetchall()
    names = {product_id: {"name": name} for product_id, name in found}
    named = [{**product, **names.get(product["product_id"], {})} for product in products]
    return {**report, "top_5_viewed_products": named}


def mail_once(settings: Settings, mails: Iterable[Mail], send: Callable[[date, str], str]) -> Mailed:
    """Send days' reports to those recipients who have not had them.

    A mail is recorded in a transaction that is open while it is handed over: a second run waits for it, and a mail
    that was not taken leaves no record. Whatever keeps a mail from one recipient, the others get theirs.

    Args:
        settings: the database.
        mails: the days and mail addresses.
        send: sends a day's report to one recipient and returns the mail's id.

    Raises:
        PostgresError: the database cannot be reached.
        MailError: some mails were not taken; retryable where another attempt may deliver some of them.
    """
    mailed = Mailed([], {})
    failures: list[MailError] = []
    with explained(settings), connect(settings, autocommit=True) as connection:
        for day, recipient in mails:
            try:
                with connection.transaction():
                    sent_at = _claim(connection, day, recipient)
                    if sent_at:
                        mailed.before[day, recipient] = sent_at
                        continue
                    message_id = send(day, recipient)
                    connection.execute(
                        "UPDATE report_mails SET message_id = %s WHERE report_date = %s AND recipient = %s",
                        [message_id, day, recipient],
                    )
            except MailError as error:
                failures.append(error)
            else:
                mailed.now.append((day, recipient))
    if failures:
        messages = "; ".join(dict.fromkeys(map(str, failures)))
        raise MailError(messages, retryable=any(error.retryable for error in failures))
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
