"""`clickstream report`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from clickstream_assets.errors import InputError
from clickstream_assets.settings import load_settings


def report_command(
    day: Annotated[
        datetime, typer.Argument(metavar="DATE", formats=["%Y-%m-%d"], help="The day, such as 2024-05-31.")
    ],
    format: Annotated[Literal["text", "html", "json"], typer.Option(help="text, html or json.")] = "text",
    output: Annotated[Path | None, typer.Option(help="File to write (default: standard output).")] = None,
    send: Annotated[
        bool, typer.Option("--send", help="Mail it to those of REPORT_TO who have not had it.")
    ] = False,
) -> None:
    """Show a day's published report, or mail it."""
    # Imported here, so that `clickstream --help` need not wait for Jinja.
    from clickstream_assets.defs.reports.mail import mail_reports
    from clickstream_assets.reports.page import render_html
    from clickstream_assets.reports.text import render_text
    from clickstream_assets.stores.postgres.reports import published_report

    settings = load_settings()
    report = published_report(settings, day.date())
    rendered = {
        "text": render_text,
        "html": render_html,
        "json": lambda report: json.dumps(report, ensure_ascii=False, indent=2),
    }[format](report)
    if output:
        try:
            output.write_text(rendered + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{output} cannot be written: {error.strerror}") from None
    elif not send:
        typer.echo(rendered)
    if send:
        mailed = mail_reports(settings, {day.date(): report})
        for _, recipient in mailed.now:
            typer.echo(f"Sent to {recipient}.")
        for (_, recipient), moment in mailed.before.items():
            typer.echo(f"{recipient} had it already, on {moment:%Y-%m-%d %H:%M} UTC.")
