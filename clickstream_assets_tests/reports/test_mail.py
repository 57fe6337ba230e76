"""The report by mail, through a real SMTP server."""

from __future__ import annotations

import datetime
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clickstream_assets.reports.mail import compose, recipients
from clickstream_assets.reports.page import render_html
from clickstream_assets.reports.text import render_text
from clickstream_assets.settings import Settings, SettingsError
from clickstream_assets.stores.mail import Mailer, MailError, mailer
from clickstream_assets.stores.postgres.reports import mail_once
from clickstream_assets_tests.databases import free_port, fresh_database, query
from clickstream_assets_tests.mailbox import Mailbox, mailbox
from clickstream_assets_tests.reports.days import DAY, report

LOGIN = ("shop", "a secret")


def settings_for(server: Mailbox | None, **more: Any) -> Settings:
    address = {"smtp_host": server.host, "smtp_port": server.port} if server else {}
    return Settings(
        **{
            "_env_file": None,
            "smtp_tls": "none",
            "report_from": "shop@example.com",
            "report_to": "ann@example.com",
            **address,
            **more,
        }
    )


def send(settings: Settings, recipient: str = "ann@example.com") -> str:
    with mailer(settings) as server:
        return send_by(server, recipient)


def send_by(server: Mailer, recipient: str) -> str:
    return server.send(compose(report(), "shop@example.com", recipient))


def retryable_error(match: str | None = None) -> pytest.RaisesExc[MailError]:
    """Expect an error that another attempt may not meet."""
    return pytest.raises(MailError, match=match, check=lambda error: error.retryable)


def test_a_mail_has_the_report_as_text_and_as_a_page():
    with mailbox() as received:
        message_id = send(settings_for(received))
    ((sender, recipient, message),) = received.mails
    assert (sender, recipient) == ("shop@example.com", "ann@example.com")
    assert message["Subject"] == "Daily E-commerce Summary - 2024-05-08"
    assert (message["From"], message["To"]) == (sender, recipient)
    assert message["Message-ID"] == message_id
    assert message["Message-ID"].endswith("@example.com>")
    assert message.get_content_type() == "multipart/alternative"
    assert received.part(0, "plain").rstrip("\n") == render_text(report())
    assert received.part(0, "html").rstrip("\n") == render_html(report()).rstrip("\n")


def test_it_logs_in_where_a_user_is_set():
    with mailbox(login=LOGIN) as received:
        send(settings_for(received, smtp_user=LOGIN[0], smtp_password=LOGIN[1]))
        assert len(received.mails) == 1
        with pytest.raises(MailError, match=r"refused SMTP_USER=shop with this SMTP_PASSWORD \(535"):
            send(settings_for(received, smtp_user=LOGIN[0], smtp_password="wrong"))
        with pytest.raises(MailError, match="refused the mail"):
            send(settings_for(received))
    assert len(received.mails) == 1


def test_what_the_server_does_not_have_is_named():
    with mailbox() as received:
        with pytest.raises(MailError, match=r"SMTP_TLS .*starttls, ssl or none"):
            send(settings_for(received, smtp_tls="starttls"))
        with pytest.raises(MailError, match="does not speak SMTP_TLS=ssl"):
            send(settings_for(received, smtp_tls="ssl"))
        with pytest.raises(MailError, match="leave SMTP_USER empty"):
            send(settings_for(received, smtp_user="shop", smtp_password="x"))
    assert received.mails == []


def test_refused_recipients_are_named_and_busy_servers_may_be_tried_again():
    with mailbox(refused=("ghost@example.com", "busy@example.com")) as received:
        settings = settings_for(received)
        with pytest.raises(
            MailError, match=r"ghost@example.com \(550 No such user\); correct REPORT_TO"
        ) as refused:
            send(settings, "ghost@example.com")
        assert not refused.value.retryable
        with retryable_error(r"busy@example.com \(451"):
            send(settings, "busy@example.com")


