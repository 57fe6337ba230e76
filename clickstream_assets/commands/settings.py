"""`clickstream settings`: every setting with its default and meaning, as Markdown; `docs/settings.md` is its output."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from clickstream_assets.settings import Settings, secret_names

# The first setting of each section, in the order of settings.py.
SECTIONS = {
    "postgres_host": "PostgreSQL",
    "clickstream_home": "Folders",
    "compute_engine": "Engines",
    "kafka_bootstrap_servers": "Kafka and ingest",
    "events_start_date": "Events",
    "identity_lookback_days": "Persons, sessions, carts and customers",
    "training_days": "Recommendations",
    "window_duration": "Windows, alerts and streams",
    "elasticsearch_url": "Elasticsearch",
    "alert_webhook_url": "Alerts by webhook",
    "smtp_host": "The report by mail",
    "incident_to": "Incidents",
    "api_host": "The API and Dagster's UI",
    "collector_allowed_origins": "Events over HTTP",
    "sensor_interval_seconds": "Sensors, freshness and code links",
    "simulator_interval": "The simulator",
}
_INTRODUCTION = """\
# Settings

Environment variables, or lines `NAME=value` in a `.env` file in the current folder; a variable that is really set wins
over the file, and an empty one counts as not set. A value that cannot be used stops the program with the variable's
name, the value and what was expected.

A setting marked *secret* may be in a file: `POSTGRES_PASSWORD_FILE=/run/secrets/password` takes the place of
`POSTGRES_PASSWORD`, as Docker and Kubernetes mount secrets, and so it is with each of them. The line break at the
file's end is no part of it. A message about a secret has neither its value nor any part of it.

This page is the output of `clickstream settings`."""


def settings_command() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    typer.echo(settings_page(), nl=False)


def settings_page() -> str:
    """Return the reference of all settings, in the order of `settings.py`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    secrets = secret_names(Settings)
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            yield f"\n## {SECTIONS[name]}\n"
            yield "| variable | default | meaning |"
            yield "| --- | --- | --- |"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        if name in secrets:
            meaning = f"*Secret.* {meaning}"
        yield f"| `{name.upper()}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    text = _text(field.default)
    return f"`{text}`" if text else ""


def _text(value: Any) -> str:
    """Write a default as one would set it; nothing for one that is none."""
    match value:
        case None | {}:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case timedelta():
            return f"{value.total_seconds() / 60:g} minutes"
        case Path():
            return value.as_posix()
        case _:
            return str(value)
