"""Sends mails by SMTP, encrypted and logged in as the settings say."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import EmailMessage
from email.policy import SMTP

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import MailEncryption, Settings, SettingsError

TIMEOUT_SECONDS = 30.0
_PORTS = {MailEncryption.STARTTLS: 587, MailEncryption.SSL: 465, MailEncryption.NONE: 25}


class MailError(ClickstreamError):
    """The mail server refuses, or, retryable, is away or busy; the message names the setting or recipient."""


class Mailer:
    """A connection to the mail server, opened again when the server has closed it; made by `mailer`."""

    def __init__(self, settings: Settings, what: str, timeout: float) -> None:
        self._settings = settings
        self._what = what
        self._timeout = timeout
        self._server = _logged_in(settings, what, timeout)

    def close(self) -> None:
        """Close the connection."""
        # QUIT would wait for an answer that a broken server does not give; what was sent has been acknowledged.
        self._server.close()

    def send(self, message: EmailMessage) -> str:
        """Send a mail to its one recipient.

        Returns:
            Its Message-ID.

        Raises:
            MailError: the server does not take it; retryable where it went away or is busy.
        """
        sender, recipient = str(message["From"]), str(message["To"])
        if self._server.sock is None:
            # What was wrong with the last recipient's mail, or with the server then, need not be so any more.
            self._server = _logged_in(self._settings, self._what, self._timeout)
        with _explained(self._settings, self._what, recipient):
            # smtplib's send_message would put a > before each line that begins with "From ".
            self._server.sendmail(sender, [recipient], message.as_bytes(policy=SMTP))
        return str(message["Message-ID"])


@contextmanager
def mailer(settings: Settings, what: str = "REPORT", timeout: float = TIMEOUT_SECONDS) -> Iterator[Mailer]:
    """Connect to the mail server, encrypted and logged in as the settings say.

    Args:
        settings: name the server.
        what: is sent: the first word of the settings of its sender and recipients.
        timeout: seconds that the server may take for each answer.

    Raises:
        SettingsError: SMTP_HOST is not set.
        MailError: the server refuses the login or the encryption; retryable where it is away or busy.
    """
    if not settings.smtp_host:
        raise SettingsError(f"SMTP_HOST is not set; set it to the mail server to send {what.lower()}s")
    with closing(Mailer(settings, what, timeout)) as opened:
        yield opened


def _logged_in(settings: Settings, what: str, timeout: float) -> smtplib.SMTP:
    with _explained(settings, what):
        server = _connect(settings, timeout)
    try:
        with _explained(settings, what):
            if settings.smtp_tls is MailEncryption.STARTTLS:
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
    except MailError:
        server.close()
        raise
    return server


def _connect(settings: Settings, timeout: float) -> smtplib.SMTP:
    host, port = str(settings.smtp_host), _port(settings)
    if settings.smtp_tls is MailEncryption.SSL:
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
    return smtplib.SMTP(host, port, timeout=timeout)


def _port(settings: Settings) -> int:
    return settings.smtp_port or _PORTS[settings.smtp_tls]


@contextmanager
def _explained(settings: Settings, what: str, recipient: str = "") -> Iterator[None]:
    """Turn what smtplib raises into what to do about it."""
    where = f"SMTP_HOST={settings.smtp_host} SMTP_PORT={_port(settings)}"
    try:
        yield
    except smtplib.SMTPAuthenticationError as error:
        raise MailError(
            f"{where} refused SMTP_USER={settings.smtp_user} with this SMTP_PASSWORD ({_said(error)}); set both to "
            "an account of that server"
        ) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailError(
            f"{where} does not offer what is asked of it ({error}); set SMTP_TLS to what it has (starttls, ssl or "
            "none), and leave SMTP_USER empty where it knows no login"
        ) from error
    except smtplib.SMTPRecipientsRefused as error:
        code, text = error.recipients[recipient]
        message = f"{where} refused the recipient {recipient} ({code} {text.decode(errors='replace')})"
        if 400 <= code < 500:
            raise MailError(f"{message}; try again later", retryable=True) from error
        raise MailError(f"{message}; correct {what}_TO") from error
    except smtplib.SMTPResponseException as error:
        if 400 <= error.smtp_code < 500:
            raise MailError(f"{where} is busy ({_said(error)}); try again later", retryable=True) from error
        raise MailError(f"{where} refused the mail ({_said(error)}); see {what}_FROM") from error
    except ssl.SSLError as error:
        raise MailError(
            f"{where} does not speak SMTP_TLS={settings.smtp_tls} with a certificate that this machine trusts "
            f"({error}); set SMTP_TLS and SMTP_HOST to what the server has"
        ) from error
    except OSError as error:
        raise MailError(
            f"{where} cannot be reached ({error}); start it, or set SMTP_HOST and SMTP_PORT to where it is",
            retryable=True,
        ) from error


def _said(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
