"""Mails published reports, each to each recipient once."""

from collections.abc import Mapping
from datetime import date

from clickstream_assets.reports.document import Report
from clickstream_assets.reports.mail import compose, recipients
from clickstream_assets.settings import Settings
from clickstream_assets.stores.mail import mailer
from clickstream_assets.stores.postgres.reports import Mailed, mail_once


def mail_reports(settings: Settings, reports: Mapping[date, Report]) -> Mailed:
    """Mail days' reports to those of REPORT_TO who have not had them.

    Raises:
        SettingsError: SMTP_HOST is not set, or there is nobody to send to or from.
        MailError: some mails were not taken; retryable where another attempt may deliver some of them.
        PostgresError: the database cannot be reached.
    """
    with mailer(settings) as server:
        mails = [(day, recipient) for day in reports for recipient in recipients(settings)]
        sender = str(settings.report_from)
        return mail_once(
            settings, mails, lambda day, recipient: server.send(compose(reports[day], sender, recipient))
        )
