"""`clickstream report`, from the published table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clickstream_assets.commands.app import app
from clickstream_assets.reports.page import render_html
from clickstream_assets.reports.text import render_text
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.databases import environment, fresh_database
from clickstream_assets_tests.mailbox import mailbox
from clickstream_assets_tests.reports.days import DAY, NOW, report


@pytest.fixture(scope="module")
def database(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        with connect(own) as connection:
            connection.execute(
                "INSERT INTO daily_report (report_date, generated_at, report) VALUES (%s, %s, %s)",
                [DAY, NOW, json.dumps(report())],
            )
            connection.execute("INSERT INTO products (product_id, name) VALUES ('p2', 'Hat'), ('p3', NULL)")
        yield own


def run(database: Settings, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments], env=environment(database) | more)


def test_a_published_report_is_shown_as_text_html_or_json(database: Settings, tmp_path: Path):
    named = report()
    named["top_5_viewed_products"][1]["name"] = "Hat"
    assert run(database, "2024-05-08").stdout == render_text(named) + "\n"
    assert json.loads(run(database, "2024-05-08", "--format", "json").stdout) == named
    target = tmp_path / "report.html"
    shown = run(database, "2024-05-08", "--format", "html", "--output", str(target))
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert target.read_text() == render_html(named) + "\n"


def test_a_day_without_a_report_is_an_error_that_says_which_days_have_one(database: Settings):
    result = run(database, "2024-05-09")
    assert result.exit_code == 1
    assert (
        "No report of 2024-05-09 has been published: there are 1, from 2024-05-08 to 2024-05-08"
        in result.stderr
    )
    assert run(database, "yesterday").exit_code == 2


def test_a_file_that_cannot_be_written_is_named(database: Settings, tmp_path: Path):
    result = run(database, "2024-05-08", "--output", str(tmp_path / "none" / "report.txt"))
    assert result.exit_code == 1
    assert "report.txt cannot be written: No such file or directory" in result.stderr


def test_it_is_sent_once_to_each_recipient(database: Settings):
    with mailbox() as received:
        mail = {
            "SMTP_HOST": received.host,
            "SMTP_PORT": str(received.port),
            "SMTP_TLS": "none",
            "REPORT_FROM": "shop@example.com",
            "REPORT_TO": "ann@example.com",
        }
        assert run(database, "2024-05-08", "--send", **mail).stdout == "Sent to ann@example.com.\n"
        again = run(database, "2024-05-08", "--send", **mail).stdout
    assert again.startswith("ann@example.com had it already, on ")
    assert len(received.mails) == 1


def test_sending_without_a_mail_server_says_what_to_set(database: Settings):
    result = run(database, "2024-05-08", "--send")
    assert result.exit_code == 1
    assert "SMTP_HOST is not set" in result.stderr