def test_a_server_that_is_not_there_may_be_tried_again():
    port = free_port()
    with retryable_error(f"SMTP_HOST=127.0.0.1 SMTP_PORT={port} cannot be reached"):
        send(settings_for(None, smtp_host="127.0.0.1", smtp_port=port))


def test_a_server_that_hangs_up_may_be_tried_again():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        hanging_up(listener) as port,
        retryable_error("cannot be reached"),
    ):
        send(settings_for(None, smtp_host="127.0.0.1", smtp_port=port))


@contextmanager
def hanging_up(listener: socket.socket) -> Iterator[int]:
    def accept() -> None:
        connection, _ = listener.accept()
        connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1]
    thread.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report_to": " , "}, "REPORT_TO is empty"),
        ({"report_from": None}, "REPORT_FROM is not"),
        ({"report_to": "ann@example.com, bob"}, "REPORT_TO: 'bob' is no mail address"),
        ({"report_from": "shop @example.com"}, "REPORT_FROM: 'shop @example.com' is no mail address"),
        ({"report_to": "ann@example.com\r\nBcc: all@example.com"}, "is no mail address"),
    ],
)
def test_addresses_that_cannot_be_used_are_named(changes: dict[str, object], message: str):
    with pytest.raises(SettingsError, match=message):
        recipients(settings_for(None, smtp_host="mail.example.com", **changes))


def test_recipients_are_told_apart_by_commas_and_each_is_one():
    settings = settings_for(None, report_to="ann@example.com, bob@example.com,ann@example.com,")
    assert recipients(settings) == ["ann@example.com", "bob@example.com"]


def test_without_a_server_sending_is_an_error():
    with pytest.raises(SettingsError, match="SMTP_HOST is not set"):
        send(settings_for(None))


def test_nobody_gets_a_report_twice_and_one_refusal_keeps_it_from_nobody_else(postgres: Settings):
    addresses = ["ann@example.com", "ghost@example.com", "bob@example.com"]
    with fresh_database(postgres) as database, mailbox(refused=("ghost@example.com",)) as received:
        with mailer(settings_for(received)) as server:

            def to(_: datetime.date, recipient: str) -> str:
                return send_by(server, recipient)

            with pytest.raises(MailError, match=r"ghost@example\.com"):
                mail_once(database, [(DAY, address) for address in addresses], to)
            ann, eve = (DAY, "ann@example.com"), (DAY, "eve@example.com")
            again = mail_once(database, [ann, eve], to)
            mail_once(database, [(DAY + datetime.timedelta(days=1), "ann@example.com")], to)
        assert (again.now, list(again.before)) == ([eve], [ann])
        assert [recipient for _, recipient, _ in received.mails] == [
            "ann@example.com",
            "bob@example.com",
            "eve@example.com",
            "ann@example.com",
        ]
        rows = query(database, "SELECT recipient, message_id FROM report_mails ORDER BY sent_at")
    assert rows == [(recipient, message["Message-ID"]) for _, recipient, message in received.mails]


def test_a_mail_that_failed_leaves_no_record_so_that_it_is_tried_again(postgres: Settings):
    def fail(_: datetime.date, recipient: str) -> str:
        raise MailError(f"no way to {recipient}", retryable=True)

    mail = (DAY, "ann@example.com")

    with fresh_database(postgres) as database:
        with retryable_error():
            mail_once(database, [mail], fail)
        assert mail_once(database, [mail], lambda *_: "<1@x>").now == [mail]


def test_a_busy_recipient_keeps_the_report_from_nobody_else(postgres: Settings):
    kept = ("busy@example.com", "ghost@example.com", "full@example.com")
    mails = [(DAY, address) for address in ("ann@example.com", *kept, "bob@example.com")]
    with fresh_database(postgres) as database, mailbox(refused=kept) as received:
        settings = settings_for(received)
        with mailer(settings) as server, retryable_error() as raised:
            mail_once(database, mails, lambda _, recipient: send_by(server, recipient))
        assert [recipient for _, recipient, _ in received.mails] == ["ann@example.com", "bob@example.com"]
        assert [str(raised.value).count(address) for address in kept] == [1, 1, 1]
